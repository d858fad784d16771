-- SPDX-License-Identifier: AGPL-3.0-only

-- +goose Up

CREATE SEQUENCE segment_ids AS bigint;

-- By signal here, by month of the window below; the months are made when their first segment comes.
CREATE TABLE segments (
    id             bigint      NOT NULL,
    organization   text        NOT NULL,
    signal         smallint    NOT NULL,
    window_start   timestamptz NOT NULL,
    -- Nanoseconds. At most a day, which Lookup relies on: a window that began earlier than that does not reach a time.
    window_length  bigint      NOT NULL CHECK (window_length BETWEEN 1 AND 86400000000000),
    level          integer     NOT NULL,
    bucket         text        NOT NULL,
    key            text        NOT NULL,
    bytes          bigint      NOT NULL,
    sidecar_bytes  bigint      NOT NULL,
    row_count      bigint      NOT NULL,
    -- Event times in Unix nanoseconds, both inclusive: a timestamptz would round them.
    first_time     bigint      NOT NULL,
    last_time      bigint      NOT NULL,
    format_version integer     NOT NULL,
    row_hash       bigint      NOT NULL, -- the bits of a uint64
    -- Sources whose rows are not answered any more.
    masked_sources bigint[]    NOT NULL DEFAULT '{}',
    lease          text        NOT NULL, -- that added it
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Removal is a mark; the object goes after a grace.
    removed_at     timestamptz,
    removed_by     text        NOT NULL DEFAULT ''
) PARTITION BY LIST (signal);

CREATE TABLE segments_logs PARTITION OF segments FOR VALUES IN (1) PARTITION BY RANGE (window_start);
CREATE TABLE segments_metrics PARTITION OF segments FOR VALUES IN (2) PARTITION BY RANGE (window_start);
CREATE TABLE segments_spans PARTITION OF segments FOR VALUES IN (3) PARTITION BY RANGE (window_start);

CREATE INDEX segments_lookup ON segments (organization, window_start, first_time, last_time) WHERE removed_at IS NULL;
CREATE INDEX segments_id ON segments (id);
CREATE INDEX segments_removed ON segments (removed_at, id) WHERE removed_at IS NOT NULL;

-- Which segments hold rows of which receipts.
CREATE TABLE segment_sources (
    receipt      bigint      NOT NULL,
    segment      bigint      NOT NULL,
    signal       smallint    NOT NULL,
    window_start timestamptz NOT NULL,
    PRIMARY KEY (receipt, segment)
) PARTITION BY HASH (receipt);

-- +goose StatementBegin
DO $$
BEGIN
    FOR n IN 0..7 LOOP
        EXECUTE format('CREATE TABLE segment_sources_%s PARTITION OF segment_sources FOR VALUES WITH (MODULUS 8, REMAINDER %s)', n, n);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- How often the rows of an hour changed. The version of a longer window is the sum of its hours'.
CREATE TABLE window_versions (
    organization text        NOT NULL,
    signal       smallint    NOT NULL,
    hour         timestamptz NOT NULL,
    version      bigint      NOT NULL,
    PRIMARY KEY (organization, signal, hour)
);

-- Makes the partition of a month of a signal's segments. Attaching takes no lock that a reader or writer would wait for;
-- the advisory lock lets one process at a time make partitions.
-- +goose StatementBegin
CREATE FUNCTION make_segment_month(parent text, month_start timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    month timestamp := date_trunc('month', month_start AT TIME ZONE 'UTC');
    name  text := format('%s_%s', parent, to_char(month, 'YYYYMM'));
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('lakerunner.segments'));
    IF EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = parent::regclass AND inhrelid = to_regclass(name)) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, parent);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        parent, name, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
END
$$;
-- +goose StatementEnd
