// SPDX-License-Identifier: AGPL-3.0-only

package indexbench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// load fills the tables. Indexes are made after the rows, which takes a third of the time and leaves them as a rebuild would.
func (b *bench) load(ctx context.Context) error {
	defer func() { b.report.LoadAverage = loadAverage() }()
	var loaded bool
	if err := b.sql.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM segment_totals)").Scan(&loaded); err != nil || loaded {
		return err
	}
	began := time.Now()
	conn, err := b.sql.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	l := loader{bench: b, conn: conn.Conn()}
	for _, step := range []func(context.Context) error{
		l.months, l.dropIndexes, l.segments, l.sources, l.versions, l.restoreIndexes, l.waiting, l.totals, l.vacuum,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	b.report.Load = time.Since(began)
	return nil
}

type loader struct {
	*bench
	conn    *pgx.Conn
	indexes []string // statements that make what was dropped
}

func (l *loader) exec(ctx context.Context, step, sql string, args ...any) error {
	began := time.Now()
	if _, err := l.conn.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	l.Log("load: "+step, time.Since(began))
	return nil
}

func (l *loader) months(ctx context.Context) error {
	return l.exec(ctx, "months", `
		SELECT make_segment_month(parent, month)
		FROM unnest(ARRAY['segments_logs', 'segments_metrics', 'segments_spans']) AS parent,
		     generate_series($1::timestamptz - interval '1 month', $2::timestamptz, interval '15 days') AS month`,
		l.end.AddDate(0, 0, -l.Days-1), l.end.AddDate(0, 0, 2))
}

// dropIndexes keeps the definitions of the indexes that no constraint needs.
func (l *loader) dropIndexes(ctx context.Context) error {
	rows, err := l.conn.Query(ctx, `
		SELECT c.relname, pg_get_indexdef(i.indexrelid)
		FROM pg_index i
		JOIN pg_class c ON c.oid = i.indexrelid
		WHERE i.indrelid IN ('segments'::regclass, 'segment_sources'::regclass)
		  AND NOT i.indisprimary
		ORDER BY c.relname`)
	if err != nil {
		return err
	}
	type dropped struct{ Name, Definition string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[dropped])
	if err != nil {
		return err
	}
	for _, d := range all {
		if _, err := l.conn.Exec(ctx, "DROP INDEX "+pgx.Identifier{d.Name}.Sanitize()); err != nil {
			return err
		}
		l.indexes = append(l.indexes, strings.Replace(d.Definition, " ON ONLY ", " ON ", 1))
	}
	return nil
}

func (l *loader) restoreIndexes(ctx context.Context) error {
	for _, definition := range l.indexes {
		name, _, _ := strings.Cut(strings.TrimPrefix(definition, "CREATE INDEX "), " ")
		if err := l.exec(ctx, name, definition); err != nil {
			return err
		}
	}
	return nil
}

// segments come in the order of time, as they would; those of one moment are of any organization. A lease adds eight.
func (l *loader) segments(ctx context.Context) error {
	hours := l.Days * 24
	return l.exec(ctx, "segments", `
		INSERT INTO segments (
		    id, organization, signal, window_start, window_length, level, bucket, key, bytes, sidecar_bytes, row_count, first_time, last_time,
		    format_version, row_hash, lease, created_at
		)
		SELECT n, organization, signal, window_start, length, level, 'lake-bucket',
		       'db/' || organization || '/' || (ARRAY['logs', 'metrics', 'spans'])[signal] || '/' || to_char(window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD')
		           || '/' || lease || '/' || lpad((n % 8)::text, 6, '0') || '.parquet',
		       bytes, bytes / 14, bytes / 40,
		       extract(epoch FROM window_start)::bigint * 1000000000 + (length * spread * 0.1)::bigint,
		       extract(epoch FROM window_start)::bigint * 1000000000 + (length * (0.2 + spread * 0.79))::bigint,
		       2, n * 7919, lease, hour + interval '70 minutes'
		FROM (
		    SELECT n, 'org-' || lpad(rank::text, 4, '0') AS organization,
		           CASE WHEN kind < 0.6 THEN 1 WHEN kind < 0.85 THEN 2 ELSE 3 END AS signal,
		           hour,
		           CASE WHEN age < 48 OR rank < $3::integer / 10 THEN hour
		                ELSE date_trunc('day', hour AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' END AS window_start,
		           CASE WHEN age < 48 OR rank < $3::integer / 10 THEN 3600000000000 ELSE 86400000000000 END AS length,
		           CASE WHEN age < 2 THEN 0 ELSE 1 END AS level,
		           CASE WHEN age < 48 THEN 1000000 + (spread * 30000000)::bigint ELSE 67108864 + (spread * 180000000)::bigint END AS bytes,
		           spread,
		           md5((n / 8)::text)::uuid::text AS lease
		    FROM (
		        SELECT n, floor(power(random(), 2) * $3::integer)::integer AS rank, random() AS kind, random() AS spread,
		               $2::integer - 1 - (n - 1) * $2::integer / $1::bigint AS age,
		               $4::timestamptz - interval '1 hour' * ($2::integer - (n - 1) * $2::integer / $1::bigint) AS hour
		        FROM generate_series(1, $1::bigint) AS n
		    ) drawn
		) shaped`, l.Segments, hours, l.Organizations, l.end)
}

