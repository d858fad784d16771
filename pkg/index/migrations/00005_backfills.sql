-- SPDX-License-Identifier: AGPL-3.0-only

-- +goose Up

CREATE TABLE backfills (
    id                 bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket             text        NOT NULL,
    prefix             text        NOT NULL,
    modified_after     timestamptz,
    modified_before    timestamptz,
    objects_per_second integer     NOT NULL CHECK (objects_per_second >= 0),
    state              text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'done', 'failed')),
    reason             text        NOT NULL DEFAULT '',
    estimate           jsonb       NOT NULL DEFAULT '{}',
    -- The driver's place in its listing.
    cursor             text        NOT NULL DEFAULT '',
    objects_done       bigint      NOT NULL DEFAULT 0,
    bytes_done         bigint      NOT NULL DEFAULT 0,
    lease              text        NOT NULL DEFAULT '',
    lease_expires_at   timestamptz NOT NULL DEFAULT 'epoch',
    created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX backfills_running ON backfills (lease_expires_at, id) WHERE state = 'running';
