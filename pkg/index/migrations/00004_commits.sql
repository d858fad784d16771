-- SPDX-License-Identifier: AGPL-3.0-only

-- +goose Up

-- What follows each commit into the bucket: written in the commit's transaction, removed when it has arrived there.
CREATE TABLE commit_records (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lease        text        NOT NULL UNIQUE,
    organization text        NOT NULL,
    record       jsonb       NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
