-- SPDX-License-Identifier: AGPL-3.0-only

-- name: EnqueueTasks :exec
-- Coalesces with what is there: a leased task becomes ready again when it is finished, at the time that it was asked for then
-- (its not_before until it ends), a buried one when it was asked for, a waiting one at the earlier time. In the order of
-- tasks_work, which serves it, so that no two transactions wait for each other. Bounded by the arrays.
WITH wanted AS (
    SELECT unnest(@kinds::text[]) AS kind,
           unnest(@organizations::text[]) AS organization,
           unnest(@signals::smallint[]) AS signal,
           unnest(@window_starts::timestamptz[]) AS window_start,
           unnest(@window_lengths::bigint[]) AS window_length,
           unnest(@tiers::integer[]) AS tier,
           unnest(@receipts::bigint[]) AS receipt,
           unnest(@bytes::bigint[]) AS bytes,
           unnest(@delays::bigint[]) AS delay
)
INSERT INTO tasks (kind, organization, signal, window_start, window_length, tier, receipt, bytes, not_before)
SELECT w.kind, w.organization, w.signal, w.window_start, w.window_length, w.tier, w.receipt, w.bytes,
       clock_timestamp() + interval '1 second' * (w.delay / 1e9)
FROM wanted w
ORDER BY w.kind, w.organization, w.signal, w.window_start, w.window_length, w.tier, w.receipt
ON CONFLICT ON CONSTRAINT tasks_work DO UPDATE
SET bytes = greatest(tasks.bytes, excluded.bytes),
    again = tasks.state = 'leased',
    state = CASE tasks.state WHEN 'leased' THEN 'leased' ELSE 'ready' END,
    suspects = CASE tasks.state WHEN 'buried' THEN '' ELSE tasks.suspects END,
    attempts = CASE tasks.state WHEN 'buried' THEN 0 ELSE tasks.attempts END,
    failures = CASE tasks.state WHEN 'buried' THEN 0 ELSE tasks.failures END,
    cause = CASE tasks.state WHEN 'buried' THEN '' ELSE tasks.cause END,
    not_before = CASE
        WHEN tasks.state = 'buried' OR tasks.state = 'leased' AND NOT tasks.again THEN excluded.not_before
        -- A task that backs off is not hurried by whoever asks for it again.
        WHEN tasks.state = 'ready' AND tasks.attempts > 0 THEN tasks.not_before
        ELSE least(tasks.not_before, excluded.not_before)
    END;

-- name: EnqueueReceipts :exec
-- The ingest tasks of receipts. Coalesces as EnqueueTasks does, and in the same order. The receipts are served by
-- receipts_N_id; bounded by the array.
INSERT INTO tasks (kind, organization, signal, window_start, window_length, tier, receipt, bytes)
SELECT 'ingest', r.organization, r.signal, 'epoch', 0, 0, r.id, r.size
FROM receipts r
WHERE r.id = ANY (@ids::bigint[])
  AND r.state = 'pending'
ORDER BY r.organization, r.signal, r.id
ON CONFLICT ON CONSTRAINT tasks_work DO UPDATE
SET again = tasks.state = 'leased',
    state = CASE tasks.state WHEN 'leased' THEN 'leased' ELSE 'ready' END,
    suspects = '',
    attempts = 0,
    failures = 0,
    cause = '',
    not_before = clock_timestamp();

-- name: OpenServices :exec
-- Lets groups of tasks take part in fairness; one that does already is not touched. Served by services_pkey.
INSERT INTO services (kind, organization, signal, served_at)
SELECT unnest(@kinds::text[]), unnest(@organizations::text[]), unnest(@signals::smallint[]), '-infinity'
ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING;

