-- SPDX-License-Identifier: AGPL-3.0-only

-- name: MakeSegmentMonth :exec
SELECT make_segment_month(@parent::text, @month_start::timestamptz);

-- name: SegmentIDs :many
-- Takes new ids. Bounded by the count.
SELECT nextval('segment_ids')::bigint AS id
FROM generate_series(1, @count::integer)
ORDER BY 1;

-- name: InsertSegments :execrows
-- Bounded by the arrays.
INSERT INTO segments (
    id, organization, signal, window_start, window_length, level, bucket, key, bytes, sidecar_bytes, row_count, first_time, last_time,
    format_version, row_hash, lease
)
SELECT unnest(@ids::bigint[]),
       @organization,
       unnest(@signals::smallint[]),
       unnest(@window_starts::timestamptz[]),
       unnest(@window_lengths::bigint[]),
       unnest(@levels::integer[]),
       unnest(@buckets::text[]),
       unnest(@keys::text[]),
       unnest(@bytes::bigint[]),
       unnest(@sidecar_bytes::bigint[]),
       unnest(@row_counts::bigint[]),
       unnest(@first_times::bigint[]),
       unnest(@last_times::bigint[]),
       unnest(@format_versions::integer[]),
       unnest(@row_hashes::bigint[]),
       @lease;

-- name: InsertSegmentSources :execrows
-- Bounded by the arrays.
INSERT INTO segment_sources (receipt, segment, signal, window_start)
SELECT unnest(@receipts::bigint[]),
       unnest(@segments::bigint[]),
       unnest(@signals::smallint[]),
       unnest(@window_starts::timestamptz[]);

-- name: RemoveSegments :many
-- Marks live segments as removed. In each month served by segments_id; bounded by the array.
UPDATE segments
SET removed_at = clock_timestamp(),
    removed_by = @lease
WHERE id = ANY (@ids::bigint[])
  AND organization = @organization
  AND removed_at IS NULL
RETURNING id, signal, window_start, window_length, bucket, key;

-- name: MaskSources :many
-- Hides the rows of sources in the segments that hold them. Served by segment_sources_pkey, then in the segment's month by
-- segments_id.
WITH holders AS (
    SELECT ss.segment, ss.signal, ss.window_start, array_agg(ss.receipt) AS receipts
    FROM segment_sources ss
    WHERE ss.receipt = ANY (@receipts::bigint[])
    GROUP BY ss.segment, ss.signal, ss.window_start
)
UPDATE segments
SET masked_sources = (
    SELECT array_agg(DISTINCT masked.receipt ORDER BY masked.receipt)
    FROM unnest(segments.masked_sources || holders.receipts) AS masked (receipt)
)
FROM holders
WHERE segments.signal = holders.signal
  AND segments.window_start = holders.window_start
  AND segments.id = holders.segment
  AND segments.removed_at IS NULL
RETURNING segments.id, segments.signal, segments.window_start, segments.window_length;

-- name: BumpVersions :many
-- Locks the versions of hours and adds to them (nothing, to lock only), in the order of the key, so that no two commits wait for
-- each other. Served by window_versions_pkey; bounded by the arrays.
WITH hours AS (
    SELECT unnest(@signals::smallint[]) AS signal,
           unnest(@hours::timestamptz[]) AS hour,
           unnest(@increments::bigint[]) AS increment
)
INSERT INTO window_versions (organization, signal, hour, version)
SELECT @organization, h.signal, h.hour, h.increment
FROM hours h
ORDER BY h.signal, h.hour
ON CONFLICT (organization, signal, hour) DO UPDATE
SET version = window_versions.version + excluded.version
RETURNING signal, hour, version;

-- name: SumVersions :one
-- Served by window_versions_pkey.
SELECT coalesce(sum(version), 0)::bigint AS version
FROM window_versions
WHERE organization = @organization
  AND signal = @signal
  AND hour >= @first_hour
  AND hour < @end_hour;

-- name: Lookup :many
-- The segments of a time range and what they may lack, in one snapshot; one row without a segment when there is none. Served by
-- segments_lookup in the months of the range and receipts_unfinished.
WITH pending AS (
    SELECT count(*) AS receipts, min(p.created_at) AS oldest
    FROM (
        (
            SELECT r.created_at
            FROM receipts r
            WHERE r.organization = @organization
              AND r.state = 'pending'
              AND r.signal = @signal::smallint
              AND r.written_at >= @written_after
            ORDER BY r.written_at
            LIMIT @completeness_cap::integer
        )
        UNION ALL
        (
            SELECT r.created_at
            FROM receipts r
            WHERE r.organization = @organization
              AND r.state = 'pending'
              AND r.signal = 0
              AND r.written_at >= @written_after
            ORDER BY r.written_at
            LIMIT @completeness_cap::integer
        )
        LIMIT @completeness_cap::integer
    ) p
),
failed AS (
    SELECT count(*) AS receipts
    FROM (
        SELECT 1
        FROM receipts r
        WHERE r.organization = @organization
          AND r.state = 'failed'
          AND r.signal IN (0, @signal::smallint)
          AND r.written_at >= @written_after
        LIMIT @completeness_cap::integer
    ) f
)
SELECT statement_timestamp()::timestamptz AS at,
       pending.receipts AS pending,
       coalesce(pending.oldest, 'epoch')::timestamptz AS oldest_pending,
       failed.receipts AS failed,
       s.id, s.window_start, s.window_length, s.level, s.bucket, s.key, s.bytes, s.sidecar_bytes, s.row_count, s.first_time,
       s.last_time, s.format_version, s.row_hash, s.masked_sources, s.created_at
FROM pending
CROSS JOIN failed
LEFT JOIN segments s
  ON s.organization = @organization
 AND s.signal = @signal::smallint
 AND s.window_start >= @first_window
 AND s.window_start < @end_window
 AND s.last_time >= @start_time::bigint
 AND s.first_time < @end_time::bigint
 AND s.removed_at IS NULL
ORDER BY s.window_start, s.id
LIMIT @max_segments;

-- name: SegmentsOfReceipt :many
-- Served by segment_sources_pkey, then in the segment's month by segments_id.
SELECT sqlc.embed(segments)
FROM segment_sources ss
JOIN segments
  ON segments.signal = ss.signal
 AND segments.window_start = ss.window_start
 AND segments.id = ss.segment
WHERE ss.receipt = @receipt
  AND segments.removed_at IS NULL
ORDER BY segments.window_start, segments.id
LIMIT 10000;

-- name: InsertCommitRecord :exec
INSERT INTO commit_records (lease, organization, record)
VALUES (@lease, @organization, @record);
