// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

// steps are the times of a grid, which series share whose samples are at each of them.
type steps struct {
	grid promplan.Grid
	all  []int64
}

func newSteps(grid promplan.Grid) *steps {
	s := &steps{grid: grid, all: make([]int64, grid.Len())}
	for i := range s.all {
		s.all[i] = grid.At(i)
	}
	return s
}

// of returns n times from first on, a step apart; false: they are not times of the grid.
func (s *steps) of(first, step int64, n int) ([]int64, bool) {
	if n == 0 {
		return nil, true
	}
	at, ok := s.grid.Index(first)
	if !ok || n > 1 && step != s.grid.Step || at+n > len(s.all) {
		return nil, false
	}
	return s.all[at : at+n : at+n], true
}

// columns are those of a batch of prom.SeriesSchema that has floats at steps alone.
type columns struct {
	labels        *array.Map
	names, values *array.String
	first, step   *array.Int64
	floats        *array.List
	numbers       []float64
	builder       labels.ScratchBuilder
}

// columnsOf returns the columns of a batch of series whose floats are all a step apart, and nothing else.
func columnsOf(batch arrow.RecordBatch) (*columns, bool) {
	column := map[string]arrow.Array{}
	for i, field := range batch.Schema().Fields() {
		column[field.Name] = batch.Column(i)
	}
	n := int(batch.NumRows())
	for _, name := range []string{"times", "starts", "histogram_times", "histogram_starts"} {
		if c, ok := column[name]; !ok || c.NullN() != n {
			return nil, false
		}
	}
	named, isMap := column["labels"].(*array.Map)
	first, isFirst := column["first"].(*array.Int64)
	step, isStep := column["step"].(*array.Int64)
	floats, isList := column["values"].(*array.List)
	delta, isBool := column["delta"].(*array.Boolean)
	if !isMap || !isFirst || !isStep || !isList || !isBool {
		return nil, false
	}
	for i := range n {
		if delta.Value(i) {
			return nil, false
		}
	}
	names, isNames := named.Keys().(*array.String)
	values, isValues := named.Items().(*array.String)
	numbers, isNumbers := floats.ListValues().(*array.Float64)
	if !isNames || !isValues || !isNumbers {
		return nil, false
	}
	return &columns{
		labels: named, names: names, values: values, first: first, step: step, floats: floats, numbers: numbers.Float64Values(), builder: labels.NewScratchBuilder(16),
	}, true
}

// add adds the series of a batch, whose values stay where the batch has them; false: it is a batch of another kind, and nothing was added.
func (s *steps) add(to []prom.Series, batch arrow.RecordBatch) ([]prom.Series, bool) {
	c, ok := columnsOf(batch)
	if !ok {
		return to, false
	}
	before := len(to)
	for i := range int(batch.NumRows()) {
		from, end := c.floats.ValueOffsets(i)
		times, ok := s.of(c.first.Value(i), c.step.Value(i), int(end-from))
		l := c.at(i)
		if !ok || len(to) > 0 && labels.Equal(to[len(to)-1].Labels, l) {
			return to[:before], false
		}
		to = append(to, prom.Series{Labels: l, Times: times, Values: c.numbers[from:end:end]})
	}
	return to, true
}

func (c *columns) at(i int) labels.Labels {
	c.builder.Reset()
	from, end := c.labels.ValueOffsets(i)
	for n := int(from); n < int(end); n++ {
		c.builder.Add(strings.Clone(c.names.Value(n)), strings.Clone(c.values.Value(n)))
	}
	return c.builder.Labels()
}
