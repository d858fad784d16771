-- SPDX-License-Identifier: AGPL-3.0-only

-- +goose Up

-- When a live segment's file was seen not to be there.
ALTER TABLE segments ADD COLUMN missing_since timestamptz;

CREATE INDEX segments_missing ON segments (organization, id) WHERE missing_since IS NOT NULL AND removed_at IS NULL;

CREATE INDEX leases_listing ON leases (organization, id);
-- Leases of one organization whose files are to be swept.
CREATE INDEX leases_abandoned_of ON leases (organization, ended_at, id) WHERE state IN ('released', 'expired');
-- Old leases, to be forgotten.
CREATE INDEX leases_committed ON leases (ended_at, id) WHERE state = 'committed';

-- Source objects that are kept, by when they were written.
CREATE INDEX receipts_raw ON receipts (organization, bucket, written_at, id) INCLUDE (state, size) WHERE raw IN ('', 'moving');
-- Receipts of objects that are no more.
CREATE INDEX receipts_gone ON receipts (updated_at, id) WHERE raw IN ('expired', 'erased', 'redacted');

CREATE SEQUENCE retention_run_ids AS bigint;

-- One run of retention and its proof: what was due, removed from the index, deleted from the bucket, seen to be gone.
CREATE TABLE retention_runs (
    id                 bigint      PRIMARY KEY,
    organization       text        NOT NULL,
    signal             smallint    NOT NULL,
    cutoff             timestamptz NOT NULL,
    selector           text        NOT NULL,
    started_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at        timestamptz,
    due_segments       bigint      NOT NULL,
    due_rows           bigint      NOT NULL,
    due_bytes          bigint      NOT NULL,
    removed_segments   bigint      NOT NULL DEFAULT 0,
    removed_rows       bigint      NOT NULL DEFAULT 0,
    removed_bytes      bigint      NOT NULL DEFAULT 0,
    gone_segments      bigint      NOT NULL DEFAULT 0,
    gone_rows          bigint      NOT NULL DEFAULT 0,
    gone_bytes         bigint      NOT NULL DEFAULT 0,
    deleted_segments   bigint      NOT NULL DEFAULT 0,
    deleted_rows       bigint      NOT NULL DEFAULT 0,
    deleted_bytes      bigint      NOT NULL DEFAULT 0,
    windows_to_rewrite bigint      NOT NULL DEFAULT 0
);

CREATE INDEX retention_runs_listing ON retention_runs (organization, id);

-- Which leases removed segments for which run.
CREATE TABLE retention_leases (
    lease text   PRIMARY KEY,
    run   bigint NOT NULL
);

CREATE INDEX retention_leases_run ON retention_leases (run);

CREATE SEQUENCE audit_ids AS bigint;

-- What was done, each entry chained by its hash to the one before of the same organization.
CREATE TABLE audit_log (
    id            bigint      PRIMARY KEY,
    at            timestamptz NOT NULL,
    actor         text        NOT NULL,
    organization  text        NOT NULL,
    action        text        NOT NULL,
    subject       text        NOT NULL,
    detail        text        NOT NULL,
    previous_hash text        NOT NULL,
    hash          text        NOT NULL
);

CREATE INDEX audit_log_listing ON audit_log (organization, id);
CREATE INDEX audit_log_subject ON audit_log (action, subject, id);

-- What comparisons of the bucket with the receipts found, by the hour in which objects were written.
CREATE TABLE completeness (
    organization text        NOT NULL,
    bucket       text        NOT NULL,
    prefix       text        NOT NULL,
    hour         timestamptz NOT NULL,
    objects      bigint      NOT NULL,
    known        bigint      NOT NULL,
    bytes        bigint      NOT NULL,
    compared_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization, hour, bucket, prefix)
);

CREATE INDEX completeness_old ON completeness (hour);

-- When the last snapshot of an organization's part of the index was written into the bucket.
CREATE TABLE snapshots (
    organization text        PRIMARY KEY,
    started_at   timestamptz NOT NULL
);

