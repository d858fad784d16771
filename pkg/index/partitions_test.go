// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"context"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// waiting reports whether somebody waits for a lock on a table.
func (l *lab) waiting(table string) bool {
	l.Helper()
	return l.number(`SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, table) > 0
}

// until waits for a condition.
func (l *lab) until(what string, holds func() bool) {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			l.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

// TestNoPlanOverlooksAPartition has a month's partition come while a connection plans a statement that it goes on to use. A plan that was made
// without the partition must not stand: its rows would be in no answer of that connection, and in no removal, mask or count.
func TestNoPlanOverlooksAPartition(t *testing.T) {
	l := setup(t)
	reader, err := index.Open(t.Context(), index.Config{URL: l.sql.Config().ConnString(), MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	lookup := func() (index.Answer, error) {
		return reader.Lookup(t.Context(), index.Query{Organization: acme, Signal: lake.SignalLogs, Start: hour.Start, End: hour.End()})
	}

	// The planner looks at the tables of the signals one after the other: it has seen the months of logs, and waits for those of metrics.
	blocker, err := l.sql.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = blocker.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := blocker.Exec(t.Context(), "LOCK TABLE ONLY segments_metrics IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	looked := make(chan error, 1)
	go func() {
		_, err := lookup()
		looked <- err
	}()
	l.until("the planner waits", func() bool { return l.waiting("segments_metrics") })
	made := make(chan error, 1)
	go func() {
		_, err := l.sql.Exec(t.Context(), "SELECT make_segment_month('segments_logs', $1)", hour.Start)
		made <- err
	}()
	l.until("the month is made, or waits for the planner", func() bool { return len(made) > 0 || l.waiting("segments_logs") })
	if err := blocker.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wantNone([]error{<-looked, <-made})

	l.receive(notice(acme, "k", "v1"))
	l.ingestAll()
	answer, err := lookup()
	if err != nil || len(answer.Segments) != 1 {
		t.Errorf("the connection answers %d segments, %v; want 1", len(answer.Segments), err)
	}
}
