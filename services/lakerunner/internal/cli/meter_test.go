// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

func TestMeter(t *testing.T) {
	t.Parallel()
	clock := func(seconds ...int) func() time.Time {
		return func() time.Time {
			now := noon().Add(time.Duration(seconds[0]) * time.Second)
			if len(seconds) > 1 {
				seconds = seconds[1:]
			}
			return now
		}
	}

	t.Run("says nothing of a short, complete answer", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		startMeter(&out, meterOptions{now: clock(0)}).finish(exampleStatistics())
		if out.Len() > 0 {
			t.Errorf("got %q", out.String())
		}
	})
	t.Run("says what a partial answer lacks, terminal or not", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		startMeter(&out, meterOptions{now: clock(0)}).finish(&queryv1.Statistics{
			Partial: true, PartialReason: "limit of 100 lines", Completeness: &queryv1.Completeness{PendingObjects: 1200, FailedObjects: 1},
		})
		for _, want := range []string{"limit of 100 lines", "1,200 received objects", "could not be ingested: 1 object;"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is missing in %q", want, out.String())
			}
		}
	})
	t.Run("is silent when told so", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		startMeter(&out, meterOptions{quiet: true, now: clock(0)}).finish(&queryv1.Statistics{Partial: true})
		if out.Len() > 0 {
			t.Errorf("got %q", out.String())
		}
	})
	t.Run("draws progress of a long query and takes it off the screen again", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		m := &meter{out: &out, options: meterOptions{draw: true, now: clock(3)}, started: noon(), done: make(chan struct{})}
		m.update(exampleStatistics())
		m.redraw()
		m.finish(exampleStatistics())
		if got := out.String(); !strings.Contains(got, "20/40 segments") || !strings.Contains(got, "\r\x1b[K100 rows from") {
			t.Errorf("got %q", got)
		}
	})
}
