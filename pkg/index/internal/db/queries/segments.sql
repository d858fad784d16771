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
    format_version, row_hash, applied_delete, rules, identified, resolution, shard_index, shard_count, lease
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
       unnest(@applied_deletes::bigint[]),
       -- An array of arrays must not be ragged: each comes as a text, the empty one for none.
       string_to_array(unnest(@rules::text[]), ','),
       unnest(@identified::boolean[]),
       unnest(@resolutions::bigint[]),
       unnest(@shard_indexes::integer[]),
       unnest(@shard_counts::integer[]),
       @lease;

-- name: InsertSegmentSources :execrows
-- Bounded by the arrays.
INSERT INTO segment_sources (receipt, segment, signal, window_start)
SELECT unnest(@receipts::bigint[]),
       unnest(@segments::bigint[]),
       unnest(@signals::smallint[]),
       unnest(@window_starts::timestamptz[]);

-- name: RemoveSegments :many
-- Marks live segments as removed. Where they are is served by segment_sources_segment, so that only the segment's month is asked,
-- by segments_id; bounded by the array.
WITH wanted AS (
    SELECT unnest(@ids::bigint[]) AS id
),
places AS MATERIALIZED (
    SELECT w.id, place.signal, place.window_start
    FROM wanted w
    CROSS JOIN LATERAL (
        SELECT ss.signal, ss.window_start
        FROM segment_sources ss
        WHERE ss.segment = w.id
        LIMIT 1
    ) place
)
UPDATE segments
SET removed_at = clock_timestamp(),
    removed_by = @lease
FROM places p
WHERE segments.signal = p.signal
  AND segments.window_start = p.window_start
  AND segments.id = p.id
  AND segments.organization = @organization
  AND segments.removed_at IS NULL
RETURNING segments.id, segments.signal, segments.window_start, segments.window_length, segments.bucket, segments.key, segments.bytes,
          segments.sidecar_bytes, segments.row_count, segments.resolution;

-- name: MarkSegments :many
-- Says of live segments what need not be done to them any more. Served as RemoveSegments is; bounded by the arrays.
WITH wanted AS (
    SELECT unnest(@ids::bigint[]) AS id,
           unnest(@applied_deletes::bigint[]) AS applied_delete,
           unnest(@rules::text[]) AS rules
),
places AS MATERIALIZED (
    SELECT w.id, w.applied_delete, w.rules, place.signal, place.window_start
    FROM wanted w
    CROSS JOIN LATERAL (
        SELECT ss.signal, ss.window_start
        FROM segment_sources ss
        WHERE ss.segment = w.id
        LIMIT 1
    ) place
)
UPDATE segments
SET applied_delete = greatest(segments.applied_delete, p.applied_delete),
    rules = ARRAY(
        SELECT DISTINCT r.rule
        FROM unnest(segments.rules || string_to_array(p.rules, ',')) AS r (rule)
        ORDER BY r.rule
    )
FROM places p
WHERE segments.signal = p.signal
  AND segments.window_start = p.window_start
  AND segments.id = p.id
  AND segments.organization = @organization
  AND segments.removed_at IS NULL
RETURNING segments.id, segments.signal, segments.window_start, segments.window_length, segments.resolution;

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
-- each other. What happens to an hour that retention has removed rows of is quiet. Served by window_versions_pkey; bounded by the arrays.
WITH hours AS (
    SELECT unnest(@signals::smallint[]) AS signal,
           unnest(@hours::timestamptz[]) AS hour,
           unnest(@increments::bigint[]) AS increment,
           unnest(@quiets::bigint[]) AS quiet,
           unnest(@expired::boolean[]) AS expired
)
INSERT INTO window_versions (organization, signal, hour, version, quiet, expired)
SELECT @organization, h.signal, h.hour, h.increment, h.quiet, h.expired
FROM hours h
ORDER BY h.signal, h.hour
ON CONFLICT (organization, signal, hour) DO UPDATE
SET version = window_versions.version + CASE WHEN window_versions.expired THEN 0 ELSE excluded.version END,
    quiet = window_versions.quiet + excluded.quiet + CASE WHEN window_versions.expired THEN excluded.version ELSE 0 END,
    expired = window_versions.expired OR excluded.expired
