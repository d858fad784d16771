// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"context"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/prom/promtest"
)

// suiteLake loads the suite's samples as segments and evaluates over the worker's own scans.
type suiteLake struct {
	*lab
	t      testing.TB
	engine *prom.Engine
}

// Load implements promtest.Lake.
func (l *suiteLake) Load(series []prom.Series) error {
	st := metricfile.NewStore()
	add(st, series, 1)
	if st.Len() > 0 {
		l.write(l.t, st, 1)
	}
	return nil
}

// Query implements promtest.Lake.
func (l *suiteLake) Query(ctx context.Context, q promtest.Query) (prom.Result, error) {
	expr, err := prom.Parse(q.Text)
	if err != nil {
		return prom.Result{}, err
	}
	s := l.scanner.Begin(ctx, l.segments, 0)
	defer s.End()
	s.starts = true
	return l.engine.Evaluate(ctx, s.source(), prom.Request{Expr: expr, Start: q.Start, End: q.End, Step: q.Step})
}

// Close implements promtest.Lake.
func (l *suiteLake) Close() error { return nil }

func TestPrometheusSuiteOverSegments(t *testing.T) {
	t.Parallel()
	engine := prom.New(promtest.EngineOptions())
	promtest.Suite(t, func(tb testing.TB) promtest.Lake {
		return &suiteLake{lab: newLab(tb, Options{}), t: tb, engine: engine}
	})
}
