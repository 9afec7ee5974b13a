-- How a file of an earlier format becomes one of `schema.sql`; see `read_format`.

-- Version 2, from schema 04b367d53eb0b75f

-- Columns, tables and indexes have the names of the glossary.
DROP VIEW counts;
DROP VIEW ids;
DROP INDEX jobs_active;
DROP INDEX jobs_overdue;
DROP INDEX jobs_line;
DROP INDEX jobs_turns;
DROP INDEX jobs_alone;
ALTER TABLE jobs RENAME COLUMN alone TO isolated;
ALTER TABLE jobs RENAME COLUMN place TO host_slot;
ALTER TABLE jobs RENAME COLUMN every TO interval;
ALTER TABLE jobs RENAME COLUMN number TO run;
ALTER TABLE attempts RENAME COLUMN number TO run;
ALTER TABLE tally RENAME TO counters;
ALTER TABLE state RENAME TO plugin_state;
CREATE INDEX jobs_active ON jobs (ready, task, isolated, priority DESC, id)
    WHERE ready = 1 OR worker IS NOT NULL;
CREATE INDEX jobs_overdue ON jobs (id) WHERE state = 'scheduled' AND ready + host_slot > 0;
CREATE INDEX jobs_waiting_for_host ON jobs (host, priority DESC, id) WHERE host_slot = 1;
CREATE INDEX jobs_host_slots ON jobs (host) WHERE host_slot = 2;
CREATE INDEX jobs_isolated ON jobs (pool) WHERE isolated = 1 AND finished_at IS NULL;
CREATE VIEW ids AS
    SELECT max(jobs, coalesce((SELECT max(id) FROM jobs), 0)) AS last, jobs AS counted
    FROM counters WHERE kind = 'id';
CREATE VIEW counts AS
    SELECT name, jobs + late AS jobs, roots + late AS roots FROM (
        SELECT *, iif(name = 'queued', (SELECT last - counted FROM ids), 0) AS late
        FROM counters WHERE kind = 'state');

-- Version 3, from schema 7818b45d213ede40

DROP INDEX jobs_retrying;
CREATE INDEX jobs_retrying ON jobs (run_at) WHERE state = 'retrying';
CREATE INDEX jobs_recurring ON jobs (id) WHERE interval IS NOT NULL;
-- Pages are counted, by their state.
ALTER TABLE jobs ADD COLUMN page_id INTEGER;
ALTER TABLE jobs ADD COLUMN page_state TEXT;
CREATE VIEW page_counts AS
    WITH counted AS (
        SELECT kind, name, jobs + iif(name = 'queued', (
            SELECT count(*) FROM jobs
            WHERE page_id = id AND id > (SELECT jobs FROM counters WHERE kind = 'id')
        ), 0) AS number
        FROM counters WHERE kind IN ('page', 'part')
    )
    SELECT kind, name, number FROM counted WHERE kind = 'page'
    UNION ALL SELECT 'other', name, jobs - number
    FROM counts JOIN counted USING (name) WHERE kind = 'part';
UPDATE jobs SET page_id = id WHERE task = 'fetch' OR (task = 'links' AND parent_id IS NOT NULL);
UPDATE jobs SET page_id = parent.page_id FROM jobs AS parent
WHERE jobs.parent_id = parent.id AND jobs.task = 'extract' AND parent.page_id IS NOT NULL;
UPDATE jobs SET page_id = parent.page_id FROM jobs AS parent
WHERE jobs.parent_id = parent.id AND jobs.task = 'store' AND parent.page_id IS NOT NULL;
UPDATE jobs SET page_state = (
    SELECT CASE
        WHEN page.state = 'cancelled' THEN 'cancelled'
        WHEN 'running' IN (page.state, extract.state, store.state) THEN 'running'
        WHEN 'queued' IN (extract.state, store.state) THEN 'running'
        WHEN 'retrying' IN (page.state, extract.state, store.state) THEN 'retrying'
        WHEN 'scheduled' IN (page.state, extract.state, store.state) THEN 'scheduled'
        WHEN page.state = 'queued' THEN 'queued'
        WHEN 'failed' IN (page.state, extract.state, store.state) THEN 'failed'
        WHEN 'cancelled' IN (extract.state, store.state) THEN 'cancelled'
        WHEN iif(json_valid(store.result), store.result ->> 'item', NULL) IS NOT NULL THEN 'stored'
        WHEN iif(json_valid(page.result), page.result ->> 'status', NULL) = 304 THEN 'unchanged'
        ELSE 'skipped'
    END
    FROM jobs AS page
    LEFT JOIN jobs AS extract ON extract.id = (
        SELECT id FROM jobs WHERE parent_id = page.id AND page_id = page.id ORDER BY id DESC LIMIT 1
    )
    LEFT JOIN jobs AS store ON store.id = (
        SELECT id FROM jobs WHERE parent_id = extract.id AND page_id = page.id ORDER BY id DESC LIMIT 1
    )
    WHERE page.id = jobs.id
) WHERE page_id = id;
-- Jobs that are not counted yet are counted as queued, whatever their state is.
INSERT INTO counters (kind, name, jobs)
SELECT 'page', column1, (SELECT count(*) FROM jobs WHERE page_state = column1)
FROM (VALUES ('queued'), ('scheduled'), ('running'), ('retrying'), ('stored'), ('unchanged'),
    ('failed'), ('cancelled'), ('skipped'));
