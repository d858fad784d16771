// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
)

type matcher = *labels.Matcher

func matchType(t labels.MatchType) workerv1.MatchType {
	switch t {
	case labels.MatchEqual:
		return workerv1.MatchType_MATCH_TYPE_EQUAL
	case labels.MatchNotEqual:
		return workerv1.MatchType_MATCH_TYPE_NOT_EQUAL
	case labels.MatchRegexp:
		return workerv1.MatchType_MATCH_TYPE_REGEXP
	case labels.MatchNotRegexp:
		return workerv1.MatchType_MATCH_TYPE_NOT_REGEXP
	}
	return workerv1.MatchType_MATCH_TYPE_UNSPECIFIED
}

// ending is what the last message of an answer says.
type ending struct {
	remarks []prom.Annotation
	counts  Counts
}

// End takes it in.
func (e *ending) End(message *workerv1.ScanResponse) {
	for _, a := range message.GetAnnotations() {
		e.remarks = append(e.remarks, prom.Annotation{Info: a.GetInfo(), Text: a.GetText(), Start: int(a.GetStart()), End: int(a.GetEnd())})
	}
	s := message.GetStatistics()
	e.counts = Counts{Read: s.GetSamplesRead(), Total: s.GetSamplesQueryable(), Peak: s.GetSamplesPeak()}
}

// seriesDecoder collects the series of one attempt.
type seriesDecoder struct {
	ending
	most   int
	many   func() error // the error of having more
	held   int
	series []prom.Series
	steps  *steps // at which samples are; nil: at any time
}

// Add takes in a batch of prom.SeriesSchema.
func (d *seriesDecoder) Add(batch arrow.RecordBatch) error {
	before := max(0, len(d.series)-1)
	held := 0
	if len(d.series) > 0 {
		held = d.series[before].Len()
	}
	series, ok := d.series, false
	if d.steps != nil {
		series, ok = d.steps.add(d.series, batch)
	}
	if !ok {
		var err error
		if series, err = prom.DecodeSeries(d.series, batch); err != nil {
			return err
		}
	}
	d.series = series
	d.held -= held
	for i := before; i < len(series); i++ {
		d.held += series[i].Len()
	}
	if d.held > d.most {
		return d.many()
	}
	return nil
}

// decoder collects what batches decode to.
type decoder[T any] struct {
	decode func([]T, arrow.RecordBatch) ([]T, error)
	most   int
	all    []T
}

// Add takes in a batch.
func (d *decoder[T]) Add(batch arrow.RecordBatch) error {
	all, err := d.decode(d.all, batch)
	d.all = all
	if err == nil && len(all) > d.most {
		return fault.New(fault.Exhausted, "a worker's answer has more than %d entries; narrow the selector or the time range", d.most)
	}
	return err
}
