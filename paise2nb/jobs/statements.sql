-- The statements of the job store that are longer than a line; sql.py loads them by name.
--
-- An index is named where SQLite's planner, which has no statistics, would choose another one. The
-- parameters of claim and end have no names: binding them by name would take 10 % of the
-- CPU time of an outcome with the next claim (the lines "drain" of tests.benchmarks.queue).

-- name: tree
-- The jobs of a JSON list, each with all that descends from it.
WITH RECURSIVE tree (root, id) AS (
    SELECT value, value FROM json_each(:ids)
    UNION SELECT tree.root, jobs.id FROM jobs JOIN tree ON jobs.parent_id = tree.id
)

-- name: add_to_counters
INSERT INTO counters VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs, roots = roots + excluded.roots

-- name: newest_parts
-- Of a page: what follows from its fetch, what follows from that, and so on. See schema.sql.
LEFT JOIN jobs AS second ON second.id = (
    SELECT id FROM jobs WHERE parent_id = page.id AND page_id = page.id ORDER BY id DESC LIMIT 1
)
LEFT JOIN jobs AS third ON third.id = (
    SELECT id FROM jobs WHERE parent_id = second.id AND page_id = page.id ORDER BY id DESC LIMIT 1
)
LEFT JOIN jobs AS fourth ON fourth.id = (
    SELECT id FROM jobs WHERE parent_id = third.id AND page_id = page.id ORDER BY id DESC LIMIT 1
)

-- name: page_state
-- A cancelled follow-up leaves a page that is neither of the others: cancelled.
CASE
    WHEN page.state = 'cancelled' THEN 'cancelled'
    WHEN 'running' IN (page.state, second.state, third.state, fourth.state) THEN 'running'
    WHEN 'queued' IN (second.state, third.state, fourth.state) THEN 'running'
    WHEN 'retrying' IN (page.state, second.state, third.state, fourth.state) THEN 'retrying'
    WHEN 'scheduled' IN (page.state, second.state, third.state, fourth.state) THEN 'scheduled'
    WHEN page.state = 'queued' THEN 'queued'
    WHEN 'failed' IN (page.state, second.state, third.state, fourth.state) THEN 'failed'
    WHEN 'cancelled' IN (second.state, third.state, fourth.state) THEN 'cancelled'
    WHEN iif(json_valid(third.result), third.result ->> 'item', NULL) IS NOT NULL THEN 'stored'
    WHEN iif(json_valid(fourth.result), fourth.result ->> 'item', NULL) IS NOT NULL THEN 'stored'
    WHEN iif(json_valid(page.result), page.result ->> 'status', NULL) = 304 THEN 'unchanged'
    ELSE 'skipped'
END

-- name: changed_pages
SELECT page.page_state AS old, {page_state} AS new, page.id
FROM json_each(?) AS ids JOIN jobs AS page ON page.id = ids.value AND page.page_id = page.id
{newest_parts}
WHERE old IS NOT new

-- name: late_pages
SELECT count(*) FROM jobs WHERE id > ? AND page_id = id

-- name: clock_offset
SELECT json_extract(value, '$[1]') AS offset FROM meta
WHERE key = 'clock' AND json_extract(value, '$[0]') = ?

-- name: store_clock_offset
-- Keeps the offset that another process has stored since this boot.
INSERT INTO meta VALUES ('clock', ?)
ON CONFLICT DO UPDATE SET value = excluded.value
WHERE json_extract(value, '$[0]') IS NOT json_extract(excluded.value, '$[0]')


-- Enqueueing ----------------------------------------------------------------------------------

-- name: ids
SELECT last, counted, (SELECT state = 'idle' FROM supervisor) AS idle FROM ids

-- name: insert
-- Jobs that differ in their arguments and keys only, which are the pairs of a JSON list. Those with
-- the page_id 0 are pages.
INSERT INTO jobs (
    id, args, key, root_id, page_id, task, max_attempts, tag, priority, interval, host,
    state, host_slot, ready, run_at, parent_id, page_state, enqueued_at, due_at
)
SELECT :first + key, value ->> 0, value ->> 1, coalesce(:root_id, :first + key),
    iif(:page_id = 0, :first + key, :page_id), :task, :max_attempts, :tag, :priority, :interval,
    :host, :state, :host_slot, :ready, :run_at, :parent_id, :page_state, :now, :due_at
FROM json_each(:rows)

-- name: known_keys
SELECT value FROM json_each(:keys) WHERE EXISTS (SELECT 1 FROM jobs WHERE key = value)

-- name: twins
SELECT id, task, state, interval, result, finished_at, page_state FROM jobs
WHERE key = :key ORDER BY id DESC

-- name: change_interval
-- With a slot of its host, or waiting for one, a job is due: its time is then that of the slot.
UPDATE jobs SET
    run_at = iif(state = 'scheduled' AND host_slot = 0,
                 run_at + coalesce(:interval - interval, 0), run_at),
    due_at = iif(state = 'scheduled', due_at + coalesce(:interval - interval, 0), due_at),
    interval = :interval
