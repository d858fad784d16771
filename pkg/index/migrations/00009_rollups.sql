-- SPDX-License-Identifier: AGPL-3.0-only

-- +goose Up

-- Nanoseconds; 0: rows as they came. And the part of the series that is in the segment; a count of 0: all.
ALTER TABLE segments
    ADD COLUMN resolution  bigint  NOT NULL DEFAULT 0,
    ADD COLUMN shard_index integer NOT NULL DEFAULT 0,
    ADD COLUMN shard_count integer NOT NULL DEFAULT 0;

-- Segments of rollups stand apart from those of rows, under their signal and ten: whoever asks for a signal's rows, of this release or
-- the one before, does not come by them. docs/adr/0014 says more.
CREATE TABLE segments_rollups PARTITION OF segments FOR VALUES IN (11, 12, 13) PARTITION BY RANGE (window_start);

CREATE INDEX segments_rollups_lookup ON segments_rollups (organization, signal, resolution, window_start) WHERE removed_at IS NULL;

-- What is known of the rollup of a window at a resolution. It is current while it is 'rolled', the window's hours have its version, and no
-- later delete than its applied one overlaps.
CREATE TABLE rollups (
    organization   text        NOT NULL,
    signal         smallint    NOT NULL,
    resolution     bigint      NOT NULL CHECK (resolution > 0), -- nanoseconds
    window_start   timestamptz NOT NULL,
    window_length  bigint      NOT NULL, -- nanoseconds: an hour or a day
    -- The sum of the hours' versions that it was made of.
    version        bigint      NOT NULL,
    applied_delete bigint      NOT NULL,
    -- skipped: the rows are no finer than it. dropped: its files went because of a delete. expired: they went by retention.
    state          text        NOT NULL CHECK (state IN ('rolled', 'skipped', 'dropped', 'expired')),
    lease          text        NOT NULL, -- that said so
    rolled_at      timestamptz NOT NULL,
    PRIMARY KEY (organization, signal, resolution, window_start, window_length)
);

-- quiet counts what a rollup outlives: retention that removes rows, and adoption. The version of an hour is the sum of both counts; a rollup
-- is held against the first alone. expired: retention has removed rows of the hour, so that what is left is not all; what happens to its rows
-- from then on is quiet.
ALTER TABLE window_versions
    ADD COLUMN quiet   bigint  NOT NULL DEFAULT 0,
    ADD COLUMN expired boolean NOT NULL DEFAULT false;

-- Runs of rollups stand under their signal and ten as well.
ALTER TABLE retention_runs ADD COLUMN resolution bigint NOT NULL DEFAULT 0;

-- The rest of the rows that a record tells of: the hours whose versions the transaction locked, and the rollups that a lease wrote. Served by
-- the primary keys of the two tables.
-- +goose StatementBegin
CREATE FUNCTION recorded_windows(
    of_organization text, of_lease text, signals smallint[], hours timestamptz[], rollup_signals smallint[], resolutions bigint[], starts timestamptz[]
) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'window_versions', (
            SELECT jsonb_agg(to_jsonb(v) ORDER BY v.signal, v.hour)
            FROM unnest(signals, hours) AS h (signal, hour)
            JOIN window_versions v ON v.organization = of_organization AND v.signal = h.signal AND v.hour = h.hour
        ),
        'rollups', (
            SELECT jsonb_agg(to_jsonb(r) ORDER BY r.signal, r.resolution, r.window_start, r.window_length)
            FROM unnest(rollup_signals, resolutions, starts) AS k (signal, resolution, window_start)
            JOIN rollups r
              ON r.organization = of_organization AND r.signal = k.signal AND r.resolution = k.resolution AND r.window_start = k.window_start
            WHERE r.lease = of_lease
        )
    )
$$;
-- +goose StatementEnd

