-- SPDX-License-Identifier: AGPL-3.0-only

-- name: FindReceipts :many
-- The latest receipt of each content of an object. Served by receipts_content, one probe a content.
WITH wanted AS (
    SELECT unnest(@ordinals::bigint[]) AS ordinal,
           unnest(@buckets::text[]) AS bucket,
           unnest(@keys::text[]) AS key,
           unnest(@tags::text[]) AS tag
)
SELECT w.ordinal::bigint AS ordinal,
       r.id,
       r.organization,
       r.state,
       r.replay
FROM wanted w
CROSS JOIN LATERAL (
    SELECT receipts.id, receipts.organization, receipts.state, receipts.replay
    FROM receipts
    WHERE receipts.bucket = w.bucket
      AND receipts.key = w.key
      AND receipts.tag = w.tag
    ORDER BY receipts.replay DESC
    LIMIT 1
) r
ORDER BY w.ordinal;

-- name: InsertReceipts :many
-- Inserts the next revision of each object, in the order of what they are called so that no two transactions wait for each
-- other. Another transaction's receipt of the same content or revision stands; ours is then left out. The highest revision
-- is served by receipts_revision. Bounded by the arrays.
WITH notices AS (
    SELECT unnest(@ordinals::bigint[]) AS ordinal,
           unnest(@organizations::text[]) AS organization,
           unnest(@collectors::text[]) AS collector,
           unnest(@signals::smallint[]) AS signal,
           unnest(@buckets::text[]) AS bucket,
           unnest(@keys::text[]) AS key,
           unnest(@tags::text[]) AS tag,
           unnest(@sizes::bigint[]) AS size,
           unnest(@last_modifieds::timestamptz[]) AS last_modified,
           unnest(@replays::integer[]) AS replay,
           unnest(@hides::text[]) AS hides,
           unnest(@states::text[]) AS state,
           unnest(@reasons::text[]) AS reason
),
numbered AS (
    SELECT n.*,
           row_number() OVER (PARTITION BY n.bucket, n.key ORDER BY n.ordinal) AS place
    FROM notices n
)
INSERT INTO receipts (
    id, organization, collector, signal, bucket, key, tag, size, last_modified, revision, replay, hides, state, reason, written_at,
    received_at
)
SELECT nextval('receipt_ids'),
       n.organization,
       n.collector,
       n.signal,
       n.bucket,
       n.key,
       n.tag,
       n.size,
       nullif(n.last_modified, 'epoch'),
       n.place + coalesce(older.revision, 0),
       n.replay,
       n.hides,
       n.state,
       n.reason,
       coalesce(nullif(n.last_modified, 'epoch'), clock_timestamp()),
       least(nullif(n.last_modified, 'epoch'), clock_timestamp(), older.received_at)
FROM numbered n
CROSS JOIN LATERAL (
    SELECT max(r.revision) AS revision,
           min(coalesce(r.received_at, least(r.last_modified, r.created_at))) AS received_at
    FROM receipts r
    WHERE r.bucket = n.bucket
      AND r.key = n.key
) older
ORDER BY n.bucket, n.key, n.place
ON CONFLICT DO NOTHING
RETURNING id, bucket, key, tag;

-- name: AdoptUnclaimed :many
-- Turns receipts of objects that no storage profile claimed into pending ones, now that one does. Served by receipts_N_id.
UPDATE receipts
SET organization = n.organization,
    collector = n.collector,
    signal = n.signal,
    hides = n.hides,
    state = 'pending',
    reason = '',
    updated_at = clock_timestamp()
FROM (
    SELECT unnest(@ids::bigint[]) AS id,
           unnest(@organizations::text[]) AS organization,
           unnest(@collectors::text[]) AS collector,
           unnest(@signals::smallint[]) AS signal,
           unnest(@hides::text[]) AS hides
) n
WHERE receipts.id = n.id
  AND receipts.organization = ''
  AND receipts.state = 'skipped'
RETURNING receipts.id;

-- name: ReceiptsByID :many
-- Served by receipts_N_id; bounded by the array.
SELECT sqlc.embed(receipts)
FROM receipts
WHERE id = ANY (@ids::bigint[])
ORDER BY id;

