-- SPDX-License-Identifier: AGPL-3.0-only

-- +goose Up

-- One piece of work. A task is one row for its whole life, whatever its state: so one piece of work is never leased twice.
CREATE TABLE tasks (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text        NOT NULL,
    organization  text        NOT NULL,
    signal        smallint    NOT NULL CHECK (signal BETWEEN 0 AND 3),
    window_start  timestamptz NOT NULL,
    window_length bigint      NOT NULL, -- nanoseconds; 0: the task is not a window's
    tier          integer     NOT NULL,
    receipt       bigint      NOT NULL, -- 0: the task is not a receipt's
    bytes         bigint      NOT NULL CHECK (bytes >= 0),
    state         text        NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'leased', 'buried')),
    -- Asked for once more while it was leased: when it is finished it becomes ready again.
    again         boolean     NOT NULL DEFAULT false,
    lease         text        NOT NULL DEFAULT '',
    -- Tasks under suspicion of killing their worker are claimed together with those of the same name, and with no others.
    suspects      text        NOT NULL DEFAULT '',
    attempts      integer     NOT NULL DEFAULT 0,
    -- Attempts that failed with this task alone to blame.
    failures      integer     NOT NULL DEFAULT 0,
    cause         text        NOT NULL DEFAULT '',
    not_before    timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT tasks_work UNIQUE (kind, organization, signal, window_start, window_length, tier, receipt),
    CHECK ((state = 'leased') = (lease <> ''))
);

-- The oldest task of a group, and the next group.
CREATE INDEX tasks_ready ON tasks (kind, organization, signal, not_before, id) WHERE state = 'ready';
-- A batch.
CREATE INDEX tasks_batch ON tasks (kind, organization, signal, suspects, not_before, id) WHERE state = 'ready';
CREATE INDEX tasks_lease ON tasks (lease) WHERE lease <> '';
CREATE INDEX tasks_receipt ON tasks (receipt) WHERE receipt <> 0;

-- When a group of tasks was last served, for fairness.
CREATE TABLE services (
    kind         text        NOT NULL,
    organization text        NOT NULL,
    signal       smallint    NOT NULL,
    served_at    timestamptz NOT NULL,
    PRIMARY KEY (kind, organization, signal)
);

-- A lease stays after its end: a committed one so that its commit can be asked again, the others so that their key space can be swept.
CREATE TABLE leases (
    id           text        PRIMARY KEY,
    kind         text        NOT NULL,
    organization text        NOT NULL,
    signal       smallint    NOT NULL,
    state        text        NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'committed', 'released', 'expired')),
    tasks        integer     NOT NULL,
    duration     bigint      NOT NULL, -- nanoseconds
    max_attempts integer     NOT NULL,
    claimed_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    -- Hash of the edit that was committed; empty: none was.
    edit         bytea       NOT NULL DEFAULT ''
);

CREATE INDEX leases_live ON leases (expires_at, id) WHERE state = 'live';
CREATE INDEX leases_abandoned ON leases (ended_at, id) WHERE state IN ('released', 'expired');
