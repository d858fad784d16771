-- SPDX-License-Identifier: AGPL-3.0-only
-- configdb. All names begin with config_, so that it may share a database with lrdb.

-- +goose Up

-- One row. Every change adds one to the version; who follows configdb asks for it.
CREATE TABLE config_version (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL
);
INSERT INTO config_version (version) VALUES (1);

-- Organizations, storage profiles, and the settings that stand alone ('settings', with the name ''), each as the YAML of its form.
CREATE TABLE config_items (
    kind text NOT NULL CHECK (kind IN ('organization', 'storage_profile', 'settings')),
    name text NOT NULL,
    position integer NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE config_api_keys (
    id text PRIMARY KEY,
    organization text NOT NULL,
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0),
    hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    description text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
