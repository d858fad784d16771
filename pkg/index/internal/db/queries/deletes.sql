-- SPDX-License-Identifier: AGPL-3.0-only

-- name: SerializeDeletes :exec
-- Makes deletes one at a time, so that their numbers rise in the order of their commits.
SELECT pg_advisory_xact_lock(hashtext('lakerunner.deletes'));

-- name: InsertDelete :one
INSERT INTO deletes (id, organization, signal, selector, start_time, end_time, sources, actor, reason, created_at, updated_at)
SELECT nextval('delete_ids'), @organization, @signal::smallint, @selector, @start_time::bigint, @end_time::bigint, @sources, @actor, @reason,
       now.at, now.at
FROM (SELECT clock_timestamp() AS at) now
RETURNING id, organization, signal, selector, start_time, end_time, sources, state, actor, reason, created_at, updated_at;

-- name: BumpVersionsBetween :exec
-- Adds to the versions of the hours of a range that have one: the others have no rows. Quietly, since a rollup says by a number which
-- deletes it knows. In the order of the key, as BumpVersions. Served by window_versions_pkey; bounded by the hours that an organization has rows of.
WITH hours AS MATERIALIZED (
    SELECT v.organization, v.signal, v.hour
    FROM window_versions v
    WHERE v.organization = @organization
      AND v.signal = @signal::smallint
      AND v.hour >= @first_hour
      AND v.hour < @end_hour
      AND v.version + v.quiet > 0
    ORDER BY v.organization, v.signal, v.hour
    FOR UPDATE
)
UPDATE window_versions
SET quiet = window_versions.quiet + 1
FROM hours
WHERE window_versions.organization = hours.organization
  AND window_versions.signal = hours.signal
  AND window_versions.hour = hours.hour;

-- name: DeleteByID :many
-- Served by deletes_pkey.
SELECT sqlc.embed(deletes)
FROM deletes
WHERE id = @id
ORDER BY id
LIMIT 1;

-- name: DeletePage :many
-- Oldest first. Served by deletes_listing.
SELECT sqlc.embed(deletes)
FROM deletes
WHERE organization = @organization
  AND id > @after
  AND (@signal::smallint = 0 OR signal = @signal::smallint)
  AND (cardinality(@states::text[]) = 0 OR state = ANY (@states::text[]))
ORDER BY id
LIMIT @page_size;

-- name: DeletePageDescending :many
-- Newest first. Served by deletes_listing.
SELECT sqlc.embed(deletes)
FROM deletes
WHERE organization = @organization
  AND id < @before
  AND (@signal::smallint = 0 OR signal = @signal::smallint)
  AND (cardinality(@states::text[]) = 0 OR state = ANY (@states::text[]))
ORDER BY id DESC
LIMIT @page_size;

-- name: LatestDelete :one
-- The highest number of an organization's deletes. Served by deletes_listing.
SELECT coalesce(max(id), 0)::bigint AS id
FROM deletes
WHERE organization = @organization;

-- name: MaskingDeletes :many
-- Deletes of a signal above a number that overlap a range of event time. Served by deletes_masking.
SELECT sqlc.embed(deletes)
FROM deletes
WHERE organization = @organization
  AND signal = @signal::smallint
  AND id > @after
  AND start_time < @end_time::bigint
  AND end_time > @start_time::bigint
ORDER BY id
LIMIT @max_deletes;

-- name: AdvanceDelete :execrows
-- Served by deletes_pkey.
UPDATE deletes
SET state = @next,
    updated_at = clock_timestamp()
WHERE id = @id
  AND state = @current;

-- name: SegmentsUnderDelete :many
-- Live segments that may hold rows of a delete, and rollups of them. Served by segments_lookup in the months of the delete's range.
SELECT sqlc.embed(segments)
FROM segments
WHERE organization = @organization
  AND signal = ANY (@places::smallint[])
  AND window_start >= @first_window
  AND window_start < @end_window
  AND (last_time >= @start_time::bigint AND first_time < @end_time::bigint
       -- The times of rollups are those of buckets.
       OR resolution > 0
          AND (extract(epoch FROM window_start) * 1000000000)::bigint < @end_time::bigint
          AND (extract(epoch FROM window_start) * 1000000000)::bigint + window_length > @start_time::bigint)
  AND removed_at IS NULL
  AND applied_delete < @id::bigint
  AND id > @after
ORDER BY id
LIMIT @page_size;

-- name: CountSegmentsUnderDelete :one
-- As SegmentsUnderDelete, and served by the same; bounded by the organization's segments of the range.
SELECT count(*) AS segments,
       coalesce(sum(bytes + sidecar_bytes), 0)::bigint AS bytes