-- name: ClaimedReceipts :many
-- Served by receipts_N_id, and receipts_revision for those that did not note when their key was first received; bounded by the
-- array.
SELECT sqlc.embed(receipts),
       coalesce(receipts.received_at, (
           SELECT min(coalesce(o.received_at, least(o.last_modified, o.created_at)))
           FROM receipts o
           WHERE o.bucket = receipts.bucket
             AND o.key = receipts.key
       ))::timestamptz AS first_received_at
FROM receipts
WHERE receipts.id = ANY (@ids::bigint[])
ORDER BY receipts.id;

-- name: ReceiptPage :many
-- Newest first. Served by receipts_listing.
SELECT sqlc.embed(receipts)
FROM receipts
WHERE organization = @organization
  AND id < @before
  AND (@bucket::text = '' OR bucket = @bucket)
  AND starts_with(key, @key_prefix)
ORDER BY id DESC
LIMIT @page_size;

-- name: ReceiptPageByState :many
-- Newest first. Served by receipts_listing_by_state.
SELECT sqlc.embed(receipts)
FROM receipts
WHERE organization = @organization
  AND state = @state
  AND id < @before
  AND (@bucket::text = '' OR bucket = @bucket)
  AND starts_with(key, @key_prefix)
ORDER BY id DESC
LIMIT @page_size;

-- name: KnownContents :many
-- Ordinals of the contents that have a receipt which stands for them: one that an organization owns, and whose rows no other
-- content has replaced since. Served by receipts_content, one probe a content.
WITH wanted AS (
    SELECT unnest(@ordinals::bigint[]) AS ordinal,
           unnest(@keys::text[]) AS key,
           unnest(@tags::text[]) AS tag
)
SELECT w.ordinal::bigint AS ordinal
FROM wanted w
CROSS JOIN LATERAL (
    SELECT receipts.organization, receipts.state
    FROM receipts
    WHERE receipts.bucket = @bucket
      AND receipts.key = w.key
      AND receipts.tag = w.tag
    ORDER BY receipts.replay DESC
    LIMIT 1
) r
WHERE r.organization <> ''
  AND r.state <> 'superseded'
ORDER BY w.ordinal;

-- name: HiddenReceipts :many
-- The receipts whose rows the given revisions hide when they are committed. Served by receipts_N_id and receipts_revision.
SELECT older.id
FROM receipts newer
JOIN receipts older
  ON older.bucket = newer.bucket
 AND older.key = newer.key
 AND older.revision < newer.revision
WHERE newer.id = ANY (@ids::bigint[])
  AND older.state <> 'superseded'
  AND (newer.hides = 'all_older' OR newer.hides = 'same_content' AND older.tag = newer.tag)
ORDER BY older.id;

-- name: LockReceipts :many
-- In the order of ids, so that no two commits wait for each other. Served by receipts_N_id; bounded by the array.
SELECT id, state
FROM receipts
WHERE id = ANY (@ids::bigint[])
ORDER BY id
FOR UPDATE;

-- name: FinishReceipts :execrows
-- Served by receipts_N_id; bounded by the arrays.
UPDATE receipts
SET state = o.state,
    signal = CASE WHEN o.signal = 0 THEN receipts.signal ELSE o.signal END,
    reason = o.reason,
    format = o.format,
    rows_in = o.rows_in,
    rows_out = o.rows_out,
    rejected = o.rejected,
    attempts = receipts.attempts + 1,
    updated_at = clock_timestamp()
FROM (
    SELECT unnest(@ids::bigint[]) AS id,
           unnest(@states::text[]) AS state,
           unnest(@signals::smallint[]) AS signal,
           unnest(@reasons::text[]) AS reason,
           unnest(@formats::text[]) AS format,
           unnest(@rows_in::bigint[]) AS rows_in,
           unnest(@rows_out::bigint[]) AS rows_out,
           unnest(@rejected::jsonb[]) AS rejected
) o
WHERE receipts.id = o.id
  AND receipts.state = 'pending';

-- name: SupersedeReceipts :execrows
-- Served by receipts_N_id; bounded by the array.
UPDATE receipts
SET state = 'superseded',
    updated_at = clock_timestamp()
WHERE id = ANY (@ids::bigint[])
  AND state <> 'superseded';

-- name: ChargeReceipts :exec
-- Notes a failed attempt on pending receipts; those that are buried have failed. Served by receipts_N_id; bounded by the arrays.
UPDATE receipts
SET state = CASE WHEN c.buried THEN 'failed' ELSE receipts.state END,
    reason = c.cause,
    attempts = receipts.attempts + 1,
    updated_at = clock_timestamp()
