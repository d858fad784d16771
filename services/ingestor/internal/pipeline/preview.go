// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"cmp"
	"errors"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/mapping"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metricmapping"
)

// PreviewOptions say how to look at an object.
type PreviewOptions struct {
	Limits config.Limits
	Labels []string // resource attributes that are stream labels
	// Metrics are how names and labels of metrics come about; Retention is how long their points are kept, zero: for ever.
	Metrics   metricmapping.Options
	MaxSeries int
	Retention time.Duration
	Decode    decode.Options
	// Now is the time that the acceptance window is around.
	Now time.Time
	// Rows is how many first rows and first rejects are returned.
	Rows int
}

// Preview is what an object would become.
type Preview struct {
	decode.Result
	In, Out    int64
	Rejected   map[string]int64
	Attributes []PreviewAttribute
	Rows       []PreviewRow
	Rejects    []PreviewReject
}

// PreviewAttribute is one name and type that occurs.
type PreviewAttribute struct {
	Scope string // stream, resource, scope, log or point
	Name  string
	Kind  columns.ValueKind
	Rows  int64
}

// PreviewRow is one row as it would be stored.
type PreviewRow struct {
	Time             time.Time
	TimeSource       columns.TimeSource
	Labels, Metadata []columns.Label
	Body, Template   string
}

// PreviewReject is a row that would not be stored, cut to 1 KiB.
type PreviewReject struct{ Reason, Row string }

const (
	maxPreviewAttributes = 10_000
	maxPreviewReject     = 1 << 10
	maxPreviewMemory     = 64 << 20
)

// Look decodes an object to its end as Work does, and writes nothing. The error is that of content that cannot be decoded; the
// preview says what was found until there.
func Look(content io.Reader, o PreviewOptions) (Preview, error) {
	p := &previewer{
		options: o, accept: newAcceptance(o.Limits, o.Now), preview: Preview{Rejected: map[string]int64{}},
		seen: map[PreviewAttribute]*PreviewAttribute{},
	}
	o.Decode.MaxLineBytes = o.Limits.MaxLineBytes
	result, err := decode.Decode(content, o.Decode, decode.Sinks{Logs: newLogPreviewer(p), Metrics: newMetricPreviewer(p)})
	p.preview.Result = result
	if err != nil {
		p.preview.Problem = reasonOf(err)
	}
	p.preview.Attributes = p.attributes()
	return p.preview, err
}

// previewer counts what it is given.
type previewer struct {
	options PreviewOptions
	accept  acceptance
	preview Preview
	seen    map[PreviewAttribute]*PreviewAttribute
	// shared are the attributes that the current origin gives to each of its rows.
	shared []*PreviewAttribute
	line   []byte
}

func (p *previewer) origin(o *columns.Origin) {
	for i := range o.Resource {
		p.share("resource", o.Resource[i].Name, o.Resource[i].Value.Kind)
	}
	for i := range o.Scope {
		p.share("scope", o.Scope[i].Name, o.Scope[i].Value.Kind)
	}
}

func (p *previewer) share(scope, name string, kind columns.ValueKind) {
	if a := p.attribute(scope, name, kind); a != nil {
		p.shared = append(p.shared, a)
	}
}

// attribute returns the count of a name and type; nil when there are too many.
func (p *previewer) attribute(scope, name string, kind columns.ValueKind) *PreviewAttribute {
	key := PreviewAttribute{Scope: scope, Name: name, Kind: kind}
	if a, ok := p.seen[key]; ok {
		return a
	}
	if len(p.seen) >= maxPreviewAttributes {
		return nil
	}
	key.Name = string([]byte(name)) // the decoder's text does not stay
	a := key
	p.seen[key] = &a
	return &a
}

// row counts a row with its attributes, and says whether it is to be shown.
func (p *previewer) row(scope string, attributes []columns.Attribute) (shown bool) {
	p.preview.Out++
	for _, a := range p.shared {
		a.Rows++
	}
	for i := range attributes {
		if a := p.attribute(scope, attributes[i].Name, attributes[i].Value.Kind); a != nil {
			a.Rows++
		}
	}
	return len(p.preview.Rows) < p.options.Rows
}

// Reject implements decode.Sink and decode.MetricSink.
func (p *previewer) Reject(reason string, raw []byte) error {
	p.preview.In++
	p.reject(reason, raw)
	return nil
}

func (p *previewer) reject(reason string, raw []byte) {
	p.preview.Rejected[reason]++
	if len(p.preview.Rejects) < p.options.Rows {
		row := mapping.Valid(string(raw[:min(len(raw), maxPreviewReject)]))
		p.preview.Rejects = append(p.preview.Rejects, PreviewReject{Reason: reason, Row: row})
	}
}

// logPreviewer shows rows of logs.
type logPreviewer struct {
	*previewer
	logs    *columns.Logs
	mapper  *mapping.Mapper
	streams streamLimit
}

func newLogPreviewer(p *previewer) *logPreviewer {
	logs := columns.NewLogs()
	l := &logPreviewer{previewer: p, logs: logs, mapper: mapping.New(logs), streams: newStreamLimit(p.options.Limits.MaxStreams)}
	l.mapper.SetLabels(p.options.Labels)
	return l
}

// Origin implements decode.Sink.
func (p *logPreviewer) Origin(o *columns.Origin) {
	if p.logs.Bytes() > maxPreviewMemory {
		p.logs.Reset()
		p.mapper.Reset()
	}
	p.mapper.Origin(o)
	p.shared = p.shared[:0]
	for _, l := range p.logs.StreamLabels(p.mapper.Stream()) {
		p.share("stream", l.Name, columns.KindString)
	}
	p.origin(o)
}

// Row implements decode.Sink.
func (p *logPreviewer) Row(r *columns.LogRow) error {
	p.preview.In++
	reason := p.accept.time(r.Time)
	if reason == "" && !p.streams.allows(p.mapper.Stream()) {
		reason = ReasonTooManyStreams
	}
	if reason != "" {
		p.line = decode.AppendOTLP(p.line[:0], reason, p.mapper.CurrentOrigin(), r)
		p.reject(reason, p.line)
		return nil
	}
	p.mapper.Row(r, p.options.Limits.MaxAttributes)
	if p.row("log", r.Attributes) {
		p.preview.Rows = append(p.preview.Rows, p.shownRow(r))
	}
	return nil
}

// shownRow copies a row by way of a Logs, which owns what it gives back.
func (p *logPreviewer) shownRow(r *columns.LogRow) PreviewRow {
	one := columns.NewLogs()
	labels := p.logs.StreamLabels(r.Stream)
	stream, origin := one.Stream(labels), one.Origin(p.logs.OriginOf(r.Origin))
	template := p.mapper.Template(r.Body)
	copied := *r
	copied.Stream, copied.Origin = stream, origin
	one.Append(&copied)
	var own columns.LogRow
	one.Row(0, &own)
	labels = one.StreamLabels(stream)
	return PreviewRow{
		Time: time.Unix(0, own.Time).UTC(), TimeSource: own.TimeSource, Labels: labels,
		Metadata: columns.NewMetadata(one.OriginOf(origin), labels).Append(nil, &own), Body: own.Body, Template: template,
	}
}

func (p *previewer) attributes() []PreviewAttribute {
	all := make([]PreviewAttribute, 0, len(p.seen))
	for a := range maps.Values(p.seen) {
		all = append(all, *a)
	}
	slices.SortFunc(all, func(a, b PreviewAttribute) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
	})
	return all
}

// Unsupported reports whether content is left for a later release: such an object would be skipped.
func Unsupported(err error) bool { return errors.Is(err, decode.ErrUnsupported) }
