package metrics

import (
	"fmt"
	"testing"
	"github.com/lakerunner/lakerunner/pkg/prom"
)

func TestDebug(t *testing.T) {
	w := newWorld(t, 0, Options{})
	for _, text := range []string{"requests_total", "requests_total offset -3m", "sum(requests_total)", "sum without(job,zone,instance)(requests_total)"} {
	expr, _ := prom.Parse(text)
	at := worldStart + 8427968
	q := Vector{Text: text, Expr: expr, Start: at, End: at, Step: 15000, Lookback: 5 * 60_000}
	plan, ok := q.plan()
	fmt.Println(ok, plan.Question, plan.Question.First()-worldStart, plan.Question.Last()-worldStart)
	s := w.scan(t)
	got, _, err := s.fast(t.Context(), plan, &q)
	fmt.Println(len(got), err, s.Statistics.Samples.Load())
	got, _, err = w.scan(t).slow(t.Context(), &q)
	fmt.Println(len(got), err)
	}
}
