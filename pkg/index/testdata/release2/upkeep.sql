-- SPDX-License-Identifier: AGPL-3.0-only

-- name: DueSegments :many
-- Live segments whose windows ended by a time, oldest first. Served by segments_lookup.
SELECT sqlc.embed(s)
FROM segments s
WHERE s.organization = @organization
  AND s.signal = @signal::smallint
  AND s.removed_at IS NULL
  AND s.window_start < @before::timestamptz
  AND s.window_start + interval '1 microsecond' * (s.window_length / 1000) <= @before::timestamptz
  AND s.window_start >= @after_window::timestamptz
  AND (s.window_start, s.id) > (@after_window::timestamptz, @after_id::bigint)
ORDER BY s.window_start, s.id
LIMIT @page_size;

-- name: InsertRetentionRun :one
-- One row.
INSERT INTO retention_runs (id, organization, signal, cutoff, selector, due_segments, due_rows, due_bytes, windows_to_rewrite)
VALUES (nextval('retention_run_ids'), @organization, @signal, @cutoff, @selector, @due_segments, @due_rows, @due_bytes, @windows_to_rewrite)
RETURNING id, started_at;

-- name: AdvanceRetentionRun :execrows
-- Served by retention_runs_pkey.
UPDATE retention_runs
SET due_segments = due_segments + @due_segments,
    due_rows = due_rows + @due_rows,
    due_bytes = due_bytes + @due_bytes,
    finished_at = CASE WHEN @finished::boolean THEN coalesce(finished_at, clock_timestamp()) ELSE finished_at END
WHERE id = @id;

-- name: InsertRetentionLease :execrows
-- Served by retention_leases_pkey.
INSERT INTO retention_leases (lease, run)
VALUES (@lease, @run)
ON CONFLICT DO NOTHING;

-- name: CountRemoved :exec
-- What a lease removed counts for the run that it worked for. Served by retention_leases_pkey and retention_runs_pkey.
UPDATE retention_runs
SET removed_segments = removed_segments + @segments,
    removed_rows = removed_rows + @rows,
    removed_bytes = removed_bytes + @bytes
FROM retention_leases l
WHERE l.lease = @lease
  AND retention_runs.id = l.run;

-- name: RetentionRuns :many
-- Newest first. Served by retention_runs_listing.
SELECT sqlc.embed(r)
FROM retention_runs r
WHERE r.organization = @organization
  AND r.id < @before
ORDER BY r.id DESC
LIMIT @page_size;

-- name: Sweepable :many
-- Removed segments whose grace is over and whose removal's record is in the bucket. Served by segments_removed_of in each month, and
-- commit_records_lease_key.
SELECT s.id, s.signal, s.window_start, s.bucket, s.key, s.bytes, s.sidecar_bytes, s.row_count, s.removed_at, s.removed_by
FROM segments s
WHERE s.organization = @organization
  AND s.removed_at <= clock_timestamp() - @grace::interval
  AND NOT EXISTS (SELECT 1 FROM commit_records c WHERE c.lease = s.removed_by)
ORDER BY s.removed_at, s.id
LIMIT @page_size;

-- name: RemovedCounts :one
-- Served by segments_removed_of.
SELECT count(*) AS segments, coalesce(sum(s.row_count), 0)::bigint AS rows, coalesce(sum(s.bytes + s.sidecar_bytes), 0)::bigint AS bytes
FROM segments s
WHERE s.organization = @organization
  AND s.removed_at IS NOT NULL
  AND s.removed_at > clock_timestamp() - @grace::interval;

-- name: SweepSegments :many
-- Served by segments_id in each month; bounded by the array.
DELETE FROM segments
WHERE id = ANY (@ids::bigint[])
  AND organization = @organization
  AND removed_at IS NOT NULL
RETURNING id, removed_by, row_count, bytes, sidecar_bytes;

-- name: SweepSources :exec
-- Served by segment_sources_segment; bounded by the array.
DELETE FROM segment_sources
WHERE segment = ANY (@ids::bigint[]);

-- name: SweepDeleteSegments :exec
-- Served by delete_segments_segment; bounded by the array.
UPDATE delete_segments
SET gone_at = clock_timestamp()
WHERE segment = ANY (@ids::bigint[])
  AND gone_at IS NULL;