-- The rows that a record tells of, as the database has them: what the index is rebuilt from. Segments are found by segments_id in the
-- months of the windows, their sources by segment_sources_segment, receipts by receipts_N_id.
-- +goose StatementBegin
CREATE FUNCTION recorded_rows(
    segment_ids bigint[], first_window timestamptz, last_window timestamptz, receipt_ids bigint[], delete_ids bigint[], of_lease text, of_edit bytea
) RETURNS json
LANGUAGE sql STABLE AS $$
    SELECT json_build_object(
        'segments', (
            SELECT json_agg(r ORDER BY r.id)
            FROM (
                SELECT s.*, held.sources
                FROM segments s
                LEFT JOIN (
                    SELECT ss.segment, array_agg(ss.receipt ORDER BY ss.receipt) AS sources
                    FROM segment_sources ss
                    WHERE ss.segment = ANY (segment_ids)
                    GROUP BY ss.segment
                ) held ON held.segment = s.id
                WHERE s.id = ANY (segment_ids) AND s.window_start >= first_window AND s.window_start <= last_window
            ) r
        ),
        'receipts', (SELECT json_agg(r ORDER BY r.id) FROM receipts r WHERE r.id = ANY (receipt_ids)),
        'deletes', (SELECT json_agg(d ORDER BY d.id) FROM deletes d WHERE d.id = ANY (delete_ids)),
        'delete_rows', (SELECT json_agg(w ORDER BY w.delete_id, w.source, w.segment) FROM delete_rows w WHERE of_lease <> '' AND w.lease = of_lease),
        'delete_segments', (
            SELECT json_agg(w ORDER BY w.delete_id, w.segment) FROM delete_segments w WHERE w.segment = ANY (segment_ids) AND w.gone_at IS NULL
        ),
        'delete_sources', (SELECT json_agg(w ORDER BY w.delete_id, w.receipt) FROM delete_sources w WHERE w.receipt = ANY (receipt_ids)),
        'leases', (
            SELECT json_agg(to_jsonb(l) || jsonb_build_object('state', 'committed', 'ended_at', clock_timestamp(), 'edit', of_edit))
            FROM leases l
            WHERE l.id = of_lease
        )
    )
$$;
-- +goose StatementEnd

CREATE INDEX delete_rows_lease ON delete_rows (lease);
CREATE INDEX delete_sources_receipt ON delete_sources (receipt);

-- What a record of the release before names, as this one records it: the segments that its lease added or removed and those that hold
-- rows of receipts which it superseded; its receipts and the older revisions of their objects. Removed segments are found by
-- segments_removed_of for a short time around the commit, the others as recorded_rows finds them.
-- +goose StatementBegin
CREATE FUNCTION completed_rows(of_organization text, of_lease text, committed timestamptz, segment_ids bigint[], receipt_ids bigint[]) RETURNS json
LANGUAGE plpgsql STABLE AS $$
DECLARE
    superseded bigint[];
    touched    bigint[];
BEGIN
    superseded := ARRAY(
        SELECT DISTINCT o.id
        FROM receipts n
        JOIN receipts o ON o.bucket = n.bucket AND o.key = n.key AND o.revision < n.revision AND o.state = 'superseded'
        WHERE n.id = ANY (receipt_ids)
        ORDER BY 1
    );
    touched := ARRAY(
        SELECT unnest(segment_ids)
        UNION
        SELECT s.id
        FROM segments s
        WHERE s.organization = of_organization
          AND s.removed_at BETWEEN committed - interval '5 minutes' AND committed + interval '5 minutes'
          AND s.removed_by = of_lease
        UNION
        SELECT ss.segment
        FROM segment_sources ss
        WHERE ss.receipt = ANY (superseded)
    );
    RETURN recorded_rows(touched, '-infinity', 'infinity', receipt_ids || superseded, '{}', of_lease, (SELECT l.edit FROM leases l WHERE l.id = of_lease));
END
$$;
-- +goose StatementEnd

