-- SPDX-License-Identifier: AGPL-3.0-only

-- name: PutRollups :execrows
-- Says what is known of rollups from now on. In the order of rollups_pkey, which serves it; bounded by the arrays.
WITH rolled AS (
    SELECT unnest(@signals::smallint[]) AS signal,
           unnest(@resolutions::bigint[]) AS resolution,
           unnest(@window_starts::timestamptz[]) AS window_start,
           unnest(@window_lengths::bigint[]) AS window_length,
           unnest(@versions::bigint[]) AS version,
           unnest(@applied_deletes::bigint[]) AS applied_delete,
           unnest(@states::text[]) AS state
)
INSERT INTO rollups (organization, signal, resolution, window_start, window_length, version, applied_delete, state, lease, rolled_at)
SELECT @organization, r.signal, r.resolution, r.window_start, r.window_length, r.version, r.applied_delete, r.state, @lease, clock_timestamp()
FROM rolled r
ORDER BY r.signal, r.resolution, r.window_start, r.window_length
ON CONFLICT (organization, signal, resolution, window_start, window_length) DO UPDATE
SET version = excluded.version,
    applied_delete = excluded.applied_delete,
    state = excluded.state,
    lease = excluded.lease,
    rolled_at = excluded.rolled_at;

-- name: LoseRollups :execrows
-- Says of rollups whose files are removed, and not replaced, why. Served by rollups_pkey; bounded by the arrays.
WITH lost AS (
    SELECT unnest(@signals::smallint[]) AS signal,
           unnest(@resolutions::bigint[]) AS resolution,
           unnest(@window_starts::timestamptz[]) AS window_start,
           unnest(@window_lengths::bigint[]) AS window_length
)
UPDATE rollups
SET state = @state,
    lease = @lease,
    rolled_at = clock_timestamp()
FROM lost
WHERE rollups.organization = @organization
  AND rollups.signal = lost.signal
  AND rollups.resolution = lost.resolution
  AND rollups.window_start = lost.window_start
  AND rollups.window_length = lost.window_length;

-- name: RollupSegmentsLeft :one
-- Live segments of the rollups of windows that other leases added. Served by segments_rollups_lookup in the months of the windows;
-- bounded by the arrays.
SELECT count(*)
FROM segments s
JOIN (
    SELECT unnest(@places::smallint[]) AS place,
           unnest(@resolutions::bigint[]) AS resolution,
           unnest(@window_starts::timestamptz[]) AS window_start,
           unnest(@window_lengths::bigint[]) AS window_length
) w
  ON s.signal = w.place
 AND s.resolution = w.resolution
 AND s.window_start = w.window_start
 AND s.window_length = w.window_length
WHERE s.organization = @organization
  AND s.signal IN (11, 12, 13)
  AND s.removed_at IS NULL
  AND s.lease <> @lease;

-- name: RollupsWithin :many
-- What is known of the rollups of windows within a window, and whether later deletes mask rows of them. Served by rollups_pkey, once for
-- each resolution, and deletes_masking.
SELECT r.resolution, r.window_start, r.window_length, r.version, r.applied_delete, r.state,
       EXISTS (
           SELECT 1
           FROM deletes d
           WHERE d.organization = r.organization
             AND d.signal = r.signal
             AND d.id > r.applied_delete
             AND d.start_time < (extract(epoch FROM r.window_start) * 1000000000)::bigint + r.window_length
             AND d.end_time > (extract(epoch FROM r.window_start) * 1000000000)::bigint
       )::boolean AS masked
FROM rollups r
WHERE r.organization = @organization
  AND r.signal = @signal::smallint
  AND r.resolution = ANY (@resolutions::bigint[])
  AND r.window_start >= @first_window
  AND r.window_start < @end_window
  AND r.window_start + interval '1 microsecond' * (r.window_length / 1000) <= @end_window
ORDER BY r.resolution, r.window_start, r.window_length
LIMIT 100000;

