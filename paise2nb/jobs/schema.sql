-- The tables of tasks.db: jobs, their attempts, counters, workers, hosts and plugins' state.
--
-- Partial indexes hold only jobs that may still change, so a claim costs the same beside a million
-- finished jobs as beside none. A claim and a completion touch few pages: "counters" holds the
-- numbers of jobs by state and by minute, and "attempts" only the executions that the job's own
-- row does not describe (all except the one that completed it).
--
-- Counting is deferred for jobs that are enqueued one by one, because an enqueue that leaves
-- "counters" alone writes one page less: see the line "enqueue, one by one" of
-- python -m tests.benchmarks.queue. The counter of kind "id" is the id up to which jobs are
-- counted. All later jobs were queued by a user, and their ids have no gaps, so the view "ids"
-- finds the last id, and the view "counts" adds the difference to the queued jobs. The difference
-- is written down when follow-up or delayed jobs are added, or when more than 64 jobs are not
-- counted. No id is used twice.
--
-- A page is a fetch, its newest extract and that one's newest store: page_id is the id of the fetch
-- in all three, page_state the page's state in the row of the fetch. A page that a browser renders
-- has a `render` in place of the extract, or between extract and store. A `links` job that follows
-- from another one counts as a fetch, because it hands its bytes to an extract, too. The counters
-- have the states of pages and of the jobs that are parts of them; "other" jobs are the rest.
--
-- "history" counts what has ended, and outlives the jobs: executions with the buckets of their
-- waiting and run time, and pages (those of a series without a task); see statistics.py. "start" is
-- the minute in which a part of a page ended, the second in which a page or another job ended, and
-- the hour or the day after some time. "wait" and "run" are each a bucket; in the row of an hour or
-- a day they are JSON: the first bucket, then the number in that one and in each that follows.
-- An hour or a day has a row for all hosts, whose host is empty, and others for the busiest ones.
--
-- "crawls" holds the URLs that a crawl has found, by the id of its first job: those that are pages,
-- without the URL; those that are left out, with the reason; and the texts of pages, each with the
-- first URL of it; and shapes of URLs, with the number of known texts in succession as depth. A counter of kind "crawl" has the number of pages.
--
-- Columns "file" of workers and supervisor: the file that the process has opened, as DEVICE:INODE.
-- In a copy of the file such rows are those of other processes. "host" is the machine's name.
--
-- jobs.due_at: since when the job could have been started, but for workers and its host; NULL: since
-- it was enqueued.
-- jobs.ready: 1 if the job may be claimed now. jobs.run: the number of executions that have begun.
-- jobs.home: 1 if another machine could not run the job, so only that of the collection may.
-- jobs.worker: the id of a worker, or the negative id of another machine, which has the job by a
-- lease. A lease is known by a random token: "run" alone is given back by a snooze, and comes again
-- after a restore. machines.name is random, too, a new one for each start; "about" is JSON.
-- jobs.host_slot: 0 without a host, 1 waiting for a slot of its host, 2 with a slot.

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    args TEXT NOT NULL,
    key INTEGER,
    state TEXT NOT NULL,
    ready INTEGER NOT NULL,
    isolated INTEGER NOT NULL DEFAULT 0,
    waiting_for TEXT,
    host TEXT,
    host_slot INTEGER NOT NULL DEFAULT 0,
    resume TEXT,
    run_at REAL,
    interval REAL,
    priority INTEGER NOT NULL,
    tag TEXT,
    parent_id INTEGER,
    root_id INTEGER,
    attempt INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    crashes INTEGER NOT NULL DEFAULT 0,
    run INTEGER NOT NULL DEFAULT 0,
    pool TEXT,
    worker INTEGER,
    worker_pid INTEGER,
    timeout REAL,
    memory_mb REAL,
    enqueued_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    error_class TEXT,
    error TEXT,
    progress TEXT,
    result TEXT,
    page_id INTEGER,
    page_state TEXT,
    home INTEGER NOT NULL DEFAULT 0,
    due_at REAL
);
CREATE INDEX jobs_active ON jobs (ready, task, isolated, priority DESC, id)
    WHERE ready = 1 OR worker IS NOT NULL;
CREATE INDEX jobs_due ON jobs (run_at) WHERE ready = 0 AND run_at IS NOT NULL;
CREATE INDEX jobs_retrying ON jobs (run_at) WHERE state = 'retrying';
CREATE INDEX jobs_recurring ON jobs (id) WHERE interval IS NOT NULL;
CREATE INDEX jobs_overdue ON jobs (id) WHERE state = 'scheduled' AND ready + host_slot > 0;
CREATE INDEX jobs_waiting_for_host ON jobs (host, priority DESC, id) WHERE host_slot = 1;
CREATE INDEX jobs_host_slots ON jobs (host) WHERE host_slot = 2;
CREATE INDEX jobs_isolated ON jobs (pool) WHERE isolated = 1 AND finished_at IS NULL;
CREATE INDEX jobs_key ON jobs (key, id) WHERE key IS NOT NULL;
CREATE INDEX jobs_children ON jobs (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX jobs_failed ON jobs (finished_at) WHERE state = 'failed';
CREATE INDEX jobs_pages ON jobs (tag, page_state) WHERE page_state IS NOT NULL;
CREATE TABLE attempts (
    job_id INTEGER NOT NULL,
    run INTEGER NOT NULL,
    started_at REAL,
    finished_at REAL,
    worker_pid INTEGER,
    outcome TEXT NOT NULL,
    error_class TEXT,
    error TEXT,
    traceback TEXT,
    retry_in REAL,
    PRIMARY KEY (job_id, run)
) WITHOUT ROWID;
CREATE TABLE crawls (
    crawl INTEGER NOT NULL,
    key INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    reason TEXT NOT NULL,
    url TEXT NOT NULL,
    PRIMARY KEY (crawl, key)
) WITHOUT ROWID;
CREATE TABLE counters (
    kind TEXT NOT NULL,
    name NOT NULL,
    jobs INTEGER NOT NULL DEFAULT 0,
    roots INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
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
CREATE TABLE hosts (
    host TEXT PRIMARY KEY,
    free_at REAL NOT NULL,
    crawl_delay REAL NOT NULL,
    waiting INTEGER NOT NULL,
    seconds REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE plugin_state (
    plugin TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT,
    version INTEGER NOT NULL,
    PRIMARY KEY (plugin, key)
) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE VIEW ids AS
    SELECT max(jobs, coalesce((SELECT max(id) FROM jobs), 0)) AS last, jobs AS counted
    FROM counters WHERE kind = 'id';
CREATE VIEW counts AS
    SELECT name, jobs + late AS jobs, roots + late AS roots FROM (
        SELECT *, iif(name = 'queued', (SELECT last - counted FROM ids), 0) AS late
        FROM counters WHERE kind = 'state');
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
INSERT INTO counters (kind, name) VALUES
    ('state', 'queued'), ('state', 'scheduled'), ('state', 'running'), ('state', 'retrying'),
    ('state', 'completed'), ('state', 'failed'), ('state', 'cancelled'), ('id', 'counted'),
    ('page', 'queued'), ('page', 'scheduled'), ('page', 'running'), ('page', 'retrying'),
    ('page', 'stored'), ('page', 'unchanged'), ('page', 'failed'), ('page', 'cancelled'),
    ('page', 'skipped'), ('part', 'queued'), ('part', 'scheduled'), ('part', 'running'),
    ('part', 'retrying'), ('part', 'completed'), ('part', 'failed'), ('part', 'cancelled');
