"""The tables of ``tasks.db``: jobs, their attempts, what is counted, and who works on them.

Partial indexes only hold what may still move, so a claim costs the same beside a million finished
jobs as beside none. What one claim and one completion touch lies on few pages: ``counters`` holds
the counts by state, those by minute and the id up to which jobs are counted together, and
``attempts`` only the executions that the job's own row does not tell (all but the one that
completed it). Jobs that are enqueued one by one are counted when some have come together; till
then the view ``counts`` adds them, and ``ids`` tells the last id, which is never used twice.
"""

from __future__ import annotations

_SCHEMA = """
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
    result TEXT
);
CREATE INDEX jobs_active ON jobs (ready, task, isolated, priority DESC, id)
    WHERE ready = 1 OR worker IS NOT NULL;
CREATE INDEX jobs_due ON jobs (run_at) WHERE ready = 0 AND run_at IS NOT NULL;
CREATE INDEX jobs_retrying ON jobs (run_at)
    WHERE state = 'retrying' AND ready = 0 AND run_at IS NOT NULL;
CREATE INDEX jobs_overdue ON jobs (id) WHERE state = 'scheduled' AND ready + host_slot > 0;
CREATE INDEX jobs_waiting_for_host ON jobs (host, priority DESC, id) WHERE host_slot = 1;
CREATE INDEX jobs_host_slots ON jobs (host) WHERE host_slot = 2;
CREATE INDEX jobs_isolated ON jobs (pool) WHERE isolated = 1 AND finished_at IS NULL;
CREATE INDEX jobs_key ON jobs (key, id) WHERE key IS NOT NULL;
CREATE INDEX jobs_children ON jobs (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX jobs_failed ON jobs (finished_at) WHERE state = 'failed';
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
CREATE TABLE counters (
    kind TEXT NOT NULL,
    name NOT NULL,
    jobs INTEGER NOT NULL DEFAULT 0,
    roots INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE TABLE workers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pool TEXT NOT NULL,
    process TEXT NOT NULL,
    threads INTEGER NOT NULL,
    state TEXT NOT NULL,
    error TEXT,
    started_at REAL NOT NULL,
    heartbeat_at REAL NOT NULL
);
CREATE TABLE supervisor (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    process TEXT,
    state TEXT NOT NULL,
    options TEXT NOT NULL,
    settings TEXT NOT NULL,
    problem TEXT,
    started_at REAL NOT NULL
);
CREATE TABLE hosts (
    host TEXT PRIMARY KEY,
    free_at REAL NOT NULL,
    crawl_delay REAL NOT NULL,
    waiting INTEGER NOT NULL
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
INSERT INTO counters (kind, name) VALUES
    ('state', 'queued'), ('state', 'scheduled'), ('state', 'running'), ('state', 'retrying'),
    ('state', 'completed'), ('state', 'failed'), ('state', 'cancelled'), ('id', 'counted')
"""
MIGRATIONS = (_SCHEMA,)