WHERE id = :id


-- Claims --------------------------------------------------------------------------------------

-- name: claimable
SELECT 1 FROM jobs WHERE ready = 1 AND task IN (SELECT value FROM json_each(?))
UNION ALL SELECT 1 FROM jobs WHERE ready = 0 AND run_at <= ? LIMIT 1

-- name: next_jobs
-- Of each task that waits the first job that may run beside others, and the first that may not. One
-- seek for each, and no sorter: half the time of one query that chooses among all tasks of a worker
-- (the lines "drain" of tests.benchmarks.queue). Before them a job that is due and has to be made
-- ready first, if there is one. Numbers, whatever a damaged row holds.
WITH RECURSIVE waiting (name, kind) AS (
    SELECT (SELECT min(task) FROM jobs INDEXED BY jobs_active WHERE ready = 1), 0
    UNION ALL SELECT iif(kind, (
        SELECT min(task) FROM jobs INDEXED BY jobs_active WHERE ready = 1 AND task > name
    ), name), 1 - kind FROM waiting WHERE name NOT NULL
)
SELECT * FROM (
    SELECT id, task, state, host, isolated, 1 AS due, 0 AS rank, 0 AS tree
    FROM jobs WHERE ready = 0 AND run_at <= ? LIMIT 1
)
UNION ALL SELECT jobs.id, task, state, host, isolated, 0, -priority,
    coalesce(page_id + 0, root_id + 0, 0)
FROM waiting JOIN jobs ON jobs.id = (
    SELECT id FROM jobs INDEXED BY jobs_active
    WHERE ready = 1 AND task = name AND isolated = kind
    ORDER BY priority DESC, id LIMIT 1
)

-- name: is_ahead
-- Whether many extractions wait while a worker runs some. If none does, nothing waits for it.
SELECT 1 FROM (
    SELECT 1 FROM jobs INDEXED BY jobs_active
    WHERE ready = 1 AND task = 'extract' LIMIT 1 OFFSET ?
) WHERE EXISTS (
    SELECT 1 FROM jobs INDEXED BY jobs_active
    WHERE ready = 0 AND task IN ('extract', 'store') AND worker IS NOT NULL
)

-- name: next_with_slot
-- The next job of those that have a slot of their host.
SELECT id, task, state, host, isolated FROM jobs INDEXED BY jobs_host_slots
WHERE host_slot = 2 AND ready = 1 AND task IN (SELECT value FROM json_each(?))
    AND isolated IN (SELECT value FROM json_each(?))
ORDER BY priority DESC, id LIMIT 1

-- name: next_of_task
SELECT id, state FROM jobs INDEXED BY jobs_active
WHERE ready = 1 AND task = ? AND isolated = 0 AND priority = ? AND host IS NULL
ORDER BY id LIMIT ?

-- name: next_in_tree
-- CROSS JOIN, here and below: by the tree, which may be one job, not by all jobs that are ready.
{tree}
SELECT id, task, state, host FROM tree CROSS JOIN jobs USING (id)
WHERE ready = 1 AND task IN (SELECT value FROM json_each(:tasks))
    AND (:page IS NULL OR :page IN (id, page_id))
ORDER BY priority DESC, coalesce(page_id, root_id), id LIMIT 1

-- name: ready_in_tree
{tree}
SELECT id FROM tree CROSS JOIN jobs USING (id) WHERE ready = 1
ORDER BY priority DESC, coalesce(page_id, root_id), id

-- name: next_waiting_in_tree
{tree}
SELECT id, host FROM tree CROSS JOIN jobs USING (id)
WHERE host_slot = 1 AND (:page IS NULL OR :page IN (id, page_id))
ORDER BY priority DESC, id LIMIT 1

-- name: due_jobs
SELECT id, host, host_slot FROM jobs WHERE ready = 0 AND run_at <= :now
ORDER BY run_at LIMIT :limit

-- name: make_ready
UPDATE jobs SET ready = 1, run_at = iif(host_slot = 0, run_at, NULL)
WHERE id IN (SELECT value FROM json_each(:ids))

-- name: is_interval
interval BETWEEN 1 AND 1e10

-- name: claim
-- Numbers, whatever a damaged row holds: the outcome is computed from them. More crashes than
-- attempts would make its retries come without a delay. A job with an interval that an enqueue
-- refuses does not recur. A worker without a row is dead. A pause of
-- all pools has the key of a pool without a name. One seek finds that there is none, the usual case.
UPDATE jobs SET
    state = 'running', ready = 0, run_at = NULL, waiting_for = NULL, progress = NULL,
    finished_at = NULL, due_at = coalesce(due_at, enqueued_at) + 0,
    pool = ?, worker = ?, worker_pid = ?, started_at = ?, timeout = ?, memory_mb = ?,
    attempt = max(attempt, 0) + 1, run = run + 1,
    crashes = min(max(crashes + 0, 0), max(attempt + 0, 0)),
    max_attempts = max_attempts + 0, interval = iif({is_interval}, interval, NULL)