FROM segments
WHERE organization = @organization
  AND signal = ANY (@places::smallint[])
  AND window_start >= @first_window
  AND window_start < @end_window
  AND (last_time >= @start_time::bigint AND first_time < @end_time::bigint
       -- The times of rollups are those of buckets.
       OR resolution > 0
          AND (extract(epoch FROM window_start) * 1000000000)::bigint < @end_time::bigint
          AND (extract(epoch FROM window_start) * 1000000000)::bigint + window_length > @start_time::bigint)
  AND removed_at IS NULL
  AND applied_delete < @id::bigint;

-- name: DeletedCounts :one
-- Served by the primary keys of the three tables; bounded by what the delete touched.
SELECT coalesce((SELECT sum(r.row_count) FROM delete_rows r WHERE r.delete_id = @id), 0)::bigint AS rows,
       (SELECT count(*) FROM delete_segments g WHERE g.delete_id = @id AND g.gone_at IS NULL) AS files_left,
       (
           SELECT count(*)
           FROM (SELECT DISTINCT r.source FROM delete_rows r WHERE r.delete_id = @id) touched
           WHERE NOT EXISTS (
               SELECT 1
               FROM delete_sources o
               WHERE o.delete_id = @id
                 AND o.receipt = touched.source
           )
       ) AS objects_left;

-- name: InsertDeletedRows :execrows
-- Notes rows of the organization's deletes. A second count of the same takes the place of the first. Served by delete_rows_pkey;
-- bounded by the arrays.
WITH counted AS (
    SELECT unnest(@deletes::bigint[]) AS delete_id,
           unnest(@sources::bigint[]) AS source,
           unnest(@segments::bigint[]) AS segment,
           unnest(@row_counts::bigint[]) AS row_count
)
INSERT INTO delete_rows (delete_id, source, segment, row_count, lease)
SELECT c.delete_id, c.source, c.segment, c.row_count, @lease
FROM counted c
JOIN deletes d
  ON d.id = c.delete_id
 AND d.organization = @organization
ORDER BY c.delete_id, c.source, c.segment
ON CONFLICT (delete_id, source, segment) DO UPDATE
SET row_count = excluded.row_count,
    lease = excluded.lease;

-- name: InsertDeletedSegments :exec
-- Served by delete_segments_pkey; bounded by the arrays.
WITH touched AS (
    SELECT unnest(@deletes::bigint[]) AS delete_id,
           unnest(@segments::bigint[]) AS segment,
           unnest(@buckets::text[]) AS bucket,
           unnest(@keys::text[]) AS key,
           unnest(@row_counts::bigint[]) AS row_count
)
INSERT INTO delete_segments (delete_id, segment, bucket, key, row_count, removed_at)
SELECT t.delete_id, t.segment, t.bucket, t.key, t.row_count, clock_timestamp()
FROM touched t
ORDER BY t.delete_id, t.segment
ON CONFLICT (delete_id, segment) DO NOTHING;

-- name: DeletedSegments :many
-- Served by delete_segments_pkey; the limit lies far above what a delete may touch.
SELECT segment, bucket, key, row_count, removed_at, gone_at
FROM delete_segments
WHERE delete_id = @delete_id
ORDER BY segment
LIMIT @page_size;

-- name: DeletedSources :many
-- The source objects that deleted rows came from. Served by delete_rows_pkey, delete_sources_pkey and receipts_N_id.
WITH touched AS (
    SELECT r.source, sum(r.row_count)::bigint AS row_count
    FROM delete_rows r
    WHERE r.delete_id = @delete_id
      AND r.source > @after
    GROUP BY r.source
    ORDER BY r.source
    LIMIT @page_size
)
SELECT sqlc.embed(receipts),
       t.row_count,
       coalesce(o.action, '')::text AS action,
       coalesce(o.done_at, 'epoch')::timestamptz AS done_at
FROM touched t
JOIN receipts
  ON receipts.id = t.source
LEFT JOIN delete_sources o
  ON o.delete_id = @delete_id
 AND o.receipt = t.source
ORDER BY t.source
LIMIT @page_size;

-- name: MarkDeleteSource :exec
-- Served by delete_sources_pkey.
INSERT INTO delete_sources (delete_id, receipt, action, done_at)
VALUES (@delete_id, @receipt, @action, clock_timestamp())
ON CONFLICT (delete_id, receipt) DO UPDATE
SET action = excluded.action,
    done_at = excluded.done_at;

-- name: SetReceiptRaw :execrows
-- Served by receipts_N_id.
UPDATE receipts
SET raw = @raw,
    updated_at = clock_timestamp()
WHERE id = @id
  AND organization = @organization;
