-- The tables of items.db. A change is a migration, too: see migrations.sql.

-- The text is the last column, so that the others are read without touching its pages.
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,  -- the canonical URL
    url TEXT NOT NULL,  -- as the user gave it
    title TEXT,
    author TEXT,
    date TEXT,
    language TEXT,
    mime_type TEXT NOT NULL,
    sha256 TEXT NOT NULL,  -- of the fetched bytes, and so their key in the cache
    size INTEGER NOT NULL,
    tag TEXT,
    fetched_at REAL NOT NULL,
    stored_at REAL NOT NULL,
    job_id INTEGER,  -- the job that stored it last
    metadata TEXT NOT NULL,  -- JSON
    facets TEXT NOT NULL,  -- words for its host and its tag, see `facets_of`
    text TEXT NOT NULL
);
CREATE INDEX items_by_time ON items (fetched_at);
CREATE INDEX items_by_tag ON items (tag, fetched_at);
CREATE INDEX items_by_storing ON items (stored_at);
CREATE INDEX items_by_content ON items (sha256);
CREATE INDEX items_by_day ON items (id, date, fetched_at);

-- indexed() is a function of index_text.py: only the index needs it, items are read without it.
CREATE VIEW indexed_items AS
    SELECT id, indexed(title) AS title, indexed(text) AS text, facets FROM items;
-- The index has no copy of the texts (external content). The triggers keep it in step.
CREATE VIRTUAL TABLE words USING fts5 (
    title, text, facets, content = 'indexed_items', content_rowid = 'id',
    tokenize = "porter unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'", prefix = '2'
);
-- Merge the parts of the index half as often as by default: storing is an eighth faster and
-- searching a tenth slower (tests/benchmarks/search.py).
INSERT INTO words (words, rank) VALUES ('automerge', 8);
CREATE TRIGGER words_added AFTER INSERT ON items BEGIN
    INSERT INTO words (rowid, title, text, facets)
    VALUES (new.id, indexed(new.title), indexed(new.text), new.facets);
END;
CREATE TRIGGER words_removed AFTER DELETE ON items BEGIN
    INSERT INTO words (words, rowid, title, text, facets)
    VALUES ('delete', old.id, indexed(old.title), indexed(old.text), old.facets);
END;
CREATE TRIGGER words_changed AFTER UPDATE OF title, text, facets ON items BEGIN
    INSERT INTO words (words, rowid, title, text, facets)
    VALUES ('delete', old.id, indexed(old.title), indexed(old.text), old.facets);
    INSERT INTO words (rowid, title, text, facets)
    VALUES (new.id, indexed(new.title), indexed(new.text), new.facets);
END;

-- Fetches that found an item unchanged.
CREATE TABLE visits (
    item_id INTEGER PRIMARY KEY,
    visited_at REAL NOT NULL
);
-- The earlier contents of items.
CREATE TABLE versions (
    item_id INTEGER NOT NULL,
    version INTEGER NOT NULL,  -- from 1
    title TEXT,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    fetched_at REAL NOT NULL,
    text BLOB NOT NULL,  -- compressed with zlib
    UNIQUE (item_id, version)
);