WHERE id = ? AND EXISTS (
        SELECT 1 FROM workers WHERE workers.id = ?
        UNION ALL SELECT 1 FROM machines WHERE machines.id = -?
    )
    AND NOT EXISTS (
        SELECT 1 FROM meta WHERE key >= 'pause:' AND key < 'pause;' AND substr(key, 7) IN ('', ?)
    )
RETURNING {claim_columns}

-- name: unused_slots
-- Slots of ready jobs of other tasks, each with the next job of these tasks that waits for one.
SELECT host, (
    SELECT id FROM jobs AS waiting INDEXED BY jobs_waiting_for_host
    WHERE host_slot = 1 AND waiting.host = holder.host
        AND task IN (SELECT value FROM json_each(:tasks))
    ORDER BY priority DESC, id LIMIT 1
) AS next_id
FROM jobs AS holder INDEXED BY jobs_host_slots JOIN hosts USING (host)
WHERE host_slot = 2 AND ready = 1 AND task NOT IN (SELECT value FROM json_each(:tasks))
    AND hosts.waiting > 0 AND free_at < :free_since AND next_id IS NOT NULL
GROUP BY host LIMIT :limit


-- Outcomes ------------------------------------------------------------------------------------

-- name: end
-- A snoozed execution gives its run number back: started_at tells it from the next one. A recurring
-- job that goes on waiting keeps the error of its last run.
UPDATE jobs SET
    worker = NULL, host_slot = 0, state = ?, ready = ?, run_at = ?, run = run - ?,
    attempt = ?, crashes = ?, max_attempts = coalesce(?, max_attempts), finished_at = ?,
    result = ?, error_class = iif(? AND interval NOT NULL, error_class, ?),
    error = iif(? AND interval NOT NULL, error, ?), isolated = max(isolated, ?),
    host = coalesce(?, host), resume = ?, due_at = coalesce(?, due_at)
WHERE id = ? AND run = ? AND started_at IS ? AND state = 'running'
RETURNING interval

-- name: leave_cancelled
-- The job was cancelled while it ran, and perhaps retried: its worker leaves it now.
UPDATE jobs SET worker = NULL, ready = state = 'queued', waiting_for = NULL, host_slot = 0
WHERE id = :id AND run = :run AND started_at IS :started_at AND worker = :worker
RETURNING state

-- name: schedule_again
-- Whole intervals after the start of the run's first attempt, and one time in the future, however
-- many intervals were missed. The attempts of the run are the last ones, without released ones.
UPDATE jobs SET state = 'scheduled', attempt = 0, crashes = 0, finished_at = NULL,
    run_at = began + interval * (1 + CAST((:now - began) / interval AS INTEGER)),
    due_at = began + interval * (1 + CAST((:now - began) / interval AS INTEGER))
FROM (
    SELECT coalesce((
        SELECT started_at FROM attempts WHERE job_id = :id AND outcome != 'released'
        ORDER BY run DESC LIMIT 1 OFFSET :attempt - 1
    ), :now) AS began
)
WHERE id = :id

-- name: record_attempt
INSERT OR IGNORE INTO attempts VALUES (
    :id, :run, :started_at, :finished_at, :worker_pid,
    :outcome, :error_class, :error, :traceback, :retry_in
)

-- name: is_running
SELECT 1 FROM jobs WHERE id = ? AND run = ? AND state = 'running'

-- name: write_plugin_state
INSERT INTO plugin_state VALUES (?, ?, ?, 1)
ON CONFLICT DO UPDATE SET value = excluded.value, version = version + 1

-- name: plugin_state
SELECT value, version FROM plugin_state WHERE plugin = ? AND key = ?

-- name: refundable_attempt
SELECT finished_at, error_class, iif(retry_in IS NULL, 'failed', 'retrying') FROM attempts
WHERE job_id = ? AND run = ? AND outcome = 'failed'

-- name: refund_attempt
UPDATE attempts SET outcome = 'released', retry_in = NULL
WHERE job_id = ? AND run = ?

-- name: refundable
SELECT state, host, host_slot FROM jobs WHERE id = ? AND run = ?

-- name: refund_job
UPDATE jobs SET state = 'queued', ready = 1, run_at = NULL, finished_at = NULL,
    attempt = attempt - 1, host_slot = 0, due_at = ?
WHERE id = ?

-- name: claimed_by
SELECT * FROM jobs INDEXED BY jobs_active WHERE ready = 0 AND worker = ?


-- Hosts ---------------------------------------------------------------------------------------

-- name: set_slot
UPDATE jobs SET host_slot = ?, ready = ?, run_at = ? WHERE id = ?

