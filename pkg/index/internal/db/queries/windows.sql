-- SPDX-License-Identifier: AGPL-3.0-only

-- name: WindowSegments :many
-- Live segments whose windows lie within a window; of a rollup's signal, its rollups. Served by segments_lookup in the months of the window.
SELECT sqlc.embed(segments)
FROM segments
WHERE organization = @organization
  AND signal = @signal::smallint
  AND window_start >= @first_window
  AND window_start < @end_window
  AND window_start + interval '1 microsecond' * (window_length / 1000) <= @end_window
  AND removed_at IS NULL
ORDER BY window_start, id
LIMIT @max_segments;

-- name: SourcesOfSegments :many
-- Served by segment_sources_segment; bounded by the array and by what a segment's footer may hold.
SELECT segment, array_agg(receipt ORDER BY receipt)::bigint[] AS receipts
FROM segment_sources
WHERE segment = ANY (@segments::bigint[])
GROUP BY segment
ORDER BY segment;

-- name: WindowsWithDebt :many
-- A page of the windows of a signal that hold segments of level 0, or several small ones, unless these are one of each shard and settled.
-- Served by segments_debt, in its order.
SELECT organization, window_start, window_length,
       count(*) AS segments,
       count(*) FILTER (WHERE level = 0) AS fresh,
       sum(bytes)::bigint AS bytes
FROM segments
WHERE signal = @signal::smallint
  AND removed_at IS NULL
  AND (level = 0 OR bytes < 67108864 AND window_length < 86400000000000)
  AND (organization, window_start, window_length) > (@organization, @window_start::timestamptz, @window_length::bigint)
GROUP BY organization, window_start, window_length
HAVING count(*) FILTER (WHERE level = 0) > 0
    OR count(*) > 1 AND (min(level) < 2 OR count(*) > count(DISTINCT shard_index) OR min(shard_count) < max(shard_count))
ORDER BY organization, window_start, window_length
LIMIT @page_size;

-- name: StaleWindows :many
-- Windows that ended and hold segments without a field rule, or of an old format. Served by segments_lookup; bounded by the
-- organization's segments.
SELECT window_start, window_length,
       count(*) AS segments,
       count(*) FILTER (WHERE level = 0) AS fresh,
       sum(bytes)::bigint AS bytes
FROM segments
WHERE organization = @organization
  AND signal = @signal::smallint
  AND window_start < @before
  AND window_start + interval '1 microsecond' * (window_length / 1000) <= @before
  AND removed_at IS NULL
  AND (format_version < @format_below::integer OR @rule::text <> '' AND NOT rules @> ARRAY[@rule::text])
GROUP BY window_start, window_length
ORDER BY window_start, window_length
LIMIT @page_size;

-- name: Totals :many
-- Served by segment_totals_pkey; there is one row an organization and signal.
SELECT organization, signal, segments, bytes, row_count
FROM segment_totals
WHERE @organization::text = ''
   OR organization = @organization::text
ORDER BY organization, signal
LIMIT 100000;

-- name: Debts :many
-- Served by segments_debt: reads all segments that are not settled, for gauges and plans, not for each request.
SELECT organization, signal,
       count(*) AS segments,
       sum(bytes + sidecar_bytes)::bigint AS bytes,
       count(DISTINCT (window_start, window_length)) AS windows,
       min(created_at)::timestamptz AS oldest
FROM segments
WHERE (@organization::text = '' OR organization = @organization::text)
  AND signal IN (1, 2, 3)
  AND removed_at IS NULL
  AND level = 0
GROUP BY organization, signal
ORDER BY organization, signal
LIMIT 100000;

-- name: AddTotals :exec
-- In the order of segment_totals_pkey, which serves it, so that no two commits wait for each other. Bounded by the arrays.
WITH changes AS (
    SELECT unnest(@signals::smallint[]) AS signal,
           unnest(@segments::bigint[]) AS segments,
           unnest(@bytes::bigint[]) AS bytes,
           unnest(@row_counts::bigint[]) AS row_count
)
INSERT INTO segment_totals (organization, signal, segments, bytes, row_count)
SELECT @organization, c.signal, c.segments, c.bytes, c.row_count
FROM changes c
ORDER BY c.signal
ON CONFLICT (organization, signal) DO UPDATE
SET segments = segment_totals.segments + excluded.segments,
    bytes = segment_totals.bytes + excluded.bytes,
    row_count = segment_totals.row_count + excluded.row_count;