-- As before, and knows resolutions, rollups and both counts of versions. A record that does not tell the versions of its windows has its
-- segments named as 'unversioned' besides.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION adopt_rows(of_organization text, of_table text, new_rows jsonb) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    added   bigint := 0;
    changed bigint := 0;
BEGIN
    CASE of_table
    WHEN 'segments' THEN
        -- In each month served by segments_id.
        WITH inserted AS (
            INSERT INTO segments (
                id, organization, signal, window_start, window_length, level, bucket, key, bytes, sidecar_bytes, row_count, first_time, last_time,
                format_version, row_hash, masked_sources, applied_delete, rules, identified, lease, created_at, removed_at, removed_by, missing_since,
                resolution, shard_index, shard_count
            )
            SELECT s.id, s.organization, s.signal, s.window_start, s.window_length, s.level, s.bucket, s.key, s.bytes, s.sidecar_bytes, s.row_count,
                   s.first_time, s.last_time, s.format_version, s.row_hash, coalesce(s.masked_sources, '{}'), coalesce(s.applied_delete, 0),
                   coalesce(s.rules, '{}'), coalesce(s.identified, false), s.lease, s.created_at, s.removed_at, coalesce(s.removed_by, ''),
                   s.missing_since, coalesce(s.resolution, 0), coalesce(s.shard_index, 0), coalesce(s.shard_count, 0)
            FROM jsonb_populate_recordset(NULL::segments, new_rows) s
            WHERE s.organization = of_organization
              AND NOT EXISTS (SELECT 1 FROM segments k WHERE k.signal = s.signal AND k.window_start = s.window_start AND k.id = s.id)
            RETURNING signal, bytes + sidecar_bytes AS bytes, row_count, removed_at
        ), counted AS (
            INSERT INTO segment_totals (organization, signal, segments, bytes, row_count)
            SELECT of_organization, i.signal, count(*), sum(i.bytes), sum(i.row_count)
            FROM inserted i
            WHERE i.removed_at IS NULL
            GROUP BY i.signal
            ORDER BY i.signal
            ON CONFLICT (organization, signal) DO UPDATE
            SET segments = segment_totals.segments + excluded.segments,
                bytes = segment_totals.bytes + excluded.bytes,
                row_count = segment_totals.row_count + excluded.row_count
        )
        SELECT count(*) INTO added FROM inserted;
        INSERT INTO segment_sources (receipt, segment, signal, window_start)
        SELECT source::bigint, s.id, s.signal, s.window_start
        FROM jsonb_to_recordset(new_rows) AS s (id bigint, organization text, signal smallint, window_start timestamptz, sources jsonb)
        CROSS JOIN LATERAL jsonb_array_elements_text(CASE jsonb_typeof(s.sources) WHEN 'array' THEN s.sources ELSE '[]' END) AS e (source)
        WHERE s.organization = of_organization
        ORDER BY 1, 2
        ON CONFLICT DO NOTHING;
        WITH removed AS (
            UPDATE segments
            SET removed_at = s.removed_at,
                removed_by = coalesce(s.removed_by, '')
            FROM jsonb_populate_recordset(NULL::segments, new_rows) s
            WHERE s.organization = of_organization
              AND s.removed_at IS NOT NULL
              AND segments.signal = s.signal
              AND segments.window_start = s.window_start
              AND segments.id = s.id
              AND segments.removed_at IS NULL
            RETURNING segments.signal, segments.bytes + segments.sidecar_bytes AS bytes, segments.row_count
        ), counted AS (
            INSERT INTO segment_totals (organization, signal, segments, bytes, row_count)
            SELECT of_organization, r.signal, -count(*), -sum(r.bytes), -sum(r.row_count)
            FROM removed r
            GROUP BY r.signal
            ORDER BY r.signal
            ON CONFLICT (organization, signal) DO UPDATE
            SET segments = segment_totals.segments + excluded.segments,
                bytes = segment_totals.bytes + excluded.bytes,
                row_count = segment_totals.row_count + excluded.row_count
        )
        SELECT count(*) INTO changed FROM removed;
        UPDATE segments
        SET masked_sources = ARRAY(SELECT DISTINCT m.source FROM unnest(segments.masked_sources || coalesce(s.masked_sources, '{}')) AS m (source) ORDER BY 1),
            applied_delete = greatest(segments.applied_delete, coalesce(s.applied_delete, 0)),
            rules = ARRAY(SELECT DISTINCT r.rule FROM unnest(segments.rules || coalesce(s.rules, '{}')) AS r (rule) ORDER BY 1)
        FROM jsonb_populate_recordset(NULL::segments, new_rows) s
        WHERE s.organization = of_organization
          AND segments.signal = s.signal
          AND segments.window_start = s.window_start
          AND segments.id = s.id
          AND (NOT segments.masked_sources @> coalesce(s.masked_sources, '{}')
               OR segments.applied_delete < coalesce(s.applied_delete, 0)
               OR NOT segments.rules @> coalesce(s.rules, '{}'));
        -- Whoever read the windows before may not commit what he derived from them. Which hours have rows, and how often these changed, is
        -- told by window_versions.
        WITH hours AS MATERIALIZED (
            SELECT DISTINCT s.signal, h.hour
            FROM jsonb_to_recordset(new_rows) AS s (organization text, signal smallint, window_start timestamptz, window_length bigint)
            CROSS JOIN LATERAL generate_series(
                date_trunc('hour', s.window_start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC',
                s.window_start + interval '1 microsecond' * (s.window_length / 1000 - 1),
                interval '1 hour'
            ) AS h (hour)
            WHERE s.organization = of_organization
        ), locked AS MATERIALIZED (
            SELECT v.signal, v.hour
            FROM window_versions v
            JOIN hours h ON h.signal = v.signal AND h.hour = v.hour
            WHERE v.organization = of_organization
              AND v.version + v.quiet > 0
            ORDER BY v.signal, v.hour
            FOR UPDATE OF v
        )
        UPDATE window_versions
        SET quiet = window_versions.quiet + 1
        FROM locked
        WHERE window_versions.organization = of_organization
          AND window_versions.signal = locked.signal
          AND window_versions.hour = locked.hour;
    WHEN 'unversioned' THEN
        -- Segments of records that do not tell the versions of their windows: no version that a rollup was made from is reached any more.
        INSERT INTO window_versions (organization, signal, hour, version)
        SELECT DISTINCT of_organization, s.signal, h.hour, 1099511627776::bigint
        FROM jsonb_to_recordset(new_rows) AS s (organization text, signal smallint, window_start timestamptz, window_length bigint)
        CROSS JOIN LATERAL generate_series(
            date_trunc('hour', s.window_start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC',
            s.window_start + interval '1 microsecond' * (s.window_length / 1000 - 1),
            interval '1 hour'
        ) AS h (hour)
        WHERE s.organization = of_organization
        ORDER BY 2, 3
        ON CONFLICT (organization, signal, hour) DO UPDATE
        SET version = window_versions.version + excluded.version;
        GET DIAGNOSTICS added = ROW_COUNT;
    WHEN 'receipts' THEN
        -- Served by receipts_revision.
        WITH newest AS (
            SELECT DISTINCT ON (r.id) r.*
            FROM jsonb_populate_recordset(NULL::receipts, new_rows) r
            WHERE r.organization = of_organization
            ORDER BY r.id, r.updated_at DESC
        ), merged AS (
            INSERT INTO receipts (
                id, organization, collector, signal, bucket, key, tag, size, last_modified, revision, replay, hides, state, reason, format, rows_in,
                rows_out, rejected, attempts, written_at, created_at, updated_at, raw, received_at
            )
            SELECT n.id, n.organization, n.collector, n.signal, n.bucket, n.key, n.tag, n.size, n.last_modified, n.revision, n.replay, n.hides,
                   n.state, n.reason, n.format, n.rows_in, n.rows_out, n.rejected, n.attempts, n.written_at, n.created_at, n.updated_at,
                   coalesce(n.raw, ''), n.received_at
            FROM newest n
            ORDER BY n.bucket, n.key, n.revision
            ON CONFLICT (bucket, key, revision) DO UPDATE
            SET state = excluded.state,
                signal = excluded.signal,
                reason = excluded.reason,
                format = excluded.format,
                rows_in = excluded.rows_in,
                rows_out = excluded.rows_out,
                rejected = excluded.rejected,
                attempts = excluded.attempts,
                updated_at = excluded.updated_at,
                raw = excluded.raw
            WHERE receipts.id = excluded.id
              AND excluded.updated_at > receipts.updated_at
            RETURNING id
        )
        SELECT count(*) INTO added FROM merged;
    WHEN 'deletes' THEN
        WITH newest AS (
            SELECT DISTINCT ON (d.id) d.*
            FROM jsonb_populate_recordset(NULL::deletes, new_rows) d
            WHERE d.organization = of_organization
            ORDER BY d.id, d.updated_at DESC
        ), merged AS (
            INSERT INTO deletes (id, organization, signal, selector, start_time, end_time, sources, state, actor, reason, created_at, updated_at)
            SELECT n.id, n.organization, n.signal, n.selector, n.start_time, n.end_time, n.sources, n.state, n.actor, n.reason, n.created_at, n.updated_at
            FROM newest n
            ORDER BY n.id
            ON CONFLICT (id) DO UPDATE
            SET state = excluded.state,
                updated_at = excluded.updated_at
            WHERE excluded.updated_at > deletes.updated_at
            RETURNING signal, start_time, end_time, (xmax = 0) AS fresh
        ), bumped AS (
            UPDATE window_versions
            SET quiet = window_versions.quiet + 1
            WHERE window_versions.organization = of_organization
              AND window_versions.version + window_versions.quiet > 0
              AND EXISTS (
                  SELECT 1
                  FROM merged m
                  WHERE m.fresh
                    AND m.signal = window_versions.signal
                    AND to_timestamp(m.start_time / 1e9) < window_versions.hour + interval '1 hour'
                    AND to_timestamp(m.end_time / 1e9) >= window_versions.hour
              )
        )
        SELECT count(*) FILTER (WHERE m.fresh), count(*) FILTER (WHERE NOT m.fresh) INTO added, changed FROM merged m;
    WHEN 'delete_rows' THEN
        -- Of two counts the later lease's stands: leases sort by the time of their claim.
        INSERT INTO delete_rows (delete_id, source, segment, row_count, lease)
        SELECT DISTINCT ON (d.delete_id, d.source, d.segment) d.delete_id, d.source, d.segment, d.row_count, d.lease
        FROM jsonb_populate_recordset(NULL::delete_rows, new_rows) d
        ORDER BY d.delete_id, d.source, d.segment, d.lease DESC
        ON CONFLICT (delete_id, source, segment) DO UPDATE
        SET row_count = excluded.row_count,
            lease = excluded.lease
        WHERE excluded.lease > delete_rows.lease;
        GET DIAGNOSTICS added = ROW_COUNT;
    WHEN 'delete_segments' THEN
        INSERT INTO delete_segments (delete_id, segment, bucket, key, row_count, removed_at, gone_at)
        SELECT DISTINCT ON (d.delete_id, d.segment) d.delete_id, d.segment, d.bucket, d.key, d.row_count, d.removed_at, d.gone_at
        FROM jsonb_populate_recordset(NULL::delete_segments, new_rows) d
        ORDER BY d.delete_id, d.segment, d.gone_at
        ON CONFLICT (delete_id, segment) DO UPDATE
        SET gone_at = excluded.gone_at
        WHERE delete_segments.gone_at IS NULL
          AND excluded.gone_at IS NOT NULL;
        GET DIAGNOSTICS added = ROW_COUNT;
    WHEN 'delete_sources' THEN
        INSERT INTO delete_sources (delete_id, receipt, action, done_at)
        SELECT DISTINCT ON (d.delete_id, d.receipt) d.delete_id, d.receipt, d.action, d.done_at
        FROM jsonb_populate_recordset(NULL::delete_sources, new_rows) d
        ORDER BY d.delete_id, d.receipt, d.done_at DESC
        ON CONFLICT (delete_id, receipt) DO UPDATE
        SET action = excluded.action,
            done_at = excluded.done_at
        WHERE excluded.done_at > delete_sources.done_at;
        GET DIAGNOSTICS added = ROW_COUNT;
    WHEN 'leases' THEN
        -- One that lived has ended by now: without a commit, unless a record says so.
        INSERT INTO leases (id, kind, organization, signal, state, tasks, duration, max_attempts, claimed_at, expires_at, ended_at, edit, folders)
        SELECT DISTINCT ON (l.id) l.id, l.kind, l.organization, l.signal, CASE l.state WHEN 'live' THEN 'expired' ELSE l.state END, l.tasks, l.duration,
               l.max_attempts, l.claimed_at, l.expires_at, coalesce(l.ended_at, clock_timestamp()), coalesce(l.edit, ''), coalesce(l.folders, '{}')
        FROM jsonb_populate_recordset(NULL::leases, new_rows) l
        WHERE l.organization = of_organization
        ORDER BY l.id, (l.state = 'committed') DESC, (l.state = 'live')
        ON CONFLICT (id) DO UPDATE
        SET state = excluded.state,
            ended_at = excluded.ended_at,
            edit = excluded.edit,
            folders = excluded.folders
        WHERE leases.state = 'live'
           OR leases.state <> 'committed' AND excluded.state = 'committed';
        GET DIAGNOSTICS added = ROW_COUNT;
        UPDATE tasks
        SET state = 'ready',
            lease = ''
        FROM jsonb_populate_recordset(NULL::leases, new_rows) l
        WHERE tasks.lease = l.id
          AND tasks.lease <> '';
    WHEN 'retention_runs' THEN
        INSERT INTO retention_runs (
            id, organization, signal, cutoff, selector, started_at, finished_at, due_segments, due_rows, due_bytes, removed_segments, removed_rows,
            removed_bytes, gone_segments, gone_rows, gone_bytes, deleted_segments, deleted_rows, deleted_bytes, windows_to_rewrite, resolution
        )
        SELECT r.id, r.organization, r.signal, r.cutoff, r.selector, r.started_at, r.finished_at, r.due_segments, r.due_rows, r.due_bytes,
               r.removed_segments, r.removed_rows, r.removed_bytes, r.gone_segments, r.gone_rows, r.gone_bytes, r.deleted_segments, r.deleted_rows,
               r.deleted_bytes, r.windows_to_rewrite, coalesce(r.resolution, 0)
        FROM jsonb_populate_recordset(NULL::retention_runs, new_rows) r
        WHERE r.organization = of_organization
        ORDER BY r.id
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS added = ROW_COUNT;
    WHEN 'retention_leases' THEN
        INSERT INTO retention_leases (lease, run)
        SELECT l.lease, l.run
        FROM jsonb_populate_recordset(NULL::retention_leases, new_rows) l
        ORDER BY l.lease
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS added = ROW_COUNT;
    WHEN 'audit_log' THEN
        INSERT INTO audit_log (id, organization, at, actor, action, subject, detail, previous_hash, hash)
        SELECT a.id, a.organization, a.at, a.actor, a.action, a.subject, a.detail, a.previous_hash, a.hash
        FROM jsonb_populate_recordset(NULL::audit_log, new_rows) a
        WHERE a.organization = of_organization
        ORDER BY a.id
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS added = ROW_COUNT;
    WHEN 'window_versions' THEN
        INSERT INTO window_versions (organization, signal, hour, version, quiet, expired)
        SELECT v.organization, v.signal, v.hour, max(v.version), max(coalesce(v.quiet, 0)), bool_or(coalesce(v.expired, false))
        FROM jsonb_populate_recordset(NULL::window_versions, new_rows) v
        WHERE v.organization = of_organization
        GROUP BY v.organization, v.signal, v.hour
        ORDER BY v.signal, v.hour
        ON CONFLICT (organization, signal, hour) DO UPDATE
        SET version = greatest(window_versions.version, excluded.version),
            quiet = greatest(window_versions.quiet, excluded.quiet),
            expired = window_versions.expired OR excluded.expired;
        GET DIAGNOSTICS added = ROW_COUNT;
    WHEN 'rollups' THEN
        INSERT INTO rollups (organization, signal, resolution, window_start, window_length, version, applied_delete, state, lease, rolled_at)
        SELECT DISTINCT ON (r.signal, r.resolution, r.window_start, r.window_length)
               r.organization, r.signal, r.resolution, r.window_start, r.window_length, r.version, r.applied_delete, r.state, r.lease, r.rolled_at
        FROM jsonb_populate_recordset(NULL::rollups, new_rows) r
        WHERE r.organization = of_organization
        ORDER BY r.signal, r.resolution, r.window_start, r.window_length, r.rolled_at DESC
        ON CONFLICT (organization, signal, resolution, window_start, window_length) DO UPDATE
        SET version = excluded.version,
            applied_delete = excluded.applied_delete,
            state = excluded.state,
            lease = excluded.lease,
            rolled_at = excluded.rolled_at
        WHERE excluded.rolled_at > rollups.rolled_at;
        GET DIAGNOSTICS added = ROW_COUNT;
    ELSE
        RAISE EXCEPTION 'no rows of table % can be adopted', of_table USING ERRCODE = '22023';
    END CASE;
    RETURN ARRAY[added, changed];
END
$$;
-- +goose StatementEnd

-- Makes the partitions of segments that are to be adopted.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION make_adopted_months(new_rows jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT DISTINCT s.signal, date_trunc('month', s.window_start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS month
        FROM jsonb_to_recordset(new_rows) AS s (signal smallint, window_start timestamptz)
        ORDER BY 1, 2
    LOOP
        PERFORM make_segment_month(
            CASE wanted.signal WHEN 1 THEN 'segments_logs' WHEN 2 THEN 'segments_metrics' WHEN 3 THEN 'segments_spans' ELSE 'segments_rollups' END,
            wanted.month
        );
    END LOOP;
END
$$;
-- +goose StatementEnd

-- As before, of rollups too.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION drop_segment_month(name text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    used   boolean;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('lakerunner.segments')) THEN
        RETURN false;
    END IF;
    SELECT p.relname INTO parent
    FROM pg_inherits i
    JOIN pg_class p ON p.oid = i.inhparent
    WHERE i.inhrelid = to_regclass(quote_ident(name)) AND p.relname IN ('segments_logs', 'segments_metrics', 'segments_spans', 'segments_rollups');
    IF parent IS NULL THEN
        RETURN false;
    END IF;
    -- Whoever reads segments locks the parent first.
    PERFORM set_config('lock_timeout', '1s', true);
    EXECUTE format('LOCK TABLE ONLY %I, %I IN ACCESS EXCLUSIVE MODE', parent, name);
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I)', name) INTO used;
    IF used THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, name);
    EXECUTE format('DROP TABLE %I', name);
    RETURN true;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN false;
END
$$;
-- +goose StatementEnd

-- As before, of rollups too.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION segment_months() RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('parent', p.relname, 'name', c.relname, 'month', right(c.relname, 6)) ORDER BY p.relname, c.relname), '[]')
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    JOIN pg_class p ON p.oid = i.inhparent
    WHERE p.relname IN ('segments_logs', 'segments_metrics', 'segments_spans', 'segments_rollups')
      AND c.relkind = 'r'
$$;
-- +goose StatementEnd