-- name: set_slots
UPDATE jobs SET host_slot = ?, ready = ?, run_at = ? WHERE id IN (SELECT value FROM json_each(?))

-- name: next_waiting
SELECT id FROM jobs INDEXED BY jobs_waiting_for_host WHERE host_slot = 1 AND host = ?
ORDER BY priority DESC, id LIMIT ?

-- name: unused_slot
SELECT id FROM jobs WHERE host_slot = 2 AND host = ? AND worker IS NULL LIMIT 1

-- name: used_slots
SELECT count(*) FROM jobs INDEXED BY jobs_host_slots WHERE host_slot = 2 AND host = ?

-- name: pause_slots
UPDATE jobs SET ready = 0, run_at = ? WHERE host_slot = 2 AND host = ? AND worker IS NULL

-- name: delays
SELECT host, iif(:host_delay, max(crawl_delay + 0, :host_delay), 0) AS delay,
    coalesce(free_at - :now, 0) AS left
FROM hosts
WHERE host IN (SELECT value FROM json_each(:hosts))

-- name: pauses_of_hosts
SELECT DISTINCT host, free_at FROM jobs JOIN hosts USING (host)
WHERE jobs.id IN (SELECT value FROM json_each(:ids)) AND host_slot > 0
    AND free_at > :now + max(crawl_delay, :host_delay)
ORDER BY host

-- name: slowest_host
SELECT host, waiting, delay, max(free_at - :now, 0) + waiting * iif(delay, delay + seconds, 0) AS left
FROM (SELECT *, iif(:host_delay, max(crawl_delay, :host_delay), 0) AS delay FROM hosts) AS hosts
WHERE (waiting > 0 OR free_at > :now) AND EXISTS (
    SELECT 1 FROM jobs INDEXED BY jobs_host_slots WHERE host_slot = 2 AND jobs.host = hosts.host
)
ORDER BY left DESC LIMIT 1


-- What users do -------------------------------------------------------------------------------

-- name: parts_to_retry
-- Of pages with a completed fetch.
SELECT page.id AS page_id, coalesce(fourth.id, third.id, second.id) AS id,
    coalesce(fourth.error_class, third.error_class, second.error_class) AS error_class,
    coalesce(fourth.args, third.args, second.args) AS args
FROM json_each(?) AS ids
    JOIN jobs AS page ON page.id = ids.value AND page.page_id = page.id AND page.state = 'completed'
{newest_parts}
WHERE coalesce(fourth.state, third.state, second.state) IN ('failed', 'cancelled', 'retrying', 'scheduled')

-- name: retryable
SELECT id, key, state, parent_id, page_id, host, host_slot, worker, (
    SELECT min(twin.id) FROM jobs AS twin WHERE twin.key = jobs.key AND twin.id != jobs.id
        AND twin.state IN ('queued', 'scheduled', 'running', 'retrying')
) AS twin
FROM jobs
WHERE id IN (SELECT value FROM json_each(:ids))
    AND (state IN ('failed', 'cancelled', 'retrying', 'scheduled')
         OR id IN (SELECT value FROM json_each(:again)))
ORDER BY id

-- name: record_completed
-- The row of a job that is to run again will not describe this execution any more.
INSERT OR IGNORE INTO attempts (job_id, run, started_at, finished_at, worker_pid, outcome)
SELECT id, run, started_at, finished_at, worker_pid, 'completed' FROM jobs
WHERE id IN (SELECT value FROM json_each(?)) AND state = 'completed'

-- name: retry
UPDATE jobs SET
    state = 'queued', attempt = 0, crashes = 0, finished_at = NULL, due_at = :now,
    ready = iif(host_slot = 0, worker IS NULL, ready),
    run_at = iif(host_slot = 0, NULL, run_at),
    waiting_for = iif(worker IS NULL, NULL, :waiting_for)
WHERE id IN (SELECT value FROM json_each(:ids))

-- name: cancellable
{tree}
SELECT * FROM jobs WHERE id IN (SELECT id FROM tree)
    AND state IN ('queued', 'scheduled', 'running', 'retrying')

-- name: cancel
UPDATE jobs SET
    state = 'cancelled', ready = 0, run_at = NULL, waiting_for = NULL, finished_at = ?,
    host_slot = iif(worker IS NULL, 0, host_slot)
WHERE id = ?

-- name: progress
UPDATE jobs SET progress = ? WHERE id = ? AND run = ? AND state = 'running'

-- name: old_roots
SELECT DISTINCT root_id FROM jobs WHERE root_id NOT IN (
    SELECT root_id FROM jobs
    WHERE finished_at IS NULL OR finished_at >= ? OR worker IS NOT NULL
)

