-- SPDX-License-Identifier: AGPL-3.0-only

-- name: InsertRecord :exec
-- Puts the rows that a transaction wrote into the outbox, as they are now. Bounded by the arrays.
INSERT INTO commit_records (lease, organization, record)
VALUES (
    @cause,
    @organization,
    jsonb_build_object(
        'version', 2,
        'kind', @kind::text,
        'rows', recorded_rows(
            @segments::bigint[], @first_window::timestamptz, @last_window::timestamptz, @receipts::bigint[], @deletes::bigint[], @cause, @edit::bytea
        )::jsonb || recorded_windows(
            @organization, @cause, @signals::smallint[], @hours::timestamptz[], @rollup_signals::smallint[], @resolutions::bigint[],
            @starts::timestamptz[]
        )
    )
);

-- name: CompleteRecord :one
-- What a record of the release before names, as this one records it.
SELECT completed_rows(@organization, @cause, @committed_at::timestamptz, @segments::bigint[], @receipts::bigint[])::jsonb AS rows;

-- name: InsertAuditRecord :exec
-- Puts an entry of the audit log into the outbox. Served by audit_log_pkey.
INSERT INTO commit_records (lease, organization, record)
SELECT 'audit/' || a.id, @organization, jsonb_build_object('version', 2, 'kind', 'audit', 'rows', jsonb_build_object('audit_log', jsonb_build_array(to_jsonb(a))))
FROM audit_log a
WHERE a.id = @id;

-- name: Records :many
-- Served by commit_records_of.
SELECT id, lease, organization, record, committed_at
FROM commit_records
WHERE organization = @organization
ORDER BY id
LIMIT @page_size;

-- name: ForgetRecords :exec
-- Served by commit_records_pkey; bounded by the array.
DELETE FROM commit_records
WHERE id = ANY (@ids::bigint[]);

-- name: SnapshotLeases :many
-- Served by leases_listing.
SELECT l.id, to_jsonb(l) AS line
FROM leases l
WHERE l.organization = @organization
  AND l.id > @after
ORDER BY l.id
LIMIT @page_size;

-- name: SnapshotSegments :many
-- The live ones of a signal, by window. Served by segments_lookup, the months one after the other.
SELECT s.id, s.window_start,
       (to_jsonb(s) || jsonb_build_object('sources', ARRAY(SELECT ss.receipt FROM segment_sources ss WHERE ss.segment = s.id ORDER BY ss.receipt)))::jsonb AS line
FROM segments s
WHERE s.organization = @organization
  AND s.signal = @signal::smallint
  AND s.window_start >= @after_window::timestamptz
  AND (s.window_start, s.id) > (@after_window::timestamptz, @after_id::bigint)
  AND s.removed_at IS NULL
ORDER BY s.window_start, s.id
LIMIT @page_size;

-- name: SnapshotRemoved :many
-- The removed ones, by their removal. Served by segments_removed_of.
SELECT s.id, coalesce(s.removed_at, 'epoch')::timestamptz AS removed_at,
       (to_jsonb(s) || jsonb_build_object('sources', ARRAY(SELECT ss.receipt FROM segment_sources ss WHERE ss.segment = s.id ORDER BY ss.receipt)))::jsonb AS line
FROM segments s
WHERE s.organization = @organization
  AND s.removed_at IS NOT NULL
  AND s.removed_at >= @after_removal::timestamptz
  AND (s.removed_at, s.id) > (@after_removal::timestamptz, @after_id::bigint)
ORDER BY s.removed_at, s.id
LIMIT @page_size;

-- name: SnapshotReceipts :many
-- Served by receipts_listing.
SELECT r.id, to_jsonb(r) AS line
FROM receipts r
WHERE r.organization = @organization
  AND r.id > @after
ORDER BY r.id
LIMIT @page_size;

-- name: SnapshotDeletes :many
-- Served by deletes_listing.
SELECT d.id, to_jsonb(d) AS line
FROM deletes d
WHERE d.organization = @organization
  AND d.id > @after
ORDER BY d.id
LIMIT @page_size;

-- name: SnapshotDeleteRows :many
-- Served by delete_rows_pkey.
SELECT dr.source, dr.segment, to_jsonb(dr) AS line
FROM delete_rows dr
WHERE dr.delete_id = @delete_id
  AND (dr.source, dr.segment) > (@after_source::bigint, @after_segment::bigint)
ORDER BY dr.source, dr.segment
LIMIT @page_size;

-- name: SnapshotDeleteSegments :many
-- Served by delete_segments_pkey.
SELECT ds.segment, to_jsonb(ds) AS line
FROM delete_segments ds
WHERE ds.delete_id = @delete_id
  AND ds.segment > @after
ORDER BY ds.segment
LIMIT @page_size;

-- name: SnapshotDeleteSources :many
-- Served by delete_sources_pkey.
SELECT ds.receipt, to_jsonb(ds) AS line
FROM delete_sources ds
WHERE ds.delete_id = @delete_id
  AND ds.receipt > @after