-- name: ClaimableGroups :many
-- The groups whose oldest tasks may be claimed, the one first that was served longest ago. tasks_ready serves all of it: one
-- probe finds each next group; then, in the order of fairness and until there are enough, one its oldest task, and only a group
-- that waits for bytes has them counted, up to a batch.
WITH RECURSIVE groups AS (
    (
        SELECT t.organization, t.signal
        FROM tasks t
        WHERE t.kind = @kind
          AND t.state = 'ready'
        ORDER BY t.organization, t.signal
        LIMIT 1
    )
    UNION ALL
    SELECT following.organization, following.signal
    FROM groups g
    CROSS JOIN LATERAL (
        SELECT t.organization, t.signal
        FROM tasks t
        WHERE t.kind = @kind
          AND t.state = 'ready'
          AND (t.organization, t.signal) > (g.organization, g.signal)
        ORDER BY t.organization, t.signal
        LIMIT 1
    ) following
),
fair AS (
    SELECT g.organization, g.signal, coalesce(s.served_at, '-infinity')::timestamptz AS served_at
    FROM groups g
    LEFT JOIN services s
      ON s.kind = @kind
     AND s.organization = g.organization
     AND s.signal = g.signal
    ORDER BY coalesce(s.served_at, '-infinity')::timestamptz, g.organization, g.signal
)
SELECT g.organization, g.signal, oldest.suspects
FROM fair g
CROSS JOIN LATERAL (
    SELECT t.suspects, t.not_before
    FROM tasks t
    WHERE t.kind = @kind
      AND t.organization = g.organization
      AND t.signal = g.signal
      AND t.state = 'ready'
      AND t.not_before <= statement_timestamp()
    ORDER BY t.not_before, t.id
    LIMIT 1
) oldest
WHERE CASE
    WHEN @min_bytes::bigint <= 0 OR oldest.suspects <> '' THEN true
    WHEN oldest.not_before <= statement_timestamp() - @max_wait::interval THEN true
    ELSE (
        SELECT coalesce(sum(waiting.bytes), 0) >= @min_bytes::bigint OR count(*) >= @max_tasks::bigint
        FROM (
            SELECT t.bytes
            FROM tasks t
            WHERE t.kind = @kind
              AND t.organization = g.organization
              AND t.signal = g.signal
              AND t.state = 'ready'
              AND t.not_before <= statement_timestamp()
            ORDER BY t.not_before, t.id
            LIMIT @max_tasks::bigint
        ) waiting
    )
END
ORDER BY g.served_at, g.organization, g.signal
LIMIT 32;

-- name: ClaimTasks :many
-- The claim. Takes a group's oldest tasks, and steps over those that another claim has locked. Tasks under suspicion come only
-- with their like. Batching is a condition: enough bytes, a full batch, or old enough. Served by tasks_batch, tasks_pkey and
-- services_pkey; a service that another claim is noting is left to that one.
WITH candidates AS MATERIALIZED (
    SELECT t.id, t.bytes, t.not_before
    FROM tasks t
    WHERE t.kind = @kind
      AND t.organization = @organization
      AND t.signal = @signal
      AND t.state = 'ready'
      AND t.suspects = @suspects
      AND t.not_before <= statement_timestamp()
    ORDER BY t.not_before, t.id
    LIMIT @max_tasks::bigint
    FOR UPDATE SKIP LOCKED
),
weighed AS (
    SELECT c.id,
           c.bytes,
           c.not_before,
           sum(c.bytes) OVER oldest_first AS total,
           row_number() OVER oldest_first AS place
    FROM candidates c
    WINDOW oldest_first AS (ORDER BY c.not_before, c.id)
),
batch AS (
    SELECT w.id, w.bytes, w.not_before
    FROM weighed w
    WHERE w.total <= @max_bytes::bigint
       OR w.place = 1
),
ripe AS (
    SELECT @suspects <> ''
        OR coalesce(sum(b.bytes), 0) >= @min_bytes::bigint
        OR count(*) >= @max_tasks::bigint
        OR count(*) < (SELECT count(*) FROM candidates)
        OR min(b.not_before) <= statement_timestamp() - @max_wait::interval AS yes
    FROM batch b
),
leased AS (
    UPDATE tasks
    SET state = 'leased',
        lease = @lease
    WHERE tasks.id = ANY (ARRAY(SELECT batch.id FROM batch))
      AND (SELECT ripe.yes FROM ripe)
    RETURNING tasks.id, tasks.kind, tasks.organization, tasks.signal, tasks.window_start, tasks.window_length, tasks.tier,
              tasks.receipt, tasks.bytes, tasks.attempts, tasks.cause, tasks.not_before, tasks.created_at
),
lease AS (
    INSERT INTO leases (id, kind, organization, signal, tasks, duration, max_attempts, claimed_at, expires_at)
    SELECT @lease, @kind, @organization, @signal, count(*), @duration::bigint, @max_attempts::integer,
           statement_timestamp(), clock_timestamp() + @lifetime::interval
    FROM leased
    HAVING count(*) > 0
),
served AS (
    UPDATE services
    SET served_at = clock_timestamp()
    WHERE services.kind = @kind
      AND services.organization = @organization
      AND services.signal = @signal
      AND services.ctid = ANY (ARRAY(
          SELECT s.ctid
          FROM services s
          WHERE s.kind = @kind
            AND s.organization = @organization
            AND s.signal = @signal
          FOR UPDATE SKIP LOCKED
      ))
      AND EXISTS (SELECT 1 FROM leased)
)
SELECT l.id, l.kind, l.organization, l.signal, l.window_start, l.window_length, l.tier, l.receipt, l.bytes, l.attempts, l.cause,
       l.created_at, statement_timestamp()::timestamptz AS claimed_at
