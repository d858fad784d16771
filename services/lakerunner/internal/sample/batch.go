// SPDX-License-Identifier: AGPL-3.0-only

package sample

import (
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
)

// batch collects the rows of one object, a resource a pod.
type batch struct {
	shop      *shop
	order     []*pod
	resources map[*pod]*logspb.ResourceLogs
}

func newBatch(g *shop) *batch {
	return &batch{shop: g, resources: map[*pod]*logspb.ResourceLogs{}}
}

// add makes the next row.
func (b *batch) add(at time.Time) Row {
	service := b.shop.pickService()
	pod := service.pods[b.shop.random.IntN(len(service.pods))]
	e := service.write(b.shop, at)
	record := e.record(at)
	scope := b.scopeOf(pod)
	scope.LogRecords = append(scope.LogRecords, record)
	return Row{Time: at, Service: service.name, Level: e.level.text, Line: e.body}
}

func (b *batch) data() *logspb.LogsData {
	out := &logspb.LogsData{}
	for _, p := range b.order {
		out.ResourceLogs = append(out.ResourceLogs, b.resources[p])
	}
	return out
}

func (b *batch) scopeOf(p *pod) *logspb.ScopeLogs {
	if r, ok := b.resources[p]; ok {
		return r.ScopeLogs[0]
	}
	r := &logspb.ResourceLogs{
		Resource:  &resourcepb.Resource{Attributes: p.attributes()},
		ScopeLogs: []*logspb.ScopeLogs{{Scope: &commonpb.InstrumentationScope{Name: "shop/" + p.service.name, Version: "1.4.2"}}},
	}
	b.order = append(b.order, p)
	b.resources[p] = r
	return r.ScopeLogs[0]
}

func (p *pod) attributes() []*commonpb.KeyValue {
	return []*commonpb.KeyValue{
		text("service.name", p.service.name),
		text("service.namespace", "shop"),
		text("service.version", "1.4.2"),
		text("deployment.environment", "demo"),
		text("k8s.namespace.name", p.service.namespace),
		text("k8s.pod.name", p.name),
		text("k8s.node.name", p.node),
		text("k8s.cluster.name", "demo"),
	}
}

func (e entry) record(at time.Time) *logspb.LogRecord {
	return &logspb.LogRecord{
		TimeUnixNano:         uint64(at.UnixNano()),
		ObservedTimeUnixNano: uint64(at.Add(120 * time.Millisecond).UnixNano()),
		SeverityNumber:       e.level.number,
		SeverityText:         e.level.text,
		Body:                 &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: e.body}},
		Attributes:           e.attributes,
		TraceId:              e.trace,
		SpanId:               e.span,
	}
}

func text(name, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: name, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

func integer(name string, value int64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: name, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: value}}}
}

func float(name string, value float64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: name, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: value}}}
}
