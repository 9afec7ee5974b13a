-- The statements of the collection that are longer than a line; sql.py loads them by name.
-- Names in double braces are filled in by items.py and search.py.

-- name: written
key, url, title, author, date, language, mime_type, sha256, size, tag, fetched_at, stored_at,
job_id, metadata, facets, text

-- name: values
:key, :url, :title, :author, :date, :language, :mime_type, :sha256, :size, :tag, :fetched_at,
:stored_at, :job_id, :metadata, :facets, :text

-- name: insert
INSERT INTO items ({written}) VALUES ({values})

-- name: update
UPDATE items SET ({written}) = ({values}) WHERE id = :id

-- name: stored
SELECT id, sha256, text, tag, facets, max(fetched_at, coalesce(visited_at, 0)) AS seen_at
FROM items LEFT JOIN visits ON item_id = id WHERE key = ?

-- name: keep_version
INSERT INTO versions
SELECT id, (SELECT count(*) + 1 FROM versions WHERE item_id = items.id), title, sha256, size,
    fetched_at, ? FROM items WHERE id = ?

-- name: visit
REPLACE INTO visits SELECT id, ? FROM items WHERE key = ? RETURNING item_id

-- name: read
items.id, url, title, author, date, language, mime_type, sha256, size, tag, fetched_at, stored_at,
max(fetched_at, coalesce(visited_at, 0)) AS visited_at, metadata

-- name: item
SELECT {read},
    (SELECT count(*) + 1 FROM versions WHERE item_id = items.id) AS versions,
    (SELECT json_group_array(id) FROM (
        SELECT id FROM items AS twins
        WHERE twins.sha256 = items.sha256 AND twins.id != items.id LIMIT {twins}
    )) AS duplicates,
    text
FROM items LEFT JOIN visits ON visits.item_id = items.id WHERE items.id = ?

-- name: listed
SELECT {read} FROM items LEFT JOIN visits ON visits.item_id = items.id
WHERE items.id IN (SELECT value FROM json_each(?))

-- name: existing
SELECT id FROM items WHERE id IN (SELECT value FROM json_each(?))

-- name: newest
SELECT id FROM items {{where}} ORDER BY fetched_at DESC, id DESC LIMIT :limit

-- name: tagged
WHERE tag = :tag OR id IN (SELECT rowid FROM words WHERE words MATCH :facet)

-- name: versions
SELECT version, title, sha256, size, fetched_at FROM versions WHERE item_id = ?1 UNION ALL
SELECT (SELECT count(*) + 1 FROM versions WHERE item_id = ?1), title, sha256, size, fetched_at
FROM items WHERE id = ?1 ORDER BY version

-- name: text_of_version
-- In one query: the last version may become an earlier one meanwhile.
SELECT coalesce((SELECT text FROM versions WHERE item_id = ?1 AND version = ?2), text)
FROM items WHERE id = ?1

-- name: is_indexing
SELECT 1 FROM sqlite_master WHERE name = 'new_words'

-- name: index_more
INSERT INTO new_words (rowid, title, text, facets) SELECT * FROM indexed_items
WHERE id > (SELECT coalesce(max(id), 0) FROM new_words_docsize) ORDER BY id LIMIT ?

-- Searches by words ---------------------------------------------------------------------------

-- name: merge_index
INSERT INTO words (words, rank) VALUES ('merge', 500)

-- name: switch_index
DROP TRIGGER new_words_removed;
DROP TRIGGER new_words_changed;
DROP TRIGGER words_added;
DROP TRIGGER words_removed;
DROP TRIGGER words_changed;
DROP TABLE words;
ALTER TABLE new_words RENAME TO words;

-- name: rank_of_words
bm25(words, {title_weight}, 1.0, 0.0)

-- name: matches
SELECT words.rowid AS id, {{rank}} AS rank FROM words{{joined}}
WHERE words MATCH :words{{days}} ORDER BY words.rowid DESC LIMIT :ranked

-- name: best
SELECT id, rank FROM ({matches}) ORDER BY rank, id DESC LIMIT :limit

-- name: best_by_titles
WITH matches AS MATERIALIZED ({matches})
SELECT id, -1.0 * (id IN (
    SELECT rowid FROM words
    WHERE words MATCH :title AND rowid >= (SELECT min(id) FROM matches))) AS rank
FROM matches ORDER BY rank, id DESC LIMIT :limit

-- name: best_by_scored_terms
WITH matches AS MATERIALIZED ({matches})
SELECT words.rowid AS id, {rank_of_words} AS rank FROM words
WHERE words MATCH :scored_terms AND words.rowid >= (SELECT min(id) FROM matches)
    AND +words.rowid IN (SELECT id FROM matches)
ORDER BY rank, words.rowid DESC LIMIT :limit

-- name: document_counts
-- An estimate of the documents with each of some words, from their number among the newest 1,000.
SELECT value, max(1.0, :last / 1000.0) *
    (SELECT count(*) FROM words WHERE words MATCH value AND words.rowid > :last - 1000)
FROM json_each(:words)

-- name: snippet
-- Of a long text, the text itself: see snippets.py.
SELECT words.rowid AS id, url, items.title AS title,
    iif(length(items.text) > {long}, NULL,
        snippet(words, 1, '{hit_start}', '{hit_end}', '…', {snippet_words})) AS snippet,
    iif(length(items.text) > {long}, substr(items.text, 1, 2000000), NULL) AS text

-- name: snippets_by_id
{snippet}
FROM json_each(:ids) AS best CROSS JOIN words CROSS JOIN items ON items.id = words.rowid
WHERE words MATCH :words AND words.rowid = best.value

-- name: snippets_by_range
-- For prefixes: each query of the index merges the documents of all words with the prefix, so this
-- asks it only once.
{snippet}
FROM words CROSS JOIN items ON items.id = words.rowid
WHERE words MATCH :words
    AND words.rowid BETWEEN (SELECT min(value) FROM json_each(:ids))
        AND (SELECT max(value) FROM json_each(:ids))
    AND +words.rowid IN (SELECT value FROM json_each(:ids))

-- Searches by operators alone -----------------------------------------------------------------

-- name: newest_first
ORDER BY fetched_at DESC, items.id DESC

-- name: selected
SELECT items.id AS id, url, title, substr(text, 1, 200) AS snippet, 0.0 AS score
FROM items JOIN ({{selected}} {newest_first} LIMIT :limit) AS selected
    ON selected.id = items.id {newest_first}

-- name: by_facets
-- Of few items with the facets: sort all of them.
SELECT items.id FROM words CROSS JOIN items INDEXED BY items_by_day ON items.id = words.rowid
WHERE words MATCH :facets{{days}}

-- name: by_common_facets
-- Of many: go through all items from the newest on until enough of them have the facets.
SELECT id FROM items
WHERE EXISTS (SELECT 1 FROM words WHERE words MATCH :facets AND words.rowid = items.id){{days}}

-- name: without_facets
SELECT id FROM items WHERE 1{{days}}

-- name: are_common
SELECT 1 FROM words WHERE words MATCH :facets LIMIT 1 OFFSET {common}