FROM leased l
ORDER BY l.not_before, l.id;

-- name: ClaimReceipt :many
-- The claim of one receipt's task alone, backing off or not. Served by tasks_receipt.
WITH candidate AS MATERIALIZED (
    SELECT t.id
    FROM tasks t
    WHERE t.receipt = @receipt
      AND t.kind = @kind
      AND t.state = 'ready'
    ORDER BY t.id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
),
leased AS (
    UPDATE tasks
    SET state = 'leased',
        lease = @lease
    WHERE tasks.id = ANY (ARRAY(SELECT candidate.id FROM candidate))
    RETURNING tasks.id, tasks.kind, tasks.organization, tasks.signal, tasks.window_start, tasks.window_length, tasks.tier,
              tasks.receipt, tasks.bytes, tasks.attempts, tasks.cause, tasks.created_at
),
lease AS (
    INSERT INTO leases (id, kind, organization, signal, tasks, duration, max_attempts, claimed_at, expires_at)
    SELECT @lease, l.kind, l.organization, l.signal, 1, @duration::bigint, @max_attempts::integer,
           statement_timestamp(), clock_timestamp() + @lifetime::interval
    FROM leased l
)
SELECT l.id, l.kind, l.organization, l.signal, l.window_start, l.window_length, l.tier, l.receipt, l.bytes, l.attempts, l.cause,
       l.created_at, statement_timestamp()::timestamptz AS claimed_at
FROM leased l
ORDER BY l.id
LIMIT 1;

-- name: ClaimWork :many
-- The claim of one task alone, that is of no receipt, whatever it waits for. Served by tasks_work.
WITH candidate AS MATERIALIZED (
    SELECT t.id
    FROM tasks t
    WHERE t.kind = @kind
      AND t.organization = @organization
      AND t.signal = @signal::smallint
      AND t.window_start = @window_start
      AND t.window_length = @window_length
      AND t.tier = @tier
      AND t.receipt = 0
      AND t.state = 'ready'
    ORDER BY t.id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
),
leased AS (
    UPDATE tasks
    SET state = 'leased',
        lease = @lease
    WHERE tasks.id = ANY (ARRAY(SELECT candidate.id FROM candidate))
    RETURNING tasks.id, tasks.kind, tasks.organization, tasks.signal, tasks.window_start, tasks.window_length, tasks.tier,
              tasks.receipt, tasks.bytes, tasks.attempts, tasks.cause, tasks.created_at
),
lease AS (
    INSERT INTO leases (id, kind, organization, signal, tasks, duration, max_attempts, claimed_at, expires_at)
    SELECT @lease, l.kind, l.organization, l.signal, 1, @duration::bigint, @max_attempts::integer,
           statement_timestamp(), clock_timestamp() + @lifetime::interval
    FROM leased l
)
SELECT l.id, l.kind, l.organization, l.signal, l.window_start, l.window_length, l.tier, l.receipt, l.bytes, l.attempts, l.cause,
       l.created_at, statement_timestamp()::timestamptz AS claimed_at
FROM leased l
ORDER BY l.id
LIMIT 1;