// sources are one to three of each segment.
func (l *loader) sources(ctx context.Context) error {
	return l.exec(ctx, "segment_sources", `
		INSERT INTO segment_sources (receipt, segment, signal, window_start)
		SELECT s.id * 4 + source, s.id, s.signal, s.window_start
		FROM segments s
		CROSS JOIN LATERAL generate_series(0, s.id % 3) AS source`)
}

func (l *loader) versions(ctx context.Context) error {
	// Nothing else on this connection sorts; the index's own connections keep the server's setting.
	if err := l.exec(ctx, "work_mem", "SET work_mem = '1GB'"); err != nil {
		return err
	}
	return l.exec(ctx, "window_versions", `
		INSERT INTO window_versions (organization, signal, hour, version)
		SELECT DISTINCT organization, signal, created_at - interval '70 minutes', 1
		FROM segments
		ORDER BY 1, 2, 3`)
}

// waiting are the pending objects of the largest organization; numbers go on behind those of the segments' sources.
func (l *loader) waiting(ctx context.Context) error {
	if err := l.exec(ctx, "sequences", "SELECT setval('receipt_ids', $1::bigint * 4 + 4), setval('segment_ids', $1::bigint + 1)", l.Segments); err != nil {
		return err
	}
	err := l.exec(ctx, "receipts", `
		INSERT INTO receipts (
		    id, organization, collector, signal, bucket, key, tag, size, last_modified, revision, replay, hides, state, written_at, received_at
		)
		SELECT nextval('receipt_ids'), $2, 'agent', 1, 'raw', 'otel/logs/' || md5(n::text) || '.binpb.gz', md5('tag' || n), 100000,
		       now(), 1, 0, 'nothing', 'pending', now(), now()
		FROM generate_series(1, $1::bigint) AS n`, l.Pending, string(organization(0)))
	if err != nil {
		return err
	}
	return l.exec(ctx, "tasks", `
		WITH served AS (
		    INSERT INTO services (kind, organization, signal, served_at) VALUES ('ingest', $1, 1, '-infinity')
		)
		INSERT INTO tasks (kind, organization, signal, window_start, window_length, tier, receipt, bytes)
		SELECT 'ingest', organization, signal, 'epoch', 0, 0, id, size
		FROM receipts
		WHERE organization = $1
		  AND state = 'pending'
		ORDER BY id`, string(organization(0)))
}

func (l *loader) totals(ctx context.Context) error {
	return l.exec(ctx, "segment_totals", `
		INSERT INTO segment_totals (organization, signal, segments, bytes, row_count)
		SELECT organization, signal, count(*), sum(bytes + sidecar_bytes), sum(row_count)
		FROM segments
		GROUP BY organization, signal`)
}

func (l *loader) vacuum(ctx context.Context) error {
	for _, table := range []string{"segments", "segment_sources", "window_versions", "receipts", "tasks", "services", "segment_totals"} {
		if err := l.exec(ctx, "vacuum "+table, "VACUUM (ANALYZE) "+table); err != nil {
			return err
		}
	}
	return l.exec(ctx, "checkpoint", "CHECKPOINT")
}