RETURNING signal, hour, version, quiet, expired;

-- name: SumVersions :one
-- Served by window_versions_pkey.
SELECT coalesce(sum(version + quiet), 0)::bigint AS version,
       coalesce(bool_or(expired), false)::boolean AS expired
FROM window_versions
WHERE organization = @organization
  AND signal = @signal
  AND hour >= @first_hour
  AND hour < @end_hour;

-- name: Lookup :many
-- The segments of a time range, what they may lack, and the deletes that may mask rows of them, in one snapshot: first a row of
-- what they lack (row_kind 0), then the deletes (1, whose columns stand in those of segments as deleteOfAnswer reads them), then
-- the segments (2). Served by segments_lookup in the months of the range, receipts_unfinished and deletes_masking.
WITH found AS MATERIALIZED (
    SELECT s.id, s.window_start, s.window_length, s.level, s.bucket, s.key, s.bytes, s.sidecar_bytes, s.row_count, s.first_time,
           s.last_time, s.format_version, s.row_hash, s.masked_sources, s.created_at, s.applied_delete, s.rules, s.identified, s.lease,
           s.shard_index, s.shard_count
    FROM segments s
    WHERE s.organization = @organization
      AND s.signal = @signal::smallint
      AND s.window_start >= @first_window
      AND s.window_start < @end_window
      AND s.last_time >= @start_time::bigint
      AND s.first_time < @end_time::bigint
      AND s.removed_at IS NULL
    LIMIT @max_segments
),
pending AS MATERIALIZED (
    SELECT p.created_at
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
    ) p
    LIMIT @completeness_cap::integer
),
failed AS MATERIALIZED (
    SELECT r.id
    FROM receipts r
    WHERE r.organization = @organization
      AND r.state = 'failed'
      AND r.signal IN (0, @signal::smallint)
      AND r.written_at >= @written_after
    LIMIT @completeness_cap::integer
)
SELECT 0::integer AS row_kind,
       statement_timestamp()::timestamptz AS at,
       (SELECT count(*) FROM pending) AS pending,
       coalesce((SELECT min(p.created_at) FROM pending p), 'epoch')::timestamptz AS oldest_pending,
       (SELECT count(*) FROM failed) AS failed,
       0::bigint AS id, 'epoch'::timestamptz AS window_start, 0::bigint AS window_length, 0::integer AS level, ''::text AS bucket,
       ''::text AS key, 0::bigint AS bytes, 0::bigint AS sidecar_bytes, 0::bigint AS row_count, 0::bigint AS first_time,
       0::bigint AS last_time, 0::integer AS format_version, 0::bigint AS row_hash, '{}'::bigint[] AS masked_sources,
       'epoch'::timestamptz AS created_at, 0::bigint AS applied_delete, '{}'::text[] AS rules, false AS identified, ''::text AS lease,
       0::integer AS shard_index, 0::integer AS shard_count
UNION ALL
SELECT 2, 'epoch', 0, 'epoch', 0, f.id, f.window_start, f.window_length, f.level, f.bucket, f.key, f.bytes, f.sidecar_bytes, f.row_count,
       f.first_time, f.last_time, f.format_version, f.row_hash, f.masked_sources, f.created_at, f.applied_delete, f.rules,
       f.identified, f.lease, f.shard_index, f.shard_count
FROM found f
UNION ALL
SELECT 1, 'epoch', 0, 'epoch', 0, d.id, d.created_at, 0, 0, d.sources, d.selector, 0, 0, 0, d.start_time, d.end_time, 0, 0, '{}',
       d.updated_at, 0, ARRAY[d.state, d.actor, d.reason], false, '', 0, 0
FROM deletes d
WHERE d.organization = @organization
  AND d.signal = @signal::smallint
  AND d.id > (SELECT min(f.applied_delete) FROM found f)
  AND d.start_time < @end_time::bigint
  AND d.end_time > @start_time::bigint
ORDER BY row_kind, window_start, id;

