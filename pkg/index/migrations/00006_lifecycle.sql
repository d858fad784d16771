-- SPDX-License-Identifier: AGPL-3.0-only

-- +goose Up

-- The highest number of a delete whose rows are not in the file any more, the field rules that were applied, sorted, and whether
-- rows have an identity.
ALTER TABLE segments
    ADD COLUMN applied_delete bigint  NOT NULL DEFAULT 0,
    ADD COLUMN rules          text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN identified     boolean NOT NULL DEFAULT false;

-- Segments that compaction has not settled: those of level 0, and small ones of windows shorter than a day.
CREATE INDEX segments_debt ON segments (organization, window_start, window_length, level, bytes)
    WHERE removed_at IS NULL AND (level = 0 OR bytes < 67108864 AND window_length < 86400000000000);

-- Removed segments of one organization, in the order of their removal.
CREATE INDEX segments_removed_of ON segments (organization, removed_at, id) WHERE removed_at IS NOT NULL;

-- The sources of a segment.
CREATE INDEX segment_sources_segment ON segment_sources (segment);

-- How many live segments there are. Commit counts them, in the same transaction.
CREATE TABLE segment_totals (
    organization text     NOT NULL,
    signal       smallint NOT NULL,
    segments     bigint   NOT NULL,
    bytes        bigint   NOT NULL, -- sidecars included
    row_count    bigint   NOT NULL,
    PRIMARY KEY (organization, signal)
) WITH (fillfactor = 50);

INSERT INTO segment_totals (organization, signal, segments, bytes, row_count)
SELECT organization, signal, count(*), sum(bytes + sidecar_bytes), sum(row_count)
FROM segments
WHERE removed_at IS NULL
GROUP BY organization, signal;

-- What became of the source object, and when anything of its bucket and key first was received or written (NULL: by a binary that
-- did not note it).
ALTER TABLE receipts
    ADD COLUMN raw         text        NOT NULL DEFAULT '' CHECK (raw IN ('', 'moving', 'moved', 'expired', 'erased', 'redacted')),
    ADD COLUMN received_at timestamptz;

-- The folders that the lease's worker was about to put files into.
ALTER TABLE leases ADD COLUMN folders text[] NOT NULL DEFAULT '{}';

CREATE SEQUENCE delete_ids AS bigint;

-- Deletes of data. Numbers rise in the order of commits, see rule 10.
CREATE TABLE deletes (
    id           bigint      PRIMARY KEY,
    organization text        NOT NULL,
    signal       smallint    NOT NULL CHECK (signal BETWEEN 1 AND 3),
    selector     text        NOT NULL,
    -- Event times in Unix nanoseconds: from, inclusive, and until, exclusive.
    start_time   bigint      NOT NULL,
    end_time     bigint      NOT NULL,
    sources      text        NOT NULL CHECK (sources IN ('leave', 'erase', 'redact')),
    state        text        NOT NULL DEFAULT 'rewriting' CHECK (state IN ('rewriting', 'sweeping', 'done')),
    actor        text        NOT NULL,
    reason       text        NOT NULL,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL
);

CREATE INDEX deletes_listing ON deletes (organization, id);
CREATE INDEX deletes_masking ON deletes (organization, signal, id);

-- The rows that a delete kept from being written anew, by the source object that they came from and the segment that they were
-- in (0: none, they were left out at ingest).
CREATE TABLE delete_rows (
    delete_id bigint NOT NULL,
    source    bigint NOT NULL,
    segment   bigint NOT NULL,
    row_count bigint NOT NULL,
    lease     text   NOT NULL,
    PRIMARY KEY (delete_id, source, segment)
);

-- The segments that held such rows; they outlive the segments' own rows.
CREATE TABLE delete_segments (
    delete_id  bigint      NOT NULL,
    segment    bigint      NOT NULL,
    bucket     text        NOT NULL,
    key        text        NOT NULL,
    row_count  bigint      NOT NULL,
    removed_at timestamptz NOT NULL,
    -- When the files were seen to be gone.
    gone_at    timestamptz,
    PRIMARY KEY (delete_id, segment)
);

CREATE INDEX delete_segments_segment ON delete_segments (segment) WHERE gone_at IS NULL;

-- What was done to the source objects.
CREATE TABLE delete_sources (
    delete_id bigint      NOT NULL,
    receipt   bigint      NOT NULL,
    action    text        NOT NULL,
    done_at   timestamptz NOT NULL,
    PRIMARY KEY (delete_id, receipt)
);

-- What work asked of object stores, by the database's day. The first requests of a day make a row, the others add to it.
CREATE TABLE costs (
    organization  text   NOT NULL,
    day           date   NOT NULL,
    kind          text   NOT NULL,
    puts          bigint NOT NULL,
    gets          bigint NOT NULL,
    lists         bigint NOT NULL,
    deletes       bigint NOT NULL,
    bytes_read    bigint NOT NULL,
    bytes_written bigint NOT NULL,
    PRIMARY KEY (organization, day, kind)
) WITH (fillfactor = 50);
