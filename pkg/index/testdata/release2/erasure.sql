-- SPDX-License-Identifier: AGPL-3.0-only

-- name: ReceiptsOfKey :many
-- All revisions of what stood at one key. Served by receipts_revision.
SELECT sqlc.embed(receipts)
FROM receipts
WHERE bucket = @bucket
  AND key = @key
ORDER BY revision
LIMIT 10000;

-- name: RetagReceipt :execrows
-- Served by receipts_N_id.
UPDATE receipts
SET tag = @tag,
    updated_at = clock_timestamp()
WHERE id = @id;

-- name: CountLeasesBefore :one
-- Living leases of an organization that were claimed up to a time. Served by leases_live, whose rows are few.
SELECT count(*)
FROM leases
WHERE state = 'live'
  AND organization = @organization
  AND kind = ANY (@kinds::text[])
  AND claimed_at <= @before;

-- name: CountUndecoded :one
-- Receipts up to a time that are not done. Served by receipts_unfinished.
SELECT count(*) FILTER (WHERE r.state = 'pending') AS pending,
       count(*) FILTER (WHERE r.state = 'failed') AS failed
FROM (
    SELECT receipts.state
    FROM receipts
    WHERE organization = @organization
      AND state IN ('pending', 'failed')
      AND signal IN (0, @signal::smallint)
      AND coalesce(received_at, created_at) <= @before
    ORDER BY state, signal, written_at
    LIMIT 100000
) r;

-- name: RowsDeletedOfSource :one
-- Rows of one source object that deletes took out of segments, and that they kept from ever being in one. Served by deletes_listing and
-- delete_rows_pkey.
SELECT coalesce(sum(r.row_count) FILTER (WHERE r.segment <> 0), 0)::bigint AS written,
       coalesce(sum(r.row_count) FILTER (WHERE r.segment = 0), 0)::bigint AS unwritten
FROM receipts
JOIN deletes d
  ON d.organization = receipts.organization
JOIN delete_rows r
  ON r.delete_id = d.id
 AND r.source = receipts.id
WHERE receipts.id = @source;
