-- How a file of an earlier format becomes one of `schema.sql`; see `read_format`.

-- Version 2, from schema 505bd0558a6b339b

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

-- Version 3, from schema ef394b3740da92a4

-- What was called marks is called facets: words for the host and the tag of an item. The index has
-- to be made again, because a column of an FTS5 table can't be renamed.
DROP TRIGGER words_added;
DROP TRIGGER words_removed;
DROP TRIGGER words_changed;
DROP TABLE words;
ALTER TABLE items RENAME COLUMN marks TO facets;

-- The index has no copy of the texts (external content). The triggers keep it in step.
CREATE VIRTUAL TABLE words USING fts5 (
    title, text, facets, content = 'items', content_rowid = 'id',
    tokenize = 'porter unicode61 remove_diacritics 2', prefix = '2'
);
-- Merge the parts of the index half as often as by default: storing is an eighth faster and
-- searching a tenth slower (tests/benchmarks/search.py).
INSERT INTO words (words, rank) VALUES ('automerge', 8);
CREATE TRIGGER words_added AFTER INSERT ON items BEGIN
    INSERT INTO words (rowid, title, text, facets)
    VALUES (new.id, new.title, new.text, new.facets);
END;
CREATE TRIGGER words_removed AFTER DELETE ON items BEGIN
    INSERT INTO words (words, rowid, title, text, facets)
    VALUES ('delete', old.id, old.title, old.text, old.facets);
END;
CREATE TRIGGER words_changed AFTER UPDATE OF title, text, facets ON items BEGIN
    INSERT INTO words (words, rowid, title, text, facets)
    VALUES ('delete', old.id, old.title, old.text, old.facets);
    INSERT INTO words (rowid, title, text, facets)
    VALUES (new.id, new.title, new.text, new.facets);
END;
INSERT INTO words (words) VALUES ('rebuild');

-- Version 4, from schema 07a06131818aaa50

-- Texts are indexed in another form. The index is made again in steps, so that search is available
-- meanwhile: see `ItemStore.complete_index`. What the new one already has, it keeps in step.
CREATE VIEW indexed_items AS
    SELECT id, indexed(title) AS title, indexed(text) AS text, facets FROM items;
CREATE VIRTUAL TABLE new_words USING fts5 (
    title, text, facets, content = 'indexed_items', content_rowid = 'id',
    tokenize = "porter unicode61 remove_diacritics 2 categories 'L* N* Co Mn Mc'", prefix = '2'
);
INSERT INTO new_words (new_words, rank) VALUES ('automerge', 8);
CREATE TRIGGER new_words_removed AFTER DELETE ON items
WHEN old.id <= (SELECT max(id) FROM new_words_docsize) BEGIN
    INSERT INTO new_words (new_words, rowid, title, text, facets)
    VALUES ('delete', old.id, indexed(old.title), indexed(old.text), old.facets);
END;
CREATE TRIGGER new_words_changed AFTER UPDATE OF title, text, facets ON items
WHEN old.id <= (SELECT max(id) FROM new_words_docsize) BEGIN
    INSERT INTO new_words (new_words, rowid, title, text, facets)
    VALUES ('delete', old.id, indexed(old.title), indexed(old.text), old.facets);
    INSERT INTO new_words (rowid, title, text, facets)
    VALUES (new.id, indexed(new.title), indexed(new.text), new.facets);
END;

-- Version 5, from schema b1636dd679a20b8f or 1f7f383a8ba9102b

-- Items that were stored with a secret in their URL become those that are stored now. What differed
-- in a secret only is one item: the newest, with the contents of the others as versions.
PRAGMA secure_delete = ON;
CREATE TABLE hidden AS
    SELECT id, shown_url(url) AS url, canonical_url(shown_url(url)) AS key FROM items
    WHERE url LIKE '%=%' AND url != shown_url(url);
CREATE INDEX hidden_by_key ON hidden (key);
CREATE TABLE merged AS
    SELECT id, first_value(id) OVER (PARTITION BY key ORDER BY fetched_at DESC, id DESC) AS kept
    FROM (SELECT hidden.id, hidden.key, fetched_at FROM hidden JOIN items USING (id)
          UNION SELECT id, key, fetched_at FROM items
          WHERE key IN (SELECT key FROM hidden) AND id NOT IN (SELECT id FROM hidden));
DELETE FROM merged WHERE kept IN (SELECT kept FROM merged GROUP BY kept HAVING count(*) = 1);
CREATE TABLE contents AS
    SELECT kept, id != kept AS other, versions.title, versions.sha256, versions.size,
        versions.fetched_at, versions.text
    FROM merged JOIN versions ON item_id = id
    UNION ALL
    SELECT kept, 1, title, sha256, size, fetched_at, compressed(items.text)
    FROM merged JOIN items USING (id) WHERE id != kept
    ORDER BY fetched_at;
DELETE FROM contents WHERE other AND (
    sha256 = (SELECT sha256 FROM items WHERE id = kept)
    OR rowid > (SELECT min(rowid) FROM contents AS same
                WHERE same.kept = contents.kept AND same.sha256 = contents.sha256));
DELETE FROM versions WHERE item_id IN (SELECT id FROM merged);
INSERT INTO versions
    SELECT kept, row_number() OVER (PARTITION BY kept ORDER BY fetched_at), title, sha256, size,
        fetched_at, text FROM contents;
REPLACE INTO visits
    SELECT kept, max(visited_at) FROM merged JOIN visits ON item_id = id GROUP BY kept;
DELETE FROM visits WHERE item_id IN (SELECT id FROM merged WHERE id != kept);
-- An item without a tag keeps the one of its earlier contents.
UPDATE items SET (tag, facets) = (earlier.tag, earlier.facets)
    FROM (SELECT kept, tag, facets, max(fetched_at) FROM merged JOIN items USING (id)
          WHERE tag NOT NULL GROUP BY kept) AS earlier
    WHERE items.id = earlier.kept AND items.tag IS NULL;
DELETE FROM items WHERE id IN (SELECT id FROM merged WHERE id != kept);
UPDATE items SET url = hidden.url, key = hidden.key FROM hidden WHERE hidden.id = items.id;
UPDATE items SET metadata = shown_metadata(metadata)
    WHERE metadata LIKE '%://%=%' AND metadata != shown_metadata(metadata);
DROP TABLE hidden;
DROP TABLE merged;
DROP TABLE contents;