-- name: old_trees
-- The parts of a page are one unit. What follows from a unit comes before it.
{tree}
SELECT id, coalesce(page_id, id) AS unit FROM tree JOIN jobs USING (id)
WHERE root NOT IN (
    SELECT root FROM tree JOIN jobs USING (id)
    WHERE finished_at IS NULL OR finished_at >= :before OR worker IS NOT NULL
)
ORDER BY unit DESC, id DESC

-- name: old_jobs
-- All of them, or none if one has been retried meanwhile.
SELECT id, state, parent_id, page_id, page_state FROM jobs
WHERE id IN (SELECT value FROM json_each(:ids)) AND NOT EXISTS (
    SELECT 1 FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))
        AND (finished_at IS NULL OR finished_at >= :before OR worker IS NOT NULL)
)

-- name: old_leaves
-- A recurring job never finishes: old jobs below it are deleted leaf by leaf.
SELECT id, state, parent_id, page_id, page_state FROM jobs
WHERE parent_id IS NOT NULL AND finished_at < ? AND worker IS NULL
    AND root_id IN (SELECT id FROM jobs WHERE interval IS NOT NULL)
    AND NOT EXISTS (SELECT 1 FROM jobs AS child WHERE child.parent_id = jobs.id)

-- name: delete_attempts
DELETE FROM attempts WHERE job_id IN (SELECT value FROM json_each(?))

-- name: delete_jobs
DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(?))

-- name: prune_recurring_attempts
DELETE FROM attempts WHERE finished_at < ?
    AND job_id IN (SELECT id FROM jobs WHERE interval IS NOT NULL)


-- Workers -------------------------------------------------------------------------------------

-- name: register
INSERT INTO workers (pool, process, host, file, threads, state, started_at, heartbeat_at)
VALUES (:pool, :process, :host, :file, :threads, :state, :now, :now)

-- name: heartbeat
-- A worker that has to drain may not know it yet.
UPDATE workers SET
    state = iif(state = 'stopping' AND :state = 'ready', state, :state),
    error = :error, heartbeat_at = :now
WHERE id = :id

-- name: stopping
UPDATE workers SET state = 'stopping'
WHERE process IN (SELECT value FROM json_each(?)) AND state != 'failed'

-- name: workers
SELECT *, (
    SELECT json_group_array(id) FROM (
        SELECT id FROM jobs INDEXED BY jobs_active
        WHERE ready = 0 AND worker = workers.id ORDER BY id
    )
) AS jobs
FROM workers ORDER BY id

-- name: take_supervision
REPLACE INTO supervisor VALUES
    (1, :process, :host, :file, 'running', :options, :settings, NULL, :now, :now)

-- name: announce_supervision
UPDATE supervisor SET process = :process, host = :host, file = :file, options = :options,
    settings = :settings, problem = NULL, heartbeat_at = :now
WHERE state = 'idle'

-- name: supervisor_heartbeat
UPDATE supervisor SET heartbeat_at = :now WHERE process = :process AND file = :file

-- name: may_start
-- Also later: an enqueue that comes while the supervisor leaves does not start another one. And a
-- relay takes the outcomes of leases.
SELECT 1 FROM jobs WHERE ready = 1
UNION ALL SELECT 1 FROM jobs WHERE ready = 0 AND run_at IS NOT NULL
UNION ALL SELECT 1 FROM leases LIMIT 1

-- name: leave_supervision
UPDATE supervisor SET process = NULL, state = :state WHERE process = :process

-- name: ask_to_stop
UPDATE supervisor SET options = json_set(options, '$.stop_seconds', :seconds)
WHERE process = :process AND state != 'stopping' AND options ->> 'stop_seconds' IS NULL

-- name: claimed
SELECT id, task, run, worker, state, started_at, timeout, memory_mb, finished_at
FROM jobs INDEXED BY jobs_active WHERE ready = 0 AND worker IS NOT NULL

-- name: resume
DELETE FROM meta WHERE key GLOB :prefix || '*' AND :pool IN ('', substr(key, length(:prefix) + 1))

-- name: pools_waiting_alone
SELECT DISTINCT pool FROM jobs INDEXED BY jobs_isolated
WHERE isolated = 1 AND finished_at IS NULL AND (ready = 1 OR (ready = 0 AND run_at <= ?))


-- Other machines ------------------------------------------------------------------------------

-- name: leases
SELECT leases.*, task, pool, jobs.state, isolated, host
FROM leases JOIN jobs ON jobs.id = job_id AND worker = -machine

-- name: leased_jobs
SELECT token, {claim_columns} FROM leases JOIN jobs ON jobs.id = job_id AND worker = -machine
WHERE token IN (SELECT value FROM json_each(?))

-- name: delete_leases
DELETE FROM leases WHERE token IN (SELECT value FROM json_each(?))

-- name: jobs_of_machine
SELECT jobs.*, started FROM leases JOIN jobs ON jobs.id = job_id AND worker = -machine
WHERE machine = ?

-- name: leases_cancelled
SELECT token FROM leases JOIN jobs ON jobs.id = job_id AND worker = -machine
WHERE jobs.state != 'running'

