// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"embed"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// release2 has the statements of the release that did not know rollups, word for word.
//
//go:embed testdata/release2/*.sql
var release2 embed.FS

// TestAReleaseWithoutRollupsPassesThemOver runs statements of a release that does not know rollups on a lake that has some.
func TestAReleaseWithoutRollupsPassesThemOver(t *testing.T) {
	l := setup(t)
	old := &oldRelease{lab: l, statements: statements(t, release2, "testdata/release2")}
	old.wantAccepted()
	l.ingestAt("a", hour)
	l.rollOrFail(hour, time.Minute)
	l.rollOrFail(day, time.Hour)

	args := pgx.NamedArgs{
		"organization": string(acme), "signal": int16(lake.SignalLogs), "first_window": day.Start, "end_window": day.End(), "start_time": day.Start.UnixNano(),
		"end_time": day.End().UnixNano(), "max_segments": int32(1000), "written_after": time.Unix(0, 0), "completeness_cap": int32(1000),
		"before": day.End(), "after_window": time.Unix(0, 0), "after_id": int64(0), "page_size": int32(1000), "day": day.Start, "day_end": day.End(), "after": int64(0),
		"format_below": int32(9), "rule": "", "since": time.Unix(0, 0), "window_start": time.Unix(0, 0), "window_length": int64(0),
	}
	for name, want := range map[string]int{
		"Lookup": 2, "Arrivals": 2, "WindowSegments": 1, "DueSegments": 1, "SnapshotSegments": 1, "SegmentsOfDay": 1, "StaleWindows": 1,
	} {
		n := 0
		old.query(name, args, func(pgx.Rows) error { n++; return nil })
		if n != want {
			t.Errorf("%s reads %d rows, want %d", name, n, want)
		}
	}
	l.wantRollups(time.Minute, 1)
	old.run("BumpVersions", pgx.NamedArgs{
		"organization": string(acme), "signals": []int16{1}, "hours": []time.Time{hour.Start}, "increments": []int64{1},
	})
	l.wantRollups(time.Minute, 0, 0)
}

// TestMigrationKeepsWhatIsThere migrates a lake of the release that did not know rollups.
func TestMigrationKeepsWhatIsThere(t *testing.T) {
	l := setup(t)
	l.exec("CREATE SCHEMA before")
	url := l.sql.Config().ConnString()
	separator := "?"
	if strings.Contains(url, "?") {
		separator = "&"
	}
	url += separator + "search_path=before"
	migrateTo(t, url, 8)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	old := &oldRelease{lab: &lab{T: t, sql: pool}, statements: statements(t, release2, "testdata/release2")}
	receipts := old.receive("a", "b")
	_, segments := old.ingest(receipts)
	old.exec("INSERT INTO segment_totals VALUES ('acme', 1, 1, 1100, 2)")
	old.run("InsertRetentionRun", pgx.NamedArgs{
		"organization": string(acme), "signal": int16(1), "cutoff": hour.Start, "selector": "", "due_segments": int64(1), "due_rows": int64(1), "due_bytes": int64(1),
		"windows_to_rewrite": int64(0),
	})

	if err := index.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	after := open(t, url)
	found := after.lookup(acme).Segments
	if len(found) != 1 || int64(found[0].ID) != segments[0] || found[0].Resolution != 0 || !found[0].Shard.Whole() || found[0].Rules != nil {
		t.Errorf("got %+v", found)
	}
	if runs, _, err := after.RetentionRuns(t.Context(), acme, 10, ""); err != nil || len(runs) != 1 || runs[0].Resolution != 0 || runs[0].Signal != lake.SignalLogs {
		t.Errorf("got %+v (%v)", runs, err)
	}
	after.wantRollups(time.Minute, 0, 0)
	after.wantRollupDebt([]lake.Window{hour}, []lake.Window{day})
	after.rollOrFail(hour, time.Minute)
	after.wantRollups(time.Minute, 1)
	after.remove(found[0].ID)
	after.wantRollups(time.Minute, 1)
	parts, err := after.snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rebuilt(t, parts, nil).wantRollups(time.Minute, 1)
}

func migrateTo(t *testing.T, url string, version int64) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	database := stdlib.OpenDB(*config)
	defer database.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, database, os.DirFS("migrations"), goose.WithTableName("index_migrations"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
}