-- name: SegmentsReaching :many
-- Live segments of rows whose windows overlap a window. Served by segments_lookup in the months of the window.
SELECT sqlc.embed(segments)
FROM segments
WHERE organization = @organization
  AND signal = @signal::smallint
  AND window_start >= @first_window
  AND window_start < @end_window
  AND window_start + interval '1 microsecond' * (window_length / 1000) > @start_window
  AND removed_at IS NULL
ORDER BY window_start, id
LIMIT @max_segments;

-- name: HoursWithRows :many
-- The hours of a range that have or had rows. Served by window_versions_pkey.
SELECT hour, version, quiet, expired
FROM window_versions
WHERE organization = @organization
  AND signal = @signal::smallint
  AND hour >= @first_hour
  AND hour < @end_hour
  AND version + quiet > 0
ORDER BY hour
LIMIT 100000;

-- name: LookupRollups :many
-- As Lookup, of the rollups of a resolution: their segments (row_kind 2), the days with the hours that have rows and their versions (3, one
-- after the other in the masked sources), what is known of the rollups (4, as rollupOfAnswer reads it), and deletes that may mask rows of them (1).
-- Which are current is for the caller to find: all of it is of one snapshot. Served by segments_rollups_lookup in the months of the range,
-- window_versions_pkey, rollups_pkey, deletes_masking and receipts_unfinished.
WITH found AS MATERIALIZED (
    SELECT s.id, s.window_start, s.window_length, s.level, s.bucket, s.key, s.bytes, s.sidecar_bytes, s.row_count, s.first_time,
           s.last_time, s.format_version, s.row_hash, s.masked_sources, s.created_at, s.applied_delete, s.rules, s.identified, s.lease,
           s.shard_index, s.shard_count
    FROM segments s
    WHERE s.organization = @organization
      AND s.signal = @place::smallint
      AND s.resolution = @resolution::bigint
      AND s.window_start >= @first_window::timestamptz
      AND s.window_start < @end_window::timestamptz
      AND s.last_time >= @start_time::bigint
      AND s.first_time < @end_time::bigint
      AND s.removed_at IS NULL
    LIMIT @max_segments
),
known AS MATERIALIZED (
    SELECT m.window_start, m.window_length, m.version, m.applied_delete, m.state
    FROM rollups m
    WHERE m.organization = @organization
      AND m.signal = @signal::smallint
      AND m.resolution = @resolution::bigint
      AND m.window_start >= @first_window::timestamptz
      AND m.window_start < @end_window::timestamptz
),
days AS MATERIALIZED (
    SELECT date_trunc('day', v.hour AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS day,
           array_agg(extract(epoch FROM v.hour)::bigint ORDER BY v.hour) || array_agg(v.version ORDER BY v.hour) AS hours
    FROM window_versions v
    WHERE v.organization = @organization
      AND v.signal = @signal::smallint
      AND v.hour >= @first_window::timestamptz
      AND v.hour < @end_window::timestamptz
      AND v.version + v.quiet > 0
    GROUP BY 1
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
SELECT 3, 'epoch', 0, 'epoch', 0, 0, y.day, 86400000000000, 0, '', '', 0, 0, 0, 0, 0, 0, 0, y.hours, 'epoch', 0, '{}', false, '', 0, 0
FROM days y
UNION ALL
SELECT 4, 'epoch', 0, 'epoch', 0, k.version, k.window_start, k.window_length, 0, '', k.state, 0, 0, 0, 0, 0, 0, 0, '{}', 'epoch', k.applied_delete, '{}',
       false, '', 0, 0
FROM known k
UNION ALL
SELECT 1, 'epoch', 0, 'epoch', 0, d.id, d.created_at, 0, 0, d.sources, d.selector, 0, 0, 0, d.start_time, d.end_time, 0, 0, '{}',
       d.updated_at, 0, ARRAY[d.state, d.actor, d.reason], false, '', 0, 0
FROM deletes d
WHERE d.organization = @organization
  AND d.signal = @signal::smallint
  AND d.id > (SELECT min(k.applied_delete) FROM known k)
  AND d.start_time < @end_time_of_windows::bigint
  AND d.end_time > @start_time_of_windows::bigint
ORDER BY row_kind, window_start, id;

-- name: FirstHour :one
-- The first hour with rows from a time on; the other time: there is none. Served by window_versions_pkey.
SELECT coalesce((
    SELECT v.hour
    FROM window_versions v
    WHERE v.organization = @organization
      AND v.signal = @signal::smallint
      AND v.hour >= @from_hour::timestamptz
    ORDER BY v.hour
    LIMIT 1
), @otherwise::timestamptz)::timestamptz AS hour;

-- name: NoteRollupsUnderDeletes :exec
-- Notes removed segments of rollups for the deletes that were not applied to them: their files are waited for. Served by segments_id in the
-- months of the windows, deletes_masking and delete_segments_pkey; bounded by the array.
INSERT INTO delete_segments (delete_id, segment, bucket, key, row_count, removed_at)
SELECT d.id, s.id, s.bucket, s.key, 0, clock_timestamp()
FROM segments s
JOIN deletes d
  ON d.organization = s.organization
 AND d.id > s.applied_delete
 AND d.start_time < (extract(epoch FROM s.window_start) * 1000000000)::bigint + s.window_length
 AND d.end_time > (extract(epoch FROM s.window_start) * 1000000000)::bigint
WHERE s.id = ANY (@ids::bigint[])
  AND s.signal = ANY (@places::smallint[])
  AND s.window_start >= @first_window::timestamptz
  AND s.window_start <= @last_window::timestamptz
  AND d.signal = @signal::smallint
  AND d.state <> 'done'
ORDER BY d.id, s.id
ON CONFLICT (delete_id, segment) DO NOTHING;

-- name: MarkRollups :exec
-- Says of rollups that the deletes were applied to them which were applied to all of their live segments. Served by rollups_pkey and
-- segments_rollups_lookup; bounded by the arrays.
WITH marked AS (
    SELECT unnest(@signals::smallint[]) AS signal,
           unnest(@places::smallint[]) AS place,
           unnest(@resolutions::bigint[]) AS resolution,
           unnest(@window_starts::timestamptz[]) AS window_start,
           unnest(@window_lengths::bigint[]) AS window_length
)
UPDATE rollups
SET applied_delete = greatest(rollups.applied_delete, applied.applied_delete),
    lease = @lease,
    rolled_at = clock_timestamp()
FROM marked
CROSS JOIN LATERAL (
    SELECT min(s.applied_delete) AS applied_delete
    FROM segments s
    WHERE s.organization = @organization
      AND s.signal = marked.place
      AND s.resolution = marked.resolution
      AND s.window_start = marked.window_start
      AND s.window_length = marked.window_length
      AND s.removed_at IS NULL
) applied
WHERE rollups.organization = @organization
  AND rollups.signal = marked.signal
  AND rollups.resolution = marked.resolution
  AND rollups.window_start = marked.window_start
  AND rollups.window_length = marked.window_length
  AND applied.applied_delete IS NOT NULL;

-- name: HoursRolledUp :many
-- The hours of those given that a rollup counts rows of. Served by rollups_pkey, once for each resolution and length; bounded by the array.
SELECT DISTINCT h.hour::timestamptz AS hour
FROM (SELECT unnest(@hours::timestamptz[]) AS hour) h
JOIN rollups r
  ON r.organization = @organization
 AND r.signal = @signal::smallint
 AND r.resolution = ANY (@resolutions::bigint[])
 AND r.window_start IN (h.hour, date_trunc('day', h.hour AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')
 AND h.hour < r.window_start + interval '1 microsecond' * (r.window_length / 1000)
WHERE r.state = 'rolled'
ORDER BY h.hour::timestamptz
LIMIT 100000;