-- name: leases_started
UPDATE leases SET started = 1 WHERE token IN (SELECT value FROM json_each(?))

-- name: leasable
-- Not those that only home can run: recurring ones, fetches of files, and what a machine gave back.
-- Of many such jobs only the first are looked at: home runs them first, in their order.
SELECT * FROM (
    SELECT id, task, state, host, isolated, priority, coalesce(page_id, root_id, id) AS tree,
        home, interval
    FROM jobs INDEXED BY jobs_active WHERE ready = 1 AND task = ? AND isolated = ?
    ORDER BY priority DESC, id LIMIT 1000
) WHERE home = 0 AND interval IS NULL AND (task != 'fetch' OR host IS NOT NULL) LIMIT ?

-- name: is_due
SELECT 1 FROM jobs WHERE ready = 0 AND run_at <= ? LIMIT 1

-- name: pauses
SELECT key FROM meta WHERE key >= 'pause:' AND key < 'pause;'

-- name: machines
SELECT *, (
    SELECT json_group_array(job_id) FROM (
        SELECT job_id FROM leases WHERE machine = machines.id ORDER BY job_id
    )
) AS jobs
FROM machines ORDER BY id

-- name: put_machine
INSERT INTO machines (name, host, pid, state, about, problem, started_at, heartbeat_at)
VALUES (:name, :host, :pid, 'ready', :about, :problem, :now, :now)
ON CONFLICT DO UPDATE SET about = excluded.about, problem = excluded.problem,
    heartbeat_at = excluded.heartbeat_at
RETURNING id


-- Queries -------------------------------------------------------------------------------------

-- name: pages_with_error
-- Not with that of a part of an earlier run.
SELECT coalesce(page_id, id) FROM jobs AS part WHERE error_class = ? AND NOT EXISTS (
    SELECT 1 FROM jobs AS newer WHERE newer.parent_id = part.parent_id
        AND newer.page_id = part.page_id AND newer.id > part.id
)

-- name: page_parts
SELECT page.id AS page, second.id AS second, third.id AS third, fourth.id AS fourth,
    coalesce(fourth.finished_at, third.finished_at, second.finished_at) AS finished_at
FROM json_each(?) AS ids JOIN jobs AS page ON page.id = ids.value AND page.page_id = page.id
{newest_parts}

-- name: latest
SELECT key, state, result, enqueued_at, finished_at FROM jobs
WHERE key IN (SELECT value FROM json_each(?)) ORDER BY id

-- name: attempts
-- The row of a completed job describes the execution that completed it.
SELECT run AS number, started_at, finished_at, worker_pid, outcome, error_class, error, traceback,
    retry_in
FROM attempts WHERE job_id = :id
UNION ALL
SELECT run, started_at, finished_at, worker_pid, 'completed', NULL, NULL, NULL, NULL
FROM jobs WHERE id = :id AND state = 'completed'
ORDER BY number

-- name: results
{tree}
SELECT root, result FROM tree CROSS JOIN jobs USING (id) WHERE result IS NOT NULL ORDER BY id

-- name: descendants
{tree}
SELECT root, id FROM tree ORDER BY id

-- name: unfinished
{tree}
SELECT DISTINCT root FROM tree JOIN jobs USING (id)
WHERE state IN ('queued', 'running', 'retrying')
    OR (state = 'scheduled' AND (ready + host_slot > 0 OR run_at <= :now))

-- name: last_run_failed
-- Of a recurring job.
(interval IS NOT NULL AND {is_interval} AND error_class IS NOT NULL AND state IN ('queued', 'scheduled', 'running'))

-- name: counted
-- What is counted of a tree: pages, and jobs that are part of none.
(page_id IS NULL OR page_id = id)

-- name: tree_progress
{tree}
SELECT root, sum({counted}) AS total, sum({counted} AND (
        coalesce(page_state, state) IN ('queued', 'running', 'retrying')
        OR coalesce(page_state, state) = 'scheduled' AND (ready + host_slot > 0 OR run_at <= :now)
    )) AS left, max(
        state IN ('queued', 'running', 'retrying')
        OR (state = 'scheduled' AND (ready + host_slot > 0 OR run_at <= :now))
    ) AS busy
FROM tree JOIN jobs USING (id) GROUP BY root

-- name: tree_counts
{tree}
SELECT page_id IS NOT NULL AS is_page,
    iif({last_run_failed}, 'failed', coalesce(page_state, state)) AS state, count(*) AS number
FROM jobs WHERE id IN (SELECT id FROM tree) AND {counted} GROUP BY 1, 2

-- name: unfinished_tasks
{tree}
SELECT DISTINCT task FROM tree JOIN jobs USING (id)
WHERE state IN ('queued', 'running', 'retrying')
    OR (state = 'scheduled' AND (ready + host_slot > 0 OR run_at <= :now))

