// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// BenchmarkObjects takes objects from their notices to their commits, a thousand a lease, with a backfill of another organization
// waiting behind.
func BenchmarkObjects(b *testing.B) {
	x := indextest.New(b)
	const waiting, each = 50_000, 1000
	for i := range waiting / 10_000 {
		batch := notices("big", 10_000)
		for n := range batch {
			batch[n].Object.Tag = fmt.Sprint(i)
		}
		if _, err := x.Receive(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	spent := map[string]time.Duration{}
	timed := func(verb string, f func() error) {
		began := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		spent[verb] += time.Since(began)
	}
	for round := 0; b.Loop(); round++ {
		org := lake.Organization(fmt.Sprintf("org%d", round%20))
		batch := notices(org, each)
		for n := range batch {
			batch[n].Object.Tag = fmt.Sprint(round)
		}
		timed("receive", func() error { _, err := x.Receive(b.Context(), batch); return err })
		var lease *lake.Lease
		timed("claim", func() (err error) {
			lease, err = x.Claim(b.Context(), index.Batch{Kind: lake.TaskIngest, MaxTasks: each})
			return err
		})
		timed("commit", func() error { return x.Commit(b.Context(), lease, whole(lease)) })
		timed("lookup", func() error {
			_, err := x.Lookup(b.Context(), index.Query{Organization: org, Signal: lake.SignalLogs, Start: hour.Start, End: hour.End()})
			return err
		})
	}
	for verb, d := range spent {
		b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), verb+"-ms/op")
	}
}