ORDER BY ds.receipt
LIMIT @page_size;

-- name: SnapshotAudit :many
-- Served by audit_log_listing.
SELECT a.id, to_jsonb(a) AS line
FROM audit_log a
WHERE a.organization = @organization
  AND a.id > @after
ORDER BY a.id
LIMIT @page_size;

-- name: SnapshotRuns :many
-- Served by retention_runs_listing.
SELECT r.id, to_jsonb(r) AS line
FROM retention_runs r
WHERE r.organization = @organization
  AND r.id > @after
ORDER BY r.id
LIMIT @page_size;

-- name: SnapshotRunLeases :many
-- Served by retention_leases_run; bounded by the array.
SELECT to_jsonb(l) AS line
FROM retention_leases l
WHERE l.run = ANY (@runs::bigint[])
ORDER BY l.run, l.lease;

-- name: SnapshotRollups :many
-- Served by rollups_pkey.
SELECT r.signal, r.resolution, r.window_start, r.window_length, to_jsonb(r) AS line
FROM rollups r
WHERE r.organization = @organization
  AND (r.signal, r.resolution, r.window_start, r.window_length)
      > (@after_signal::smallint, @after_resolution::bigint, @after_window::timestamptz, @after_length::bigint)
ORDER BY r.signal, r.resolution, r.window_start, r.window_length
LIMIT @page_size;

-- name: SnapshotVersions :many
-- Served by window_versions_pkey.
SELECT v.signal, v.hour, to_jsonb(v) AS line
FROM window_versions v
WHERE v.organization = @organization
  AND (v.signal, v.hour) > (@after_signal::smallint, @after_hour::timestamptz)
ORDER BY v.signal, v.hour
LIMIT @page_size;

-- name: SnapshotWritten :exec
-- Served by snapshots_pkey.
INSERT INTO snapshots (organization, started_at)
VALUES (@organization, @started_at)
ON CONFLICT (organization) DO UPDATE
SET started_at = greatest(snapshots.started_at, excluded.started_at);

-- name: ForgetSettledTasks :exec
-- Tasks of receipts that are not pending any more. Served by tasks_receipt; bounded by the array.
DELETE FROM tasks
USING receipts r
WHERE tasks.receipt = ANY (@receipts::bigint[])
  AND tasks.receipt <> 0
  AND r.id = tasks.receipt
  AND r.state NOT IN ('pending', 'failed');

-- name: ForgetReceipts :exec
-- Served by receipts_N_id; bounded by the array.
DELETE FROM receipts
WHERE id = ANY (@ids::bigint[])
  AND state IN ('pending', 'failed', 'skipped');

-- name: ForgetReceiptsTasks :exec
-- Served by tasks_receipt; bounded by the array.
DELETE FROM tasks
WHERE receipt = ANY (@ids::bigint[])
  AND receipt <> 0;

-- name: LockAdoption :exec
-- One adoption at a time, until its transaction ends: two would both add what neither sees yet.
SELECT pg_advisory_xact_lock(hashtext('lakerunner.adopt'));

-- name: AdoptRows :one
-- Merges rows into a table, as the function says. Bounded by the rows.
SELECT adopt_rows(@organization, @table_name, @rows::jsonb)::bigint[] AS adopted;

-- name: CollidingReceipts :one
-- Bounded by the rows, and served as the function says.
SELECT colliding_receipts(@organization, @rows::jsonb)::jsonb AS receipts;

-- name: CollidingSegment :one
-- Bounded by the rows, and served as the function says.
SELECT colliding_segment(@rows::jsonb)::bigint AS id;

-- name: CollidingNumber :one
-- The first of numbers that other rows have here than there, with what tells rows of one number apart: of deletes and of runs of retention
-- the organization and the time of their making, of entries of the audit log their hash. Zero: there is none. Served by the primary keys of
-- the three; bounded by the arrays.
WITH recorded AS (
    SELECT unnest(@ids::bigint[]) AS id,
           unnest(@marks::text[]) AS mark
)
SELECT coalesce(min(r.id), 0)::bigint AS id
FROM recorded r
LEFT JOIN deletes d
  ON @table_name::text = 'deletes'
 AND d.id = r.id
LEFT JOIN retention_runs n
  ON @table_name::text = 'retention_runs'
 AND n.id = r.id
LEFT JOIN audit_log a
  ON @table_name::text = 'audit_log'
 AND a.id = r.id
WHERE d.organization <> @organization
   OR d.created_at <> CASE WHEN d.id IS NOT NULL THEN r.mark::timestamptz END
   OR n.organization <> @organization
   OR n.started_at <> CASE WHEN n.id IS NOT NULL THEN r.mark::timestamptz END
   OR a.hash <> r.mark;

-- name: MakeAdoptedMonths :exec
-- Bounded by the months of the rows.
SELECT make_adopted_months(@rows::jsonb);

-- name: AdvanceSequences :exec
-- Moves the sequences past the numbers that were seen.
SELECT advance_sequences(@receipt, @segment, @delete_id, @run, @audit);
