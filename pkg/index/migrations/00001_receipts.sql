-- SPDX-License-Identifier: AGPL-3.0-only

-- +goose Up

-- Numbers receipts in all partitions; rows of segments carry these numbers.
CREATE SEQUENCE receipt_ids AS bigint;

-- One revision of one source object. Hashed by what an object is called, so that uniqueness holds over all partitions.
CREATE TABLE receipts (
    id            bigint      NOT NULL,
    organization  text        NOT NULL,
    collector     text        NOT NULL,
    signal        smallint    NOT NULL CHECK (signal BETWEEN 0 AND 3),
    bucket        text        NOT NULL,
    key           text        NOT NULL,
    tag           text        NOT NULL,
    size          bigint      NOT NULL,
    last_modified timestamptz,
    -- Counts what was received of one bucket and key, from 1.
    revision      integer     NOT NULL CHECK (revision > 0),
    -- Counts how often one content (tag) was received anew: a replay, or a write of what had been replaced.
    replay        integer     NOT NULL CHECK (replay >= 0),
    -- Whose rows this revision's commit hides: nobody's, those of the same content, those of all older revisions.
    hides         text        NOT NULL CHECK (hides IN ('nothing', 'same_content', 'all_older')),
    state         text        NOT NULL CHECK (state IN ('pending', 'done', 'skipped', 'failed', 'superseded')),
    reason        text        NOT NULL DEFAULT '',
    format        text        NOT NULL DEFAULT '',
    rows_in       bigint      NOT NULL DEFAULT 0,
    rows_out      bigint      NOT NULL DEFAULT 0,
    rejected      jsonb       NOT NULL DEFAULT '{}',
    attempts      integer     NOT NULL DEFAULT 0,
    -- The latest time at which the object's rows can have been written: the store's, or else that of the notice.
    written_at    timestamptz NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT receipts_revision UNIQUE (bucket, key, revision),
    CONSTRAINT receipts_content UNIQUE (bucket, key, tag, replay)
) PARTITION BY HASH (bucket, key);

-- +goose StatementBegin
DO $$
BEGIN
    FOR n IN 0..7 LOOP
        EXECUTE format('CREATE TABLE receipts_%s PARTITION OF receipts FOR VALUES WITH (MODULUS 8, REMAINDER %s)', n, n);
        -- By partition, since an index of all could not be unique; and unique, so that the planner needs no statistics to use it.
        EXECUTE format('CREATE UNIQUE INDEX receipts_%s_id ON receipts_%s (id)', n, n);
    END LOOP;
END
$$;
-- +goose StatementEnd

CREATE INDEX receipts_listing ON receipts (organization, id);
CREATE INDEX receipts_listing_by_state ON receipts (organization, state, id);
-- What an answer may lack: the few that are not done.
CREATE INDEX receipts_unfinished ON receipts (organization, state, signal, written_at) WHERE state IN ('pending', 'failed');