-- Merges rows of snapshots and records into a table. What happens to a row only ever happens once and stays, or else the newest image of
-- it stands: so the order in which rows come, and how often, does not matter. A segment must not be named twice in one call. Returns how
-- many rows are new (of receipts: or changed), and how many were changed (of segments: removed).
-- +goose StatementBegin
CREATE FUNCTION adopt_rows(of_organization text, of_table text, new_rows jsonb) RETURNS bigint[]
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
                format_version, row_hash, masked_sources, applied_delete, rules, identified, lease, created_at, removed_at, removed_by, missing_since
            )
            SELECT s.id, s.organization, s.signal, s.window_start, s.window_length, s.level, s.bucket, s.key, s.bytes, s.sidecar_bytes, s.row_count,
                   s.first_time, s.last_time, s.format_version, s.row_hash, coalesce(s.masked_sources, '{}'), coalesce(s.applied_delete, 0),
                   coalesce(s.rules, '{}'), coalesce(s.identified, false), s.lease, s.created_at, s.removed_at, coalesce(s.removed_by, ''),
                   s.missing_since
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
        -- Whoever read the windows before may not commit what he derived from them.
        INSERT INTO window_versions (organization, signal, hour, version)
        SELECT DISTINCT of_organization, s.signal, h.hour, 1::bigint
        FROM jsonb_to_recordset(new_rows) AS s (organization text, signal smallint, window_start timestamptz, window_length bigint)
        CROSS JOIN LATERAL generate_series(
            date_trunc('hour', s.window_start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC',
            s.window_start + interval '1 microsecond' * (s.window_length / 1000 - 1),
            interval '1 hour'
        ) AS h (hour)
        WHERE s.organization = of_organization
        ORDER BY 2, 3
        ON CONFLICT (organization, signal, hour) DO UPDATE
        SET version = window_versions.version + 1;
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
            SET version = window_versions.version + 1
            WHERE window_versions.organization = of_organization
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
        INSERT INTO retention_runs
        SELECT r.*
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
        INSERT INTO window_versions (organization, signal, hour, version)
        SELECT v.organization, v.signal, v.hour, v.version
        FROM jsonb_populate_recordset(NULL::window_versions, new_rows) v
        WHERE v.organization = of_organization
        ORDER BY v.signal, v.hour
        ON CONFLICT (organization, signal, hour) DO UPDATE
        SET version = greatest(window_versions.version, excluded.version);
        GET DIAGNOSTICS added = ROW_COUNT;
    ELSE
        RAISE EXCEPTION 'no rows of table % can be adopted', of_table USING ERRCODE = '22023';
    END CASE;
    RETURN ARRAY[added, changed];
END
$$;
-- +goose StatementEnd

-- Receipts that the database has under another number than the bucket, because the object came again after an older database was
-- restored, and numbers that it gave to another object since: [{"id": number here, "recorded": number there, "state", "bucket", "key"}].
-- Served by receipts_revision, receipts_content and receipts_N_id.
-- +goose StatementBegin
CREATE FUNCTION colliding_receipts(of_organization text, new_rows jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    WITH recorded AS MATERIALIZED (
        SELECT r.id, r.bucket, r.key, r.tag, r.revision, r.replay
        FROM jsonb_populate_recordset(NULL::receipts, new_rows) r
        WHERE r.organization = of_organization
    ), colliding AS (
        SELECT k.id, r.id AS recorded, k.state, k.bucket, k.key
        FROM recorded r
        JOIN receipts k ON k.bucket = r.bucket AND k.key = r.key AND k.revision = r.revision AND k.id <> r.id
        UNION
        SELECT k.id, r.id, k.state, k.bucket, k.key
        FROM recorded r
        JOIN receipts k ON k.bucket = r.bucket AND k.key = r.key AND k.tag = r.tag AND k.replay = r.replay AND k.id <> r.id
        UNION
        SELECT k.id, r.id, k.state, k.bucket, k.key
        FROM recorded r
        JOIN receipts k ON k.id = r.id AND (k.bucket <> r.bucket OR k.key <> r.key OR k.revision <> r.revision)
    )
    SELECT coalesce(jsonb_agg(to_jsonb(c) ORDER BY c.id, c.recorded), '[]') FROM colliding c
$$;
-- +goose StatementEnd

-- A segment whose number the database gave to another one since it was restored; 0: there is none. In each month served by segments_id.
-- +goose StatementBegin
CREATE FUNCTION colliding_segment(new_rows jsonb) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce(min(k.id), 0)
    FROM jsonb_to_recordset(new_rows) AS s (id bigint, key text)
    JOIN segments k ON k.id = s.id
    WHERE k.key <> s.key
$$;
-- +goose StatementEnd

-- Makes the partitions of segments that are to be adopted.
-- +goose StatementBegin
CREATE FUNCTION make_adopted_months(new_rows jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT DISTINCT s.signal, date_trunc('month', s.window_start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS month
        FROM jsonb_to_recordset(new_rows) AS s (signal smallint, window_start timestamptz)
        ORDER BY 1, 2
    LOOP
        PERFORM make_segment_month(CASE wanted.signal WHEN 1 THEN 'segments_logs' WHEN 2 THEN 'segments_metrics' ELSE 'segments_spans' END, wanted.month);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- No number that was ever given may be given again. Zero: none is known.
-- +goose StatementBegin
CREATE FUNCTION advance_sequences(receipt bigint, segment bigint, delete_id bigint, run bigint, audit bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF receipt >= (SELECT last_value FROM receipt_ids) THEN
        PERFORM setval('receipt_ids', receipt);
    END IF;
    IF segment >= (SELECT last_value FROM segment_ids) THEN
        PERFORM setval('segment_ids', segment);
    END IF;
    IF delete_id >= (SELECT last_value FROM delete_ids) THEN
        PERFORM setval('delete_ids', delete_id);
    END IF;
    IF run >= (SELECT last_value FROM retention_run_ids) THEN
        PERFORM setval('retention_run_ids', run);
    END IF;
    IF audit >= (SELECT last_value FROM audit_ids) THEN
        PERFORM setval('audit_ids', audit);
    END IF;
END
$$;
-- +goose StatementEnd

CREATE INDEX delete_rows_source ON delete_rows (source);
CREATE INDEX tasks_buried ON tasks (organization, kind) WHERE state = 'buried';
CREATE INDEX commit_records_of ON commit_records (organization, id);

-- Drops the partition of a month in which there is no segment any more, live or removed. It waits for a second at most: another
-- process may be at it, and the next run comes.
-- +goose StatementBegin
CREATE FUNCTION drop_segment_month(name text) RETURNS boolean
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
    WHERE i.inhrelid = to_regclass(quote_ident(name)) AND p.relname IN ('segments_logs', 'segments_metrics', 'segments_spans');
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

-- Says whether drop_segment_month would drop a month.
-- +goose StatementBegin
CREATE FUNCTION is_segment_month_empty(name text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    used boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I)', name) INTO used;
    RETURN NOT used;
END
$$;
-- +goose StatementEnd

-- The partitions of segments: [{"parent": text, "name": text, "month": "YYYYMM"}].
-- +goose StatementBegin
CREATE FUNCTION segment_months() RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('parent', p.relname, 'name', c.relname, 'month', right(c.relname, 6)) ORDER BY p.relname, c.relname), '[]')
    FROM pg_inherits i
    JOIN pg_class c ON c.oid = i.inhrelid
    JOIN pg_class p ON p.oid = i.inhparent
    WHERE p.relname IN ('segments_logs', 'segments_metrics', 'segments_spans')
      AND c.relkind = 'r'
$$;
-- +goose StatementEnd

-- What tables take, the biggest first; partitions count for their table.
-- +goose StatementBegin
CREATE FUNCTION table_sizes() RETURNS jsonb
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE roots AS (
        SELECT c.oid, c.relname AS root
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema()
          AND c.relkind IN ('r', 'p')
          AND NOT c.relispartition
        UNION ALL
        SELECT i.inhrelid, r.root
        FROM roots r
        JOIN pg_inherits i ON i.inhparent = r.oid
    ),
    sizes AS (
        SELECT r.root AS name,
               sum(pg_table_size(r.oid))::bigint AS bytes,
               sum(pg_indexes_size(r.oid))::bigint AS index_bytes,
               coalesce(sum(s.n_live_tup), 0)::bigint AS live_rows,
               coalesce(sum(s.n_dead_tup), 0)::bigint AS dead_rows
        FROM roots r
        LEFT JOIN pg_stat_user_tables s ON s.relid = r.oid
        GROUP BY r.root
    )
    SELECT coalesce(jsonb_agg(to_jsonb(sizes) ORDER BY sizes.bytes DESC, sizes.name), '[]') FROM sizes
$$;
-- +goose StatementEnd