-- name: ready
-- From task to task by the index, not job by job.
WITH RECURSIVE ready (task) AS (
    SELECT min(task) FROM jobs WHERE ready = 1
    UNION ALL
    SELECT (SELECT min(task) FROM jobs WHERE ready = 1 AND task > ready.task)
    FROM ready WHERE task IS NOT NULL
)

-- name: ready_tasks
{ready}
SELECT CAST(task AS TEXT) AS task FROM ready WHERE task IS NOT NULL

-- name: all_unfinished_tasks
-- Of the jobs that wait for a time or a host, some are enough: they have few tasks.
{ready}
SELECT task FROM ready WHERE task IS NOT NULL
UNION SELECT task FROM jobs INDEXED BY jobs_active WHERE ready = 0 AND worker IS NOT NULL
UNION SELECT task FROM jobs INDEXED BY jobs_host_slots WHERE host_slot = 2
UNION SELECT task FROM (
    SELECT task FROM jobs WHERE ready = 0 AND run_at <= :now ORDER BY run_at LIMIT 1000)
UNION SELECT task FROM (
    SELECT task FROM jobs INDEXED BY jobs_retrying
    WHERE state = 'retrying' AND ready = 0 AND run_at IS NOT NULL LIMIT 1000)
UNION SELECT task FROM (
    SELECT task FROM jobs INDEXED BY jobs_waiting_for_host WHERE host_slot = 1 LIMIT 1000)

-- name: busy
SELECT (SELECT sum(jobs) FROM counts WHERE name IN ('queued', 'running', 'retrying'))
    + (SELECT count(*) FROM jobs
       WHERE ready = 0 AND run_at <= :now AND host_slot = 0 AND state = 'scheduled')
    + (SELECT count(*) FROM jobs INDEXED BY jobs_overdue
       WHERE state = 'scheduled' AND ready + host_slot > 0) AS busy

-- name: next_time
SELECT min(run_at) AS at FROM jobs WHERE ready = 0 AND run_at IS NOT NULL

-- name: next_time_of_tasks
SELECT run_at AS at FROM jobs INDEXED BY jobs_due
WHERE ready = 0 AND run_at <= :until AND task IN (SELECT value FROM json_each(:tasks))
ORDER BY run_at LIMIT 1

-- name: oldest_time
SELECT min(min(enqueued_at), min(coalesce(finished_at, enqueued_at))) FROM jobs

-- name: oldest_queued
-- One of the first: a job that recurs or is retried has a small id, but has not waited for long.
SELECT min(coalesce(due_at, enqueued_at)) FROM jobs WHERE id IN (
    SELECT * FROM (
        SELECT id FROM jobs INDEXED BY jobs_active WHERE ready = 1 ORDER BY id LIMIT 100
    )
    UNION ALL
    SELECT * FROM (
        SELECT id FROM jobs INDEXED BY jobs_host_slots WHERE host_slot = 2 AND worker IS NULL
        ORDER BY id LIMIT 100
    )
)

-- name: short_args
-- As much as a listing needs. Functions of JSON would parse megabytes. Of an empty blob, substr is
-- null.
coalesce(substr(args, 1, 10000), '') AS args

-- name: public_columns
state, waiting_for, tag, attempt, max_attempts, error_class, error, enqueued_at, started_at,
    finished_at, run_at, worker_pid, parent_id, root_id, page_id, page_state, interval, progress,
    host, host_slot

-- name: listed
SELECT id, task, {short_args}, {public_columns} FROM jobs

-- name: listed_rows
{listed} WHERE id IN (SELECT value FROM json_each(?))

-- name: public_rows
SELECT id, task, args, {public_columns} FROM jobs WHERE id IN (SELECT value FROM json_each(?))

-- name: all_rows
SELECT * FROM jobs WHERE id IN (SELECT value FROM json_each(?))

-- name: retries
-- Those that are due, but wait for their host or a worker, come first.
{listed} INDEXED BY jobs_retrying WHERE state = 'retrying' ORDER BY run_at, id LIMIT ?

-- name: recurring_failed
{listed} INDEXED BY jobs_recurring WHERE {last_run_failed} ORDER BY id

-- name: http_status
iif(error GLOB '[45][0-9][0-9] *', substr(error, 1, 3), NULL)

-- name: scheduled
{listed} INDEXED BY jobs_due
WHERE ready = 0 AND run_at IS NOT NULL AND state = 'scheduled' ORDER BY run_at, id LIMIT ?

-- name: failures
SELECT found.*, task, {short_args}, error
FROM (
    SELECT error_class, {http_status} AS status,
        count(*) AS jobs, max(id) AS id
    FROM jobs WHERE state = 'failed' GROUP BY 1, 2
) AS found JOIN jobs USING (id) ORDER BY jobs DESC, found.error_class, status

