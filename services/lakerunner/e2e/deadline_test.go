// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

// TestAQueryOutOfTimeIsAnError gives queries less and less time, down to where none can be answered: an answer is whole, or an error.
func TestAQueryOutOfTimeIsAnError(t *testing.T) {
	t.Parallel()
	end := lately()
	objects := makeSample(t, sample.Options{Seed: 61, End: end, Lines: 900, Objects: 3})
	want := hashOfSample(objects...)
	l := newLake(t, lakeOptions{})
	for _, o := range objects {
		l.put(o.Key, o.Body)
	}
	l.awaitReceipts("default", "otel-raw/", len(objects))
	for _, limit := range []time.Duration{time.Millisecond, 3 * time.Millisecond, 8 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond} {
		l.stop()
		l.writeConfig(lakeOptions{organizations: []string{"default"}, settings: fmt.Sprintf("    limits: {query_timeout: %s}\n", limit)})
		l.start(lakeOptions{})
		for range 40 {
			lines, err := l.tryLines(t.Context(), everything, end.Add(-time.Hour), end)
			if err != nil {
				continue
			}
			if got := hashOf(lines); got != want {
				t.Errorf("with %s: got %+v, want %+v or an error", limit, got, want)
			}
		}
	}
}