-- name: CountGone :exec
-- What was deleted and seen to be gone counts for the runs that removed it. Served by retention_leases_pkey.
UPDATE retention_runs
SET deleted_segments = deleted_segments + w.segments,
    deleted_rows = deleted_rows + w.row_count,
    deleted_bytes = deleted_bytes + w.bytes,
    gone_segments = gone_segments + w.segments,
    gone_rows = gone_rows + w.row_count,
    gone_bytes = gone_bytes + w.bytes
FROM (
    SELECT l.run, sum(g.segments)::bigint AS segments, sum(g.row_count)::bigint AS row_count, sum(g.bytes)::bigint AS bytes
    FROM (
        SELECT unnest(@leases::text[]) AS lease,
               unnest(@segments::bigint[]) AS segments,
               unnest(@row_counts::bigint[]) AS row_count,
               unnest(@bytes::bigint[]) AS bytes
    ) g
    JOIN retention_leases l ON l.lease = g.lease
    GROUP BY l.run
) w
WHERE retention_runs.id = w.run;

-- name: AbandonedLeases :many
-- Served by leases_abandoned_of.
SELECT l.id, l.kind, l.signal, l.ended_at, l.folders
FROM leases l
WHERE l.organization = @organization
  AND l.state IN ('released', 'expired')
  AND l.ended_at <= clock_timestamp() - @grace::interval
ORDER BY l.ended_at, l.id
LIMIT @page_size;

-- name: ForgetLeases :exec
-- Served by leases_pkey; bounded by the array.
DELETE FROM leases
WHERE id = ANY (@ids::text[])
  AND state IN ('released', 'expired');

-- name: SegmentsOfDay :many
-- Live and removed segments whose windows begin on a day, by number. Served by segments_lookup and segments_removed_of in the month of
-- the day.
SELECT f.id, f.bucket, f.key, f.removed, f.missing, f.lease
FROM (
    SELECT s.id, s.bucket, s.key, false AS removed, (s.missing_since IS NOT NULL)::boolean AS missing, s.lease
    FROM segments s
    WHERE s.organization = @organization
      AND s.signal = @signal::smallint
      AND s.window_start >= @day
      AND s.window_start < @day_end
      AND s.removed_at IS NULL
      AND s.id > @after
    UNION ALL
    SELECT s.id, s.bucket, s.key, true, false, s.lease
    FROM segments s
    WHERE s.organization = @organization
      AND s.signal = @signal::smallint
      AND s.window_start >= @day
      AND s.window_start < @day_end
      AND s.removed_at IS NOT NULL
      AND s.id > @after
) f
ORDER BY f.id
LIMIT @page_size;