-- name: pages_by_tag
SELECT tag, page_state, count(*) FROM jobs INDEXED BY jobs_pages
WHERE page_state IS NOT NULL GROUP BY tag, page_state

-- name: pages_of_tag
SELECT id FROM jobs INDEXED BY jobs_pages WHERE page_state IS NOT NULL AND tag IS ? AND page_state = ?

-- name: failed_of_group
SELECT coalesce(page_id, id) AS page FROM jobs INDEXED BY jobs_failed
WHERE state = 'failed' AND error_class IS ? AND {http_status} IS ?
GROUP BY page ORDER BY max(finished_at) DESC

-- name: unfinished_arguments
SELECT args FROM jobs WHERE state IN ('queued', 'scheduled', 'running', 'retrying')


-- History -------------------------------------------------------------------------------------

-- name: series
INSERT INTO series (task, pool, part, outcome, error_class, state) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET part = part
RETURNING id

-- name: add_to_history
INSERT INTO history VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET number = number + excluded.number

-- name: whole
-- Not only a host's part of an hour or a day.
(host = '' OR typeof(wait) = 'integer')

-- name: ended
-- Pages and other jobs by the second in which they ended.
SELECT start, sum(number * (state = 'completed')), sum(number * (state = 'failed'))
FROM history JOIN series ON series.id = history.series
WHERE start >= ? AND NOT part AND state IN ('completed', 'failed') AND {whole}
GROUP BY start ORDER BY start

-- name: ended_since
SELECT coalesce(sum(number * (state = 'completed')), 0), coalesce(sum(number * (state = 'failed')), 0)
FROM history JOIN series ON series.id = history.series
WHERE start >= ? AND NOT part AND state IN ('completed', 'failed') AND {whole}

-- name: stored_since
SELECT sum(number) FROM history
WHERE start >= ? AND series = (SELECT id FROM series WHERE task = '' AND outcome = 'stored')

-- name: history
SELECT series, host, number, wait, run FROM history WHERE start >= ? AND start < ?

-- name: history_of_all
{history} AND {whole}

-- name: running_since
SELECT task, pool, host, count(*) AS number FROM jobs INDEXED BY jobs_active
WHERE ready = 0 AND worker IS NOT NULL AND state = 'running' AND started_at >= ?
GROUP BY task, pool, host

-- name: ready_by_task
-- One of the first 100 of each is the oldest: see oldest_queued.
SELECT task, number, (
    SELECT min(coalesce(due_at, enqueued_at)) FROM jobs WHERE id IN (
        SELECT id FROM jobs INDEXED BY jobs_active
        WHERE ready = 1 AND task = tasks.task ORDER BY id LIMIT 100
    )
)
FROM (
    SELECT task, count(*) AS number FROM jobs INDEXED BY jobs_active WHERE ready = 1 GROUP BY task
) AS tasks

-- name: first_to_roll_up
-- Not yet a row of a period: one with another start, or with buckets.
SELECT min(start) FROM history WHERE start < ? AND (start % ? > 0 OR typeof(wait) = 'integer')


-- Crawls --------------------------------------------------------------------------------------

-- name: crawled
SELECT key, depth, reason FROM crawls
WHERE crawl = ? AND key IN (SELECT value FROM json_each(?))

-- name: crawl_pages
SELECT jobs FROM counters WHERE kind = 'crawl' AND name = ?

-- name: count_new
-- Others may have found the same pages since, or the crawl is at its largest number of pages.
UPDATE jobs SET result = json_replace(result, '$.new', ?) WHERE id = ?

-- name: crawl_text
SELECT url FROM crawls WHERE crawl = ? AND key = ?

-- name: count_shape
INSERT INTO crawls VALUES (?, ?, ?, ?, '')
ON CONFLICT DO UPDATE SET depth = iif(excluded.depth, depth + 1, 0)

-- name: leave_out
INSERT INTO crawls (crawl, key, depth, reason, url) VALUES (?, ?, 0, ?, ?)
ON CONFLICT DO UPDATE SET reason = excluded.reason, url = excluded.url

-- name: crawl_of
SELECT iif(page.task = 'links', page.args, parent.args), page.task = 'links'
FROM jobs AS page JOIN jobs AS parent ON parent.id = page.parent_id
WHERE page.id = ? AND parent.task = 'links'

-- name: left_out
SELECT reason, number, json_group_array(url) AS examples FROM (
    SELECT reason, url, count(*) OVER (PARTITION BY reason) AS number,
        row_number() OVER (PARTITION BY reason) AS place
    FROM crawls WHERE crawl = ? AND reason NOT IN ('', 'text', 'shape')
)
WHERE place <= 3 GROUP BY reason ORDER BY number DESC, reason

-- name: forget_crawls
DELETE FROM crawls WHERE crawl IN (SELECT value FROM json_each(?))

-- name: forget_crawl_pages
DELETE FROM counters WHERE kind = 'crawl' AND name IN (SELECT value FROM json_each(?))
