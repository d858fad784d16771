-- SPDX-License-Identifier: AGPL-3.0-only

-- Version is asked every few seconds by every process; the table has one row.
-- name: Version :one
SELECT
    version
FROM config_version
LIMIT 1;

-- Bump locks the one row, so that changes happen one after the other.
-- name: Bump :one
UPDATE config_version
SET
    version = version + 1
RETURNING
    version;

-- Items returns the whole configuration; its primary key serves it.
-- name: Items :many
SELECT
    kind,
    name,
    body
FROM config_items
ORDER BY
    kind,
    position,
    name
LIMIT 100000;

-- name: PutItem :exec
INSERT INTO config_items (kind, name, position, body)
VALUES (@kind, @name, @position, @body)
ON CONFLICT (kind, name) DO UPDATE
SET
    position = excluded.position,
    body = excluded.body;

-- name: DeleteItem :exec
DELETE FROM config_items
WHERE
    kind = @kind
    AND name = @name;

-- An empty organization asks for the keys of all.
-- name: Keys :many
SELECT
    id,
    organization,
    scopes,
    hash,
    description,
    created_at
FROM config_api_keys
WHERE
    @organization = ''
    OR organization = @organization
ORDER BY
    created_at,
    id
LIMIT 100000;

-- name: InsertKey :one
INSERT INTO config_api_keys (id, organization, scopes, hash, description)
VALUES (@id, @organization, @scopes, @hash, @description)
RETURNING
    created_at;

-- name: DeleteKey :execrows
DELETE FROM config_api_keys
WHERE
    id = @id;
