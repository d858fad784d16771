// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metricmapping"
)

// metricPreviewer shows points of metrics: labels, and the value as text.
type metricPreviewer struct {
	*previewer
	store  *metricfile.Store
	mapper *metricmapping.Mapper
	// series counts those that were seen.
	series int
}

func newMetricPreviewer(p *previewer) *metricPreviewer {
	store := metricfile.NewStore()
	m := &metricPreviewer{previewer: p, store: store, mapper: metricmapping.New(store)}
	m.accept = m.accept.retained(p.options.Now, p.options.Retention)
	m.mapper.SetOptions(p.options.Metrics)
	m.mapper.Begin()
	return m
}

// Origin implements decode.MetricSink.
func (p *metricPreviewer) Origin(o *columns.Origin) {
	if p.mapper.Bytes()+p.store.Bytes() > maxPreviewMemory {
		p.store.Reset()
		p.mapper.Forget()
	}
	p.mapper.Origin(o)
	p.shared = p.shared[:0]
	p.origin(o)
}

// Metric implements decode.MetricSink.
func (p *metricPreviewer) Metric(m *decode.Metric) { p.mapper.Metric(m) }

// Family implements decode.MetricSink.
func (p *metricPreviewer) Family(name string, f decode.Family) { p.mapper.Family(name, f) }

// Point implements decode.MetricSink.
func (p *metricPreviewer) Point(point *decode.Point) error {
	if point.Bare {
		return nil
	}
	p.preview.In++
	if err := point.Load(); err != nil {
		return err
	}
	reason := p.accept.time(point.Time)
	series, unfit, err := p.mapper.Series(point)
	switch {
	case err != nil:
		return err
	case reason == "" && series == nil:
		reason = unfit
	case reason == "" && !p.allows(series):
		reason = ReasonTooManySeries
	}
	if reason != "" {
		metric := p.mapper.CurrentMetric()
		p.line = decode.AppendOTLPPoint(p.line[:0], reason, p.mapper.CurrentOrigin(), &metric, point)
		p.reject(reason, p.line)
		return nil
	}
	if p.row("point", point.Attributes) {
		p.preview.Rows = append(p.preview.Rows, PreviewRow{
			Time: time.Unix(0, point.Time).UTC(), Labels: labelList(series.Labels()), Body: valueText(series.File().Kind, point),
		})
	}
	return nil
}

func (p *metricPreviewer) allows(series *metricmapping.Series) bool {
	if series.Object == 0 {
		p.series++
		series.Object = uint64(p.series)
	}
	most := p.options.MaxSeries
	return most <= 0 || series.Object <= uint64(most)
}

func labelList(l labels.Labels) (list []columns.Label) {
	l.Range(func(l labels.Label) { list = append(list, columns.Label{Name: l.Name, Value: l.Value}) })
	return list
}

// valueText is what was measured: a number, or count and sum.
func valueText(kind metricfile.Kind, p *decode.Point) string {
	switch {
	case p.Stale:
		return "stale"
	case p.Native != nil:
		return p.Native.String()
	case kind == metricfile.KindFloat:
		return strconv.FormatFloat(p.Value, 'g', -1, 64)
	}
	text := "count " + strconv.FormatUint(p.Count, 10)
	if p.HasSum {
		text += ", sum " + strconv.FormatFloat(p.Sum, 'g', -1, 64)
	}
	return text
}
