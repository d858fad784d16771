-- SPDX-License-Identifier: AGPL-3.0-only

-- name: AddCost :exec
-- Served by costs_pkey.
INSERT INTO costs (organization, day, kind, puts, gets, lists, deletes, bytes_read, bytes_written)
VALUES (
    @organization, (clock_timestamp() AT TIME ZONE 'UTC')::date, @kind, @puts, @gets, @lists, @deletes, @bytes_read, @bytes_written
)
ON CONFLICT (organization, day, kind) DO UPDATE
SET puts = costs.puts + excluded.puts,
    gets = costs.gets + excluded.gets,
    lists = costs.lists + excluded.lists,
    deletes = costs.deletes + excluded.deletes,
    bytes_read = costs.bytes_read + excluded.bytes_read,
    bytes_written = costs.bytes_written + excluded.bytes_written;

-- name: Costs :many
-- Served by costs_pkey; bounded by organizations and days.
SELECT organization,
       sum(puts)::bigint AS puts,
       sum(gets)::bigint AS gets,
       sum(lists)::bigint AS lists,
       sum(deletes)::bigint AS deletes,
       sum(bytes_read)::bigint AS bytes_read,
       sum(bytes_written)::bigint AS bytes_written
FROM costs
WHERE (@organization::text = '' OR organization = @organization::text)
  AND day >= @since::date
GROUP BY organization
ORDER BY organization
LIMIT 100000;
