-- SPDX-License-Identifier: AGPL-3.0-only

-- name: InsertBackfill :one
INSERT INTO backfills (bucket, prefix, modified_after, modified_before, objects_per_second, estimate, cursor)
VALUES (@bucket, @prefix, @modified_after, @modified_before, @objects_per_second, @estimate, @cursor)
RETURNING id, bucket, prefix, modified_after, modified_before, objects_per_second, state, reason, estimate, cursor, objects_done,
          bytes_done, lease, lease_expires_at, created_at, updated_at;

-- name: BackfillByID :many
-- Served by backfills_pkey.
SELECT sqlc.embed(backfills)
FROM backfills
WHERE id = @id
ORDER BY id
LIMIT 1;

-- name: BackfillPage :many
-- Newest first. Served by backfills_pkey.
SELECT sqlc.embed(backfills)
FROM backfills
WHERE id < @before
ORDER BY id DESC
LIMIT @page_size;

-- name: SetBackfillState :execrows
-- A backfill that is done stays so. Served by backfills_pkey.
UPDATE backfills
SET state = @state,
    reason = @reason,
    updated_at = clock_timestamp()
WHERE id = @id
  AND state <> 'done';

-- name: ClaimBackfill :many
-- Takes the running backfill that has waited longest for a driver. Served by backfills_running.
WITH candidate AS MATERIALIZED (
    SELECT b.id
    FROM backfills b
    WHERE b.state = 'running'
      AND b.lease_expires_at <= statement_timestamp()
    ORDER BY b.lease_expires_at, b.id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
UPDATE backfills
SET lease = @lease,
    lease_expires_at = clock_timestamp() + @lifetime::interval
WHERE backfills.id = ANY (ARRAY(SELECT candidate.id FROM candidate))
RETURNING backfills.id;

-- name: AdvanceBackfill :execrows
-- Records a step and renews the lease. Served by backfills_pkey.
UPDATE backfills
SET cursor = @cursor,
    objects_done = objects_done + @objects::bigint,
    bytes_done = bytes_done + @bytes::bigint,
    state = CASE WHEN @done::boolean THEN 'done' ELSE state END,
    lease_expires_at = clock_timestamp() + @lifetime::interval,
    updated_at = clock_timestamp()
WHERE id = @id
  AND lease = @lease;

-- name: ReleaseBackfill :execrows
-- Lets another driver have it at once. Served by backfills_pkey.
UPDATE backfills
SET lease = '',
    lease_expires_at = clock_timestamp()
WHERE id = @id
  AND lease = @lease;

-- name: Now :one
SELECT clock_timestamp()::timestamptz AS now;