FROM (
    SELECT unnest(@ids::bigint[]) AS id,
           unnest(@causes::text[]) AS cause,
           unnest(@buried::boolean[]) AS buried
) c
WHERE receipts.id = c.id
  AND receipts.state = 'pending';

-- name: LatestReceiptID :one
-- Ids above it were given later. Served by receipts_N_id.
SELECT coalesce(max(id), 0)::bigint AS id
FROM receipts;

-- name: ReplayableByState :many
-- A page of what may be replayed, in the order of ids: not what is gone. Served by receipts_listing_by_state; whether a content was replayed
-- already, or is being replaced, by receipts_revision.
SELECT r.id, r.size
FROM receipts r
WHERE r.organization = @organization
  AND r.state = @state
  AND r.id > @after
  AND r.id <= @until
  AND r.raw NOT IN ('expired', 'erased', 'redacted')
  AND starts_with(r.key, @key_prefix)
  AND NOT EXISTS (
      SELECT 1
      FROM receipts later
      WHERE later.bucket = r.bucket
        AND later.key = r.key
        AND (later.tag = r.tag AND later.replay > r.replay
             OR r.hides = 'all_older' AND later.revision > r.revision AND later.state IN ('pending', 'done'))
  )
ORDER BY r.id
LIMIT @page_size;

-- name: ReplayableByID :many
-- Which of the given receipts may be replayed. Served by receipts_N_id and receipts_revision.
SELECT r.id, r.size
FROM receipts r
WHERE r.id = ANY (@ids::bigint[])
  AND r.organization = @organization
  AND r.state IN ('failed', 'skipped', 'done')
  AND (@state::text = '' OR r.state = @state)
  AND r.raw NOT IN ('expired', 'erased', 'redacted')
  AND starts_with(r.key, @key_prefix)
  AND NOT EXISTS (
      SELECT 1
      FROM receipts later
      WHERE later.bucket = r.bucket
        AND later.key = r.key
        AND (later.tag = r.tag AND later.replay > r.replay
             OR r.hides = 'all_older' AND later.revision > r.revision AND later.state IN ('pending', 'done'))
  )
ORDER BY r.id;

-- name: RetryReceipts :many
-- Another try of receipts that brought no rows. Served by receipts_N_id; bounded by the array.
UPDATE receipts
SET state = 'pending',
    reason = '',
    updated_at = clock_timestamp()
WHERE id = ANY (@ids::bigint[])
  AND state IN ('failed', 'skipped')
  AND rows_out = 0
RETURNING id;

-- name: ReviseReceipts :many
-- The next revision of the same content, for receipts that brought rows: its commit hides the older rows. When somebody else
-- made it first, or newer content is about to replace this, there is nothing to do. Served by receipts_N_id and receipts_revision; bounded by the array.
INSERT INTO receipts (
    id, organization, collector, signal, bucket, key, tag, size, last_modified, revision, replay, hides, state, reason, written_at,
    received_at
)
SELECT nextval('receipt_ids'),
       r.organization,
       r.collector,
       r.signal,
       r.bucket,
       r.key,
       r.tag,
       r.size,
       r.last_modified,
       1 + (
           SELECT max(o.revision)
           FROM receipts o
           WHERE o.bucket = r.bucket
             AND o.key = r.key
       ),
       r.replay + 1,
       CASE r.hides WHEN 'all_older' THEN r.hides ELSE 'same_content' END,
       'pending',
       '',
       r.written_at,
       (
           SELECT min(coalesce(o.received_at, least(o.last_modified, o.created_at)))
           FROM receipts o
           WHERE o.bucket = r.bucket
             AND o.key = r.key
       )
FROM receipts r
WHERE r.id = ANY (@ids::bigint[])
  AND (r.state = 'done' OR r.state = 'failed' AND r.rows_out > 0)
  AND NOT (
      r.hides = 'all_older'
      AND EXISTS (
          SELECT 1
          FROM receipts later
          WHERE later.bucket = r.bucket
            AND later.key = r.key
            AND later.revision > r.revision
            AND later.state IN ('pending', 'done')
      )
  )
ORDER BY r.bucket, r.key, r.replay
ON CONFLICT DO NOTHING
RETURNING id;