-- name: LockLease :one
-- Served by leases_pkey.
SELECT id, organization, signal, state, tasks, max_attempts, edit
FROM leases
WHERE id = @id
FOR UPDATE;

-- name: ExpiredLeases :many
-- Served by leases_live.
SELECT id
FROM leases
WHERE state = 'live'
  AND expires_at <= statement_timestamp()
ORDER BY expires_at, id
LIMIT 16;

-- name: LockExpiredLease :many
-- No row when somebody else deals with it or it was renewed. Served by leases_pkey.
SELECT id, organization, signal, state, tasks, max_attempts, edit
FROM leases
WHERE id = @id
  AND state = 'live'
  AND expires_at <= statement_timestamp()
ORDER BY id
LIMIT 1
FOR UPDATE SKIP LOCKED;

-- name: RenewLease :execrows
-- Served by leases_pkey.
UPDATE leases
SET expires_at = clock_timestamp() + interval '1 second' * (duration / 1e9)
WHERE id = @id
  AND state = 'live';

-- name: DeclareFolders :execrows
-- Served by leases_pkey.
UPDATE leases
SET folders = ARRAY(
        SELECT DISTINCT f.folder
        FROM unnest(leases.folders || @folders::text[]) AS f (folder)
        ORDER BY f.folder
    )
WHERE id = @id
  AND state = 'live';

-- name: EndLease :execrows
-- Served by leases_pkey.
UPDATE leases
SET state = @state,
    ended_at = clock_timestamp(),
    edit = @edit
WHERE id = @id
  AND state = 'live';

-- name: LockLeaseTasks :many
-- In the order in which EnqueueTasks locks. Served by tasks_lease; bounded by the lease.
SELECT id, attempts, failures, suspects, again, receipt
FROM tasks
WHERE lease = @lease
  AND lease <> ''
ORDER BY kind, organization, signal, window_start, window_length, tier, receipt
FOR UPDATE;

-- name: GiveBackTasks :execrows
-- Served by tasks_pkey; bounded by the arrays.
UPDATE tasks
SET state = g.state,
    lease = '',
    again = false,
    suspects = g.suspects,
    attempts = g.attempts,
    failures = g.failures,
    cause = g.cause,
    -- What was asked for anew while it was done waits as long as was asked for then.
    not_before = CASE WHEN g.anew THEN tasks.not_before ELSE clock_timestamp() + interval '1 second' * (g.delay / 1e9) END
FROM (
    SELECT unnest(@ids::bigint[]) AS id,
           unnest(@states::text[]) AS state,
           unnest(@suspects::text[]) AS suspects,
           unnest(@attempts::integer[]) AS attempts,
           unnest(@failures::integer[]) AS failures,
           unnest(@causes::text[]) AS cause,
           unnest(@delays::bigint[]) AS delay,
           unnest(@anew::boolean[]) AS anew
) g
WHERE tasks.id = g.id
  AND tasks.lease = @lease;

-- name: FinishTasks :execrows
-- Served by tasks_pkey; bounded by the array.
DELETE FROM tasks
WHERE id = ANY (@ids::bigint[])
  AND lease = @lease;

-- name: ForgetReceiptTasks :exec
-- Drops the tasks of receipts that no longer want one; those being worked on are dropped when their lease ends. Served by
-- tasks_receipt; bounded by the array.
DELETE FROM tasks
WHERE receipt = ANY (@receipts::bigint[])
  AND state <> 'leased';

-- name: Backlogs :many
-- Reads every task: for gauges, not for each request.
SELECT kind,
       organization,
       signal,
       count(*) FILTER (WHERE state <> 'buried') AS tasks,
       coalesce(sum(bytes) FILTER (WHERE state <> 'buried'), 0)::bigint AS bytes,
       coalesce(min(created_at) FILTER (WHERE state = 'ready'), 'epoch')::timestamptz AS oldest,
       count(*) FILTER (WHERE state = 'buried') AS buried
FROM tasks
GROUP BY kind, organization, signal
ORDER BY kind, organization, signal
LIMIT 10000;

-- name: Notify :exec
SELECT pg_notify('lakerunner_tasks', unnest(@kinds::text[]));
