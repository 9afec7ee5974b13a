-- How a file of an earlier format becomes one of `schema.sql`; see `read_format`.

-- Version 2, from schema 0923d1deb6761964

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

-- Version 3, from schema 5b7a224ba711ea19

DROP INDEX jobs_retrying;
CREATE INDEX jobs_retrying ON jobs (run_at) WHERE state = 'retrying';
CREATE INDEX jobs_recurring ON jobs (id) WHERE interval IS NOT NULL;