INSERT INTO counters (kind, name, jobs)
SELECT 'part', name, (SELECT count(*) FROM jobs WHERE state = name AND page_id IS NOT NULL)
FROM counters WHERE kind = 'state';
UPDATE counters SET jobs = jobs - (
    SELECT count(*) FROM jobs
    WHERE page_id = id AND id > (SELECT jobs FROM counters WHERE kind = 'id')
) WHERE kind IN ('page', 'part') AND name = 'queued';

-- Workers and the supervisor belong to a machine and to a file. Those of the earlier format have
-- ended, because none of them can use this one. The ids of workers are not used again.
ALTER TABLE workers RENAME TO old_workers;
CREATE TABLE workers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pool TEXT NOT NULL,
    process TEXT NOT NULL,
    host TEXT NOT NULL,
    file TEXT NOT NULL,
    threads INTEGER NOT NULL,
    state TEXT NOT NULL,
    error TEXT,
    started_at REAL NOT NULL,
    heartbeat_at REAL NOT NULL
);
INSERT INTO workers SELECT
    id, pool, process, '', '', threads, state, error, started_at, heartbeat_at FROM old_workers;
DELETE FROM sqlite_sequence WHERE name = 'workers';
UPDATE sqlite_sequence SET name = 'workers' WHERE name = 'old_workers';
DROP TABLE old_workers;
ALTER TABLE supervisor RENAME TO old_supervisor;
CREATE TABLE supervisor (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    process TEXT,
    host TEXT NOT NULL,
    file TEXT NOT NULL,
    state TEXT NOT NULL,
    options TEXT NOT NULL,
    settings TEXT NOT NULL,
    problem TEXT,
    started_at REAL NOT NULL,
    heartbeat_at REAL NOT NULL
);
INSERT INTO supervisor SELECT
    one, process, '', '', state, options, settings, problem, started_at, started_at
    FROM old_supervisor;
DROP TABLE old_supervisor;
ALTER TABLE hosts ADD COLUMN seconds REAL NOT NULL DEFAULT 0;
DELETE FROM counters WHERE kind IN ('completed', 'failed');

-- Version 4, from schema dad075072542d1ce

-- Workers of the version before end, and their jobs are not charged. Each migration begins with it.
UPDATE workers SET state = 'stopping' WHERE state IN ('starting', 'ready');

-- Other machines run jobs.
ALTER TABLE jobs ADD COLUMN home INTEGER NOT NULL DEFAULT 0;
CREATE TABLE machines (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    state TEXT NOT NULL,
    about TEXT NOT NULL,
    problem TEXT,
    started_at REAL NOT NULL,
    heartbeat_at REAL NOT NULL
);
CREATE TABLE leases (
    token TEXT PRIMARY KEY,
    job_id INTEGER NOT NULL,
    machine INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    started INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- A crawl knows which URLs it has found.
CREATE TABLE crawls (
    crawl INTEGER NOT NULL,
    key INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    reason TEXT NOT NULL,
    url TEXT NOT NULL,
    PRIMARY KEY (crawl, key)
) WITHOUT ROWID;

-- What has ended is counted for longer than an hour, with its waiting and run time.
ALTER TABLE jobs ADD COLUMN due_at REAL;
UPDATE jobs SET due_at = run_at WHERE ready = 0 AND run_at IS NOT NULL;
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    pool TEXT NOT NULL,
    part INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    error_class TEXT NOT NULL,
    state TEXT NOT NULL,
    UNIQUE (task, pool, part, outcome, error_class, state)
);
CREATE TABLE history (
    start INTEGER NOT NULL,
    series INTEGER NOT NULL,
    host TEXT NOT NULL,
    wait NOT NULL,
    run NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (start, series, host, wait, run)
) WITHOUT ROWID;
DELETE FROM counters WHERE kind IN ('completed', 'failed');

-- Pages are counted by tag, and listed in windows.
CREATE INDEX jobs_pages ON jobs (tag, page_state) WHERE page_state IS NOT NULL;
