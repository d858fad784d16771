// SPDX-License-Identifier: AGPL-3.0-only

package metricmapping

import (
	"maps"
	"slices"
	"time"
	"unsafe"

	"github.com/prometheus/common/model"

	"github.com/lakerunner/lakerunner/pkg/metricfile"
)

// targetName is the metric that tells of a resource what its series do not have as labels.
const targetName = "target_info"

// targetInterval is the most between two points of target_info: half of the time that a sample is good for.
const targetInterval = int64(150 * time.Second)

// resource is when points of a resource were, in the content at hand.
type resource struct {
	target *Series
	// spans are the first and last times in each interval, by its number.
	spans map[int64]*timeSpan
	last  *timeSpan
}

// timeSpan are the times of points within [from, to).
type timeSpan struct{ from, to, first, last int64 }

// describeTarget makes target_info's series of a resource. There is none for a resource of nothing but what job and instance are made of, nor for
// one that has neither.
func (m *Mapper) describeTarget(o *origin) {
	if !m.options.TargetInfo {
		return
	}
	others := 0
	m.pairs = m.pairs[:0]
	for i := range m.byName(o.own.Resource) {
		switch a := &m.sorted[i]; a.Name {
		case serviceName, serviceNamespace, serviceInstance:
		default:
			others++
			if !m.join(a.Name, a.Value.Text()) {
				return
			}
		}
	}
	if others == 0 || o.job == "" && o.instance == "" {
		return
	}
	m.override(pair{model.JobLabel, o.job})
	m.override(pair{model.InstanceLabel, o.instance})
	m.override(pair{model.MetricNameLabel, targetName})
	labels, reason := m.build()
	if reason != "" {
		return
	}
	o.target = &Series{metric: m.targets, file: metricfile.Series{
		Labels: labels, Kind: metricfile.KindFloat, Family: metricfile.Family{Type: model.MetricTypeGauge, Help: "Target metadata"},
	}}
	m.bytes += int64(unsafe.Sizeof(Series{})) + int64(labels.ByteSize())
}

// Saw notes the time of a point of the current origin that is kept: target_info is as old and as young as they are.
func (m *Mapper) Saw(ns int64) {
	o := m.current
	if o.target == nil {
		return
	}
	if o.resource == nil || o.resourceOf != m.content {
		m.enterResource(o)
	}
	r := o.resource
	if r.last == nil || ns < r.last.from || ns >= r.last.to {
		m.enterSpan(r, ns)
	}
	r.last.first, r.last.last = min(r.last.first, ns), max(r.last.last, ns)
}

func (m *Mapper) enterResource(o *origin) {
	r, ok := m.resources[o.key]
	if !ok {
		r = &resource{target: o.target, spans: map[int64]*timeSpan{}}
		m.resources[o.key] = r
		m.bytes += int64(unsafe.Sizeof(*r)) + 256
	}
	o.resource, o.resourceOf = r, m.content
}

func (m *Mapper) enterSpan(r *resource, ns int64) {
	number := ns / targetInterval
	if ns%targetInterval < 0 {
		number--
	}
	span, ok := r.spans[number]
	if !ok {
		span = &timeSpan{from: number * targetInterval, first: ns, last: ns}
		span.to = span.from + targetInterval
		r.spans[number] = span
		m.bytes += int64(unsafe.Sizeof(*span)) + 64
	}
	r.last = span
}

// Targets gives the points of target_info for what Saw was told since it was called last, as Prometheus makes them: at the first time, each interval
// after it, and the last time. Where there were no points for an interval there are none of target_info.
func (m *Mapper) Targets(give func(s *Series, ns int64) error) error {
	for _, key := range slices.Sorted(maps.Keys(m.resources)) {
		r := m.resources[key]
		if r.target.generation != m.generation {
			m.enter(r.target)
		}
		if err := r.points(give); err != nil {
			return err
		}
		clear(r.spans)
		r.last = nil
	}
	return nil
}

func (r *resource) points(give func(s *Series, ns int64) error) error {
	numbers := slices.Sorted(maps.Keys(r.spans))
	for len(numbers) > 0 {
		run := 1
		for run < len(numbers) && numbers[run] == numbers[run-1]+1 {
			run++
		}
		first, last := r.spans[numbers[0]].first, r.spans[numbers[run-1]].last
		for at := first; at < last; at += targetInterval {
			if err := give(r.target, at); err != nil {
				return err
			}
		}
		if err := give(r.target, last); err != nil {
			return err
		}
		numbers = numbers[run:]
	}
	return nil
}