-- name: SegmentDays :many
-- The days that have live segments. Served by segments_lookup, one probe a day.
WITH RECURSIVE days AS (
    (
        SELECT s.window_start
        FROM segments s
        WHERE s.organization = @organization
          AND s.signal = @signal::smallint
          AND s.removed_at IS NULL
          AND s.window_start >= @from_day
        ORDER BY s.window_start
        LIMIT 1
    )
    UNION ALL
    SELECT following.window_start
    FROM days d
    CROSS JOIN LATERAL (
        SELECT s.window_start
        FROM segments s
        WHERE s.organization = @organization
          AND s.signal = @signal::smallint
          AND s.removed_at IS NULL
          AND s.window_start >= date_trunc('day', d.window_start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + interval '1 day'
        ORDER BY s.window_start
        LIMIT 1
    ) following
)
SELECT (date_trunc('day', d.window_start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')::timestamptz AS day
FROM days d
LIMIT @page_size;

-- name: LeaseStates :many
-- Served by leases_pkey; bounded by the array.
SELECT l.id, l.state
FROM leases l
WHERE l.id = ANY (@ids::text[])
ORDER BY l.id;

-- name: MarkMissing :exec
-- Served by segments_id in each month; bounded by the array.
UPDATE segments
SET missing_since = CASE WHEN @missing::boolean THEN coalesce(missing_since, clock_timestamp()) END
WHERE id = ANY (@ids::bigint[])
  AND removed_at IS NULL;

-- name: MissingSegments :many
-- Served by segments_missing and segment_sources_segment.
SELECT sqlc.embed(s), ARRAY(SELECT ss.receipt FROM segment_sources ss WHERE ss.segment = s.id ORDER BY ss.receipt LIMIT 1000)::bigint[] AS sources
FROM segments s
WHERE s.organization = @organization
  AND s.missing_since IS NOT NULL
  AND s.removed_at IS NULL
ORDER BY s.id
LIMIT @page_size;

-- name: RecordCompleteness :exec
-- Served by completeness_pkey; bounded by the arrays.
INSERT INTO completeness (organization, bucket, prefix, hour, objects, known, bytes)
SELECT w.organization, w.bucket, w.prefix, w.hour, w.objects, w.known, w.bytes
FROM (
    SELECT unnest(@organizations::text[]) AS organization,
           unnest(@buckets::text[]) AS bucket,
           unnest(@prefixes::text[]) AS prefix,
           unnest(@hours::timestamptz[]) AS hour,
           unnest(@objects::bigint[]) AS objects,
           unnest(@known::bigint[]) AS known,
           unnest(@bytes::bigint[]) AS bytes
) w
ORDER BY w.organization, w.hour, w.bucket, w.prefix
ON CONFLICT (organization, hour, bucket, prefix) DO UPDATE
SET objects = excluded.objects,
    known = excluded.known,
    bytes = excluded.bytes,
    compared_at = clock_timestamp();

-- name: Completeness :many
-- Newest first. Served by completeness_pkey.
SELECT sqlc.embed(c)
FROM completeness c
WHERE c.organization = @organization
  AND c.hour >= @start_hour
  AND c.hour < @end_hour
  AND starts_with(c.prefix, @prefix)
ORDER BY c.hour DESC, c.bucket, c.prefix
LIMIT @page_size;

-- name: RecentKeys :many
-- The folders of the objects that were received last, up to 20,000 of them. Served by receipts_listing, backwards.
WITH newest AS (
    SELECT r.bucket, regexp_replace(r.key, '[^/]*$', '')::text AS prefix, r.created_at
    FROM receipts r
    WHERE r.organization = @organization
    ORDER BY r.id DESC
    LIMIT 20000
)
SELECT bucket, prefix, count(*) AS objects
FROM newest
WHERE created_at >= @since
GROUP BY bucket, prefix
ORDER BY bucket, prefix
LIMIT @page_size;

-- name: LockAudit :one
-- Makes entries one at a time, in the order of their numbers, and gives the time.
SELECT clock_timestamp()::timestamptz AS at
FROM pg_advisory_xact_lock(hashtext('lakerunner.audit'));

-- name: LastAuditEntry :many
-- The newest entry of an organization. Served by audit_log_listing.
SELECT a.hash
FROM audit_log a
WHERE a.organization = @organization
ORDER BY a.id DESC
LIMIT 1;

-- name: NextAuditID :one
-- Called while the log is locked, so that numbers rise in the order of the entries.
SELECT nextval('audit_ids')::bigint AS id;

-- name: InsertAuditEntry :exec
-- One row.
INSERT INTO audit_log (id, at, actor, organization, action, subject, detail, previous_hash, hash)
VALUES (@id, @at, @actor, @organization, @action, @subject, @detail, @previous_hash, @hash);

-- name: AuditPage :many
-- Newest first. Served by audit_log_listing.
SELECT sqlc.embed(a)
FROM audit_log a
WHERE a.organization = @organization
  AND a.id < @before
ORDER BY a.id DESC
LIMIT @page_size;

-- name: WholeAuditPage :many
-- Served by audit_log_pkey.
SELECT sqlc.embed(a)
FROM audit_log a
WHERE a.id > @after
ORDER BY a.id
LIMIT @page_size;

-- name: WholeAuditPageDescending :many
-- Newest first. Served by audit_log_pkey.
SELECT sqlc.embed(a)
FROM audit_log a
WHERE a.id < @before
ORDER BY a.id DESC
LIMIT @page_size;

-- name: AuditOfSubject :many
-- Served by audit_log_subject.
SELECT sqlc.embed(a)
FROM audit_log a
WHERE a.action = @action
  AND a.subject = @subject
ORDER BY a.id
LIMIT 1000;

-- name: RawDue :many
-- Done objects that are kept, oldest first, copies that were cut off included. Served by receipts_raw.
SELECT sqlc.embed(r)
FROM receipts r
WHERE r.organization = @organization
  AND r.bucket = @bucket
  AND r.raw IN ('', 'moving')
  AND r.state = 'done'
  AND r.written_at < @written_before
  AND r.written_at >= @after_time::timestamptz
  AND (r.written_at, r.id) > (@after_time::timestamptz, @after_id::bigint)
  AND starts_with(r.key, @key_prefix)
ORDER BY r.written_at, r.id
LIMIT @page_size;

-- name: RawNotDone :one
-- Objects of that age whose receipt is not done, counted up to 10,000. Served by receipts_raw.
SELECT count(*) AS objects
FROM (
    SELECT 1
    FROM receipts r
    WHERE r.organization = @organization
      AND r.bucket = @bucket
      AND r.raw IN ('', 'moving')
      AND r.state IN ('pending', 'failed')
      AND r.written_at < @written_before
      AND starts_with(r.key, @key_prefix)
    ORDER BY r.written_at, r.id
    LIMIT 10000
) waiting;

-- name: SetRaw :many
-- Served by receipts_N_id.
UPDATE receipts
SET raw = @next,
    updated_at = clock_timestamp()
WHERE id = @id
  AND raw = @current
RETURNING organization;

-- name: RawBytes :one
-- Reads an entry for each object that is kept: for a status, not for each request. Served by receipts_raw alone.
SELECT coalesce(sum(r.size), 0)::bigint AS bytes
FROM receipts r
WHERE r.organization = @organization
  AND r.raw IN ('', 'moving')
  AND r.state = 'done';

-- name: MonthPartitions :one
-- Reads the catalogue; bounded by the months that there are.
SELECT segment_months()::jsonb AS months;

-- name: DropMonth :one
-- Waits for nobody for long, as the function says.
SELECT drop_segment_month(@name)::boolean AS dropped;

-- name: IsMonthEmpty :one
-- Reads one row at most.
SELECT is_segment_month_empty(@name)::boolean AS empty;

-- name: TrimLeases :execrows
-- Leases that were committed long ago and whose record has been shipped. Served by leases_committed.
DELETE FROM leases
WHERE id IN (
    SELECT l.id
    FROM leases l
    WHERE l.state = 'committed'
      AND l.ended_at < clock_timestamp() - @history::interval
      AND NOT EXISTS (SELECT 1 FROM commit_records c WHERE c.lease = l.id)
    ORDER BY l.ended_at, l.id
    LIMIT @batch
);

-- name: TrimReceipts :execrows
-- Receipts of objects that went long ago, whose rows are in no segment and of whom no delete under way has to give account. Served by
-- receipts_gone, segment_sources_pkey, delete_rows_source and delete_sources_receipt.
DELETE FROM receipts
WHERE id IN (
    SELECT r.id
    FROM receipts r
    WHERE r.raw IN ('expired', 'erased', 'redacted')
      AND r.state IN ('done', 'skipped', 'superseded')
      AND r.updated_at < clock_timestamp() - @history::interval
      AND NOT EXISTS (SELECT 1 FROM segment_sources s WHERE s.receipt = r.id)
      AND NOT EXISTS (SELECT 1 FROM delete_rows w JOIN deletes d ON d.id = w.delete_id WHERE w.source = r.id AND d.state <> 'done')
      AND NOT EXISTS (SELECT 1 FROM delete_sources w JOIN deletes d ON d.id = w.delete_id WHERE w.receipt = r.id AND d.state <> 'done')
    ORDER BY r.updated_at, r.id
    LIMIT @batch
);

-- name: TrimCompleteness :execrows
-- Served by completeness_old.
DELETE FROM completeness
WHERE (organization, hour, bucket, prefix) IN (
    SELECT c.organization, c.hour, c.bucket, c.prefix
    FROM completeness c
    WHERE c.hour < clock_timestamp() - @history::interval
    ORDER BY c.hour
    LIMIT @batch
);

-- name: TrimCosts :execrows
-- Few rows: one a day, organization and kind.
DELETE FROM costs
WHERE (organization, day, kind) IN (
    SELECT c.organization, c.day, c.kind
    FROM costs c
    WHERE c.day < (clock_timestamp() - @history::interval)::date
    ORDER BY c.day
    LIMIT @batch
);

-- name: CountTrimmable :one
-- What Trim would take, up to 10,000 rows of each table. Served as the statements that do it.
SELECT (
           SELECT count(*)
           FROM (SELECT 1 FROM leases l WHERE l.state = 'committed' AND l.ended_at < clock_timestamp() - @history::interval ORDER BY l.ended_at LIMIT 10000) a
       ) AS leases,
       (
           SELECT count(*)
           FROM (
               SELECT 1
               FROM receipts r
               WHERE r.raw IN ('expired', 'erased', 'redacted')
                 AND r.state IN ('done', 'skipped', 'superseded')
                 AND r.updated_at < clock_timestamp() - @history::interval
                 AND NOT EXISTS (SELECT 1 FROM segment_sources s WHERE s.receipt = r.id)
               ORDER BY r.updated_at
               LIMIT 10000
           ) b
       ) AS receipts,
       (SELECT count(*) FROM (SELECT 1 FROM completeness c WHERE c.hour < clock_timestamp() - @history::interval ORDER BY c.hour LIMIT 10000) c) AS completeness,
       (SELECT count(*) FROM costs c WHERE c.day < (clock_timestamp() - @history::interval)::date) AS costs,
       (SELECT count(*) FROM retention_runs r WHERE r.finished_at < clock_timestamp() - @history::interval AND r.gone_segments >= r.removed_segments) AS runs;

-- name: TrimRetentionLeases :execrows
-- Those of runs that were trimmed. Served by retention_runs_pkey.
DELETE FROM retention_leases
WHERE lease IN (
    SELECT l.lease
    FROM retention_leases l
    WHERE NOT EXISTS (SELECT 1 FROM retention_runs r WHERE r.id = l.run)
    ORDER BY l.lease
    LIMIT @batch
);

-- name: TrimRetentionRuns :execrows
-- Runs that ended long ago, and whose files are all gone. Served by retention_runs_pkey.
DELETE FROM retention_runs
WHERE id IN (
    SELECT r.id
    FROM retention_runs r
    WHERE r.finished_at < clock_timestamp() - @history::interval
      AND r.gone_segments >= r.removed_segments
    ORDER BY r.id
    LIMIT @batch
);

-- name: TableSizes :one
-- Reads the catalogue; bounded by the tables that there are.
SELECT table_sizes()::jsonb AS sizes;

-- name: StatusOrganizations :many
-- Served by segment_totals_pkey and services_pkey.
SELECT t.organization::text AS organization
FROM (
    SELECT organization FROM segment_totals
    UNION
    SELECT organization FROM services
) t
WHERE (@organization::text = '' OR t.organization = @organization::text)
  AND t.organization <> ''
ORDER BY 1
LIMIT 10000;

-- name: StatusOf :one
-- What one organization's status says. Served by segments_removed_of, leases_abandoned_of, segments_missing, receipts_unfinished (counted
-- up to 1,000), receipts_listing_by_state, completeness_pkey, commit_records_of and deletes_listing.
SELECT removed.segments AS removed_segments,
       removed.row_count AS removed_rows,
       removed.bytes AS removed_bytes,
       (SELECT count(*) FROM leases l WHERE l.organization = @organization AND l.state IN ('released', 'expired')) AS abandoned_leases,
       (SELECT count(*) FROM segments s WHERE s.organization = @organization AND s.missing_since IS NOT NULL AND s.removed_at IS NULL) AS missing,
       (SELECT count(*) FROM (SELECT 1 FROM receipts r WHERE r.organization = @organization AND r.state = 'pending' LIMIT 1000) p) AS pending,
       (SELECT count(*) FROM (SELECT 1 FROM receipts r WHERE r.organization = @organization AND r.state = 'failed' LIMIT 1000) f) AS failed,
       coalesce((
           SELECT r.created_at
           FROM receipts r
           WHERE r.organization = @organization
             AND r.state = 'pending'
           ORDER BY r.id
           LIMIT 1
       ), 'epoch')::timestamptz AS oldest_pending,
       compared.objects AS compared,
       compared.known AS known,
       (SELECT count(*) FROM commit_records c WHERE c.organization = @organization) AS records,
       (SELECT count(*) FROM deletes d WHERE d.organization = @organization AND d.state <> 'done') AS deletes,
       coalesce((SELECT s.started_at FROM snapshots s WHERE s.organization = @organization), 'epoch')::timestamptz AS last_snapshot
FROM (
    SELECT count(*) AS segments,
           coalesce(sum(s.row_count), 0)::bigint AS row_count,
           coalesce(sum(s.bytes + s.sidecar_bytes), 0)::bigint AS bytes
    FROM segments s
    WHERE s.organization = @organization
      AND s.removed_at IS NOT NULL
) removed
CROSS JOIN (
    SELECT coalesce(sum(c.objects), 0)::bigint AS objects,
           coalesce(sum(c.known), 0)::bigint AS known
    FROM completeness c
    WHERE c.organization = @organization
      AND c.hour >= date_trunc('hour', clock_timestamp()) - interval '24 hours'
) compared;

-- name: BuriedByKind :many
-- Served by tasks_buried; bounded by the kinds there are.
SELECT t.kind, count(*) AS tasks
FROM tasks t
WHERE t.organization = @organization
  AND t.state = 'buried'
GROUP BY t.kind
ORDER BY t.kind
LIMIT 100;
