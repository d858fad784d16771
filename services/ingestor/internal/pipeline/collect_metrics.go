// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"fmt"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metricmapping"
)

// metricSink takes the points of an object of metrics.
type metricSink struct {
	*collector
	*metricPlane
	accept acceptance
	// series counts those of the object, at most maxSeries; object is its number, by which a series is known to have been counted.
	series, maxSeries int
	object            uint64
	// matched are the deletes that reach a series, by their places in deletes.
	matched map[*metricmapping.Series][]int
	// repaired and orphans are what the mapper had counted before.
	repaired, orphans int64
}

func newMetricSink(c *collector) *metricSink {
	s := &metricSink{
		collector: c, metricPlane: c.space.metrics, object: c.space.objects, matched: map[*metricmapping.Series][]int{},
		maxSeries: c.settings.maxSeries, accept: newAcceptance(c.limits, c.lease.ClaimedAt).retained(c.lease.ClaimedAt, c.settings.retention),
	}
	s.mapper.SetOptions(c.settings.mapping)
	s.mapper.Begin()
	s.repaired, s.orphans = s.mapper.Repaired, s.mapper.Orphans
	return s
}

// Origin implements decode.MetricSink. Its error is that of the next point.
func (s *metricSink) Origin(o *columns.Origin) {
	s.signal = lake.SignalMetrics
	s.mapper.Origin(o)
	s.step(s.room)
}

// Metric implements decode.MetricSink.
func (s *metricSink) Metric(m *decode.Metric) { s.mapper.Metric(m) }

// Family implements decode.MetricSink.
func (s *metricSink) Family(name string, f decode.Family) { s.mapper.Family(name, f) }

// room is makeRoom, with what there is of target_info where the mapper is to forget the resources.
func (s *metricSink) room() error {
	if s.mapper.Bytes() > s.config.Memory/keptPart {
		if err := s.targets(); err != nil {
			return err
		}
	}
	s.series = 0
	s.object += 1 << 32 // all series count anew
	clear(s.matched)
	return s.makeRoom()
}

// Point implements decode.MetricSink.
func (s *metricSink) Point(p *decode.Point) error {
	if s.err != nil {
		return s.err
	}
	if p.Bare {
		return s.bare(p)
	}
	s.in++
	reason := s.accept.time(p.Time)
	if reason != "" && len(s.deletes) == 0 {
		return s.rejectPoint(reason, p)
	}
	series, unfit, err := s.mapper.Series(p)
	switch {
	case err != nil:
		return err
	case series == nil && reason != "":
		return s.rejectPoint(reason, p)
	case series == nil:
		return s.rejectPoint(unfit, p)
	}
	if id := s.deletedBy(series, p.Time); id != 0 {
		s.delete(id)
		return nil
	}
	if reason == "" && !s.allows(series) {
		reason = ReasonTooManySeries
	}
	if reason != "" {
		return s.rejectPoint(reason, p)
	}
	s.mapper.Saw(p.Time)
	s.enter(p.Time)
	s.mapper.Append(series, p, s.receipt.ID)
	s.step(s.room)
	return s.err
}

// enter notes the row that is appended next.
func (s *metricSink) enter(ns int64) {
	g := s.groupOf(ns)
	g.rows = append(g.rows, uint32(s.store.Len()))
	s.out++
}

// bare takes exemplars that come without a point.
func (s *metricSink) bare(p *decode.Point) error {
	series, _, err := s.mapper.Series(p)
	if series != nil {
		s.mapper.Exemplars(series, p)
	}
	return err
}

// allows counts a series once an object.
func (s *metricSink) allows(series *metricmapping.Series) bool {
	if series.Object == s.object {
		return true
	}
	if s.maxSeries > 0 && s.series >= s.maxSeries {
		return false
	}
	series.Object = s.object
	s.series++
	return true
}

func (s *metricSink) rejectPoint(reason string, p *decode.Point) error {
	if err := p.Load(); err != nil {
		return err
	}
	s.rejected[reason]++
	metric := s.mapper.CurrentMetric()
	s.err = s.rejects.point(reason, s.mapper.CurrentOrigin(), &metric, p)
	return s.err
}

// deletedBy returns the delete that a point is left out for; zero: it stays. A series is matched once.
func (s *metricSink) deletedBy(series *metricmapping.Series, ns int64) lake.DeleteID {
	if len(s.deletes) == 0 {
		return 0
	}
	matched, ok := s.matched[series]
	if !ok {
		for i := range s.deletes {
			if s.deletes[i].series != nil && s.deletes[i].series(series.File()) {
				matched = append(matched, i)
			}
		}
		s.matched[series] = matched
	}
	for _, i := range matched {
		if s.deletes[i].reaches(ns) {
			return s.deletes[i].id
		}
	}
	return 0
}

// end adds the points of target_info. They count as rows of the object.
func (s *metricSink) end() error {
	if err := s.targets(); err != nil {
		s.err = err
	}
	return s.err
}

func (s *metricSink) targets() error {
	return s.mapper.Targets(func(series *metricmapping.Series, ns int64) error {
		s.in++
		if id := s.deletedBy(series, ns); id != 0 {
			s.delete(id)
			return nil
		}
		s.enter(ns)
		s.mapper.AppendTarget(series, ns, s.receipt.ID)
		return nil
	})
}

// remarks are what a receipt says of points that stand nevertheless.
func (s *metricSink) remarks() (remarks []string) {
	if n := s.mapper.Repaired - s.repaired; n > 0 {
		remarks = append(remarks, fmt.Sprintf("invalid UTF-8 replaced in %d strings", n))
	}
	if n := s.mapper.Orphans - s.orphans; n > 0 {
		remarks = append(remarks, fmt.Sprintf("%d exemplars left out, whose series have no point in the object", n))
	}
	return remarks
}