-- name: Arrivals :many
-- As Lookup, of the segments of level 0 that were added since a time, whether or not they were removed again. Served by
-- segments_lookup in the months of the range, and in all months by segments_removed_of, which holds few so young.
WITH found AS MATERIALIZED (
    SELECT s.id, s.window_start, s.window_length, s.level, s.bucket, s.key, s.bytes, s.sidecar_bytes, s.row_count, s.first_time,
           s.last_time, s.format_version, s.row_hash, s.masked_sources, s.created_at, s.applied_delete, s.rules, s.identified, s.lease,
           s.shard_index, s.shard_count
    FROM segments s
    WHERE s.organization = @organization
      AND s.signal = @signal::smallint
      AND s.window_start >= @first_window
      AND s.window_start < @end_window
      AND s.last_time >= @start_time::bigint
      AND s.first_time < @end_time::bigint
      AND s.removed_at IS NULL
      AND s.level = 0
      AND s.created_at > @since
    UNION ALL
    SELECT s.id, s.window_start, s.window_length, s.level, s.bucket, s.key, s.bytes, s.sidecar_bytes, s.row_count, s.first_time,
           s.last_time, s.format_version, s.row_hash, s.masked_sources, s.created_at, s.applied_delete, s.rules, s.identified, s.lease,
           s.shard_index, s.shard_count
    FROM segments s
    WHERE s.organization = @organization
      AND s.signal = @signal::smallint
      AND s.window_start >= @first_window
      AND s.window_start < @end_window
      AND s.last_time >= @start_time::bigint
      AND s.first_time < @end_time::bigint
      AND s.removed_at > @since
      AND s.level = 0
      AND s.created_at > @since
    LIMIT @max_segments
),
pending AS MATERIALIZED (
    SELECT p.created_at
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
    ) p
    LIMIT @completeness_cap::integer
),
failed AS MATERIALIZED (
    SELECT r.id
    FROM receipts r
    WHERE r.organization = @organization
      AND r.state = 'failed'
      AND r.signal IN (0, @signal::smallint)
      AND r.written_at >= @written_after
    LIMIT @completeness_cap::integer
)
SELECT 0::integer AS row_kind,
       statement_timestamp()::timestamptz AS at,
       (SELECT count(*) FROM pending) AS pending,
       coalesce((SELECT min(p.created_at) FROM pending p), 'epoch')::timestamptz AS oldest_pending,
       (SELECT count(*) FROM failed) AS failed,
       0::bigint AS id, 'epoch'::timestamptz AS window_start, 0::bigint AS window_length, 0::integer AS level, ''::text AS bucket,
       ''::text AS key, 0::bigint AS bytes, 0::bigint AS sidecar_bytes, 0::bigint AS row_count, 0::bigint AS first_time,
       0::bigint AS last_time, 0::integer AS format_version, 0::bigint AS row_hash, '{}'::bigint[] AS masked_sources,
       'epoch'::timestamptz AS created_at, 0::bigint AS applied_delete, '{}'::text[] AS rules, false AS identified, ''::text AS lease,
       0::integer AS shard_index, 0::integer AS shard_count
UNION ALL
SELECT 2, 'epoch', 0, 'epoch', 0, f.id, f.window_start, f.window_length, f.level, f.bucket, f.key, f.bytes, f.sidecar_bytes, f.row_count,
       f.first_time, f.last_time, f.format_version, f.row_hash, f.masked_sources, f.created_at, f.applied_delete, f.rules,
       f.identified, f.lease, f.shard_index, f.shard_count
FROM found f
UNION ALL
SELECT 1, 'epoch', 0, 'epoch', 0, d.id, d.created_at, 0, 0, d.sources, d.selector, 0, 0, 0, d.start_time, d.end_time, 0, 0, '{}',
       d.updated_at, 0, ARRAY[d.state, d.actor, d.reason], false, '', 0, 0
FROM deletes d
WHERE d.organization = @organization
  AND d.signal = @signal::smallint
  AND d.id > (SELECT min(f.applied_delete) FROM found f)
  AND d.start_time < @end_time::bigint
  AND d.end_time > @start_time::bigint
ORDER BY row_kind, window_start, id;

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
