// SPDX-License-Identifier: AGPL-3.0-only

package metricmapping

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

const (
	serviceName      = "service.name"
	serviceNamespace = "service.namespace"
	serviceInstance  = "service.instance.id"

	scopePrefix = "otel_scope_"
	// exportedPrefix is for a point's label whose name another one takes, resourcePrefix for a resource's. The first is Prometheus' own for scraped
	// labels.
	exportedPrefix = "exported_"
	resourcePrefix = "resource_"
	// deltaLabel is the query engine's own.
	deltaLabel = "__delta__"
)

// nameMetric finds a metric's name and family, or why it has none.
func (m *Mapper) nameMetric(d *metric) {
	if d.kind == decode.MetricSeries {
		return
	}
	name, err := m.namer.Build(otlptranslator.Metric{Name: m.repair(d.name), Unit: m.repair(d.unit), Type: translatorType(d)})
	if err != nil || name == "" {
		d.reason = ReasonName
		return
	}
	if d.kind != decode.MetricGauge && d.kind != decode.MetricSummary && d.temporality == decode.TemporalityNone {
		d.reason = ReasonTemporality
	}
	d.prom = name
	d.family = metricfile.Family{Type: familyType(d), Unit: m.said(m.units.Build(m.repair(d.unit))), Help: m.said(d.description)}
}

func translatorType(d *metric) otlptranslator.MetricType {
	switch d.kind {
	case decode.MetricGauge:
		return otlptranslator.MetricTypeGauge
	case decode.MetricSum:
		if d.monotonic {
			return otlptranslator.MetricTypeMonotonicCounter
		}
		return otlptranslator.MetricTypeNonMonotonicCounter
	case decode.MetricHistogram:
		return otlptranslator.MetricTypeHistogram
	case decode.MetricExponential:
		return otlptranslator.MetricTypeExponentialHistogram
	case decode.MetricSummary:
		return otlptranslator.MetricTypeSummary
	}
	return otlptranslator.MetricTypeUnknown
}

// familyType is Prometheus' type of a metric; it has none for deltas yet.
func familyType(d *metric) model.MetricType {
	switch {
	case d.typ != "":
		return d.typ
	case d.kind == decode.MetricSummary:
		return model.MetricTypeSummary
	case d.kind == decode.MetricGauge:
		return model.MetricTypeGauge
	case d.temporality == decode.TemporalityDelta:
		return model.MetricTypeUnknown
	case d.kind == decode.MetricSum && d.monotonic:
		return model.MetricTypeCounter
	case d.kind == decode.MetricSum:
		return model.MetricTypeGauge
	}
	return model.MetricTypeHistogram
}

// originLabels makes the labels that an origin gives to all its series.
func (m *Mapper) originLabels(o *origin) {
	resource := o.own.Resource
	instance, hasInstance := attributeText(resource, serviceInstance)
	o.instance = instance
	if name, ok := attributeText(resource, serviceName); ok {
		o.job = name
		if namespace, ok := attributeText(resource, serviceNamespace); ok {
			o.job = namespace + "/" + name
		}
	}
	o.identity = !hasInstance || instance == ""
	m.pairs = m.pairs[:0]
	promoted := m.promotes(o)
	for i := range m.byName(resource) {
		if a := &m.sorted[i]; promoted(a.Name) && !m.join(a.Name, a.Value.Text()) {
			o.reason = ReasonName
		}
	}
	o.promoted = slices.Clone(m.pairs)
	m.scopeLabels(o)
	m.describeTarget(o)
}

// byName sorts attributes into m.sorted.
func (m *Mapper) byName(attributes []columns.Attribute) []columns.Attribute {
	m.sorted = append(m.sorted[:0], attributes...)
	slices.SortStableFunc(m.sorted, func(a, b columns.Attribute) int { return strings.Compare(a.Name, b.Name) })
	return m.sorted
}

// attributeText is the text of the first attribute of a name.
func attributeText(attributes []columns.Attribute, name string) (string, bool) {
	for i := range attributes {
		if attributes[i].Name == name {
			return attributes[i].Value.Text(), true
		}
	}
	return "", false
}

// promotes tells which attributes of a resource are labels. A resource that does not say which instance it is has to be told from all others by what
// it says: by all its attributes, but for those that only describe what others identify.
func (m *Mapper) promotes(o *origin) func(name string) bool {
	if !o.identity {
		return func(name string) bool { return m.promote[name] }
	}
	identified := slices.ContainsFunc(o.own.Resource, func(a columns.Attribute) bool { return identifies(a.Name) && a.Value.Text() != "" })
	return func(name string) bool {
		return m.promote[name] || m.identifying[name] || !identified || !describes(name)
	}
}

// scopeLabels makes the labels of a scope. One without a name has labels for what else tells it from others.
func (m *Mapper) scopeLabels(o *origin) {
	if !m.options.ScopeLabels {
		return
	}
	m.pairs = m.pairs[:0]
	for i := range o.own.Scope {
		name, ok := m.labelName(scopePrefix + o.own.Scope[i].Name)
		if !ok {
			o.reason = ReasonName
			return
		}
		m.joinLabel(name, o.own.Scope[i].Value.Text())
	}
	for _, p := range []pair{{"name", o.own.ScopeName}, {"version", o.own.ScopeVersion}, {"schema_url", o.own.ScopeSchemaURL}} {
		m.override(pair{scopePrefix + p.name, p.value})
	}
	o.scope = slices.Clone(m.pairs)
}

// labelName translates an attribute's name; false if it has none that a label can have.
func (m *Mapper) labelName(name string) (string, bool) {
	if known, ok := m.names[name]; ok {
		return known, known != ""
	}
	translated, err := m.labels.Build(name)
	if err != nil {
		translated = ""
	}
	if len(m.names) < maxNames {
		translated = strings.Clone(translated) // it may be the name itself, which is the decoder's
		m.names[strings.Clone(name)] = translated
		m.bytes += int64(len(name)+len(translated)) + 64
	}
	return translated, translated != ""
}

// maxNames bounds what is remembered of attribute names.
const maxNames = 10_000

// join adds a label for an attribute to m.pairs; false if its name cannot be one.
func (m *Mapper) join(name, value string) bool {
	label, ok := m.labelName(name)
	if ok {
		m.joinLabel(label, value)
	}
	return ok
}

// joinLabel adds a label to m.pairs. Values of attributes whose names become one are joined, as Prometheus does.
func (m *Mapper) joinLabel(name, value string) {
	switch existing := m.pair(name); {
	case existing == nil && value != "":
		m.pairs = append(m.pairs, pair{name, value})
	case existing != nil:
		existing.value += ";" + value
	}
}

func (m *Mapper) pair(name string) *pair {
	for i := range m.pairs {
		if m.pairs[i].name == name {
			return &m.pairs[i]
		}
	}
	return nil
}

// override adds a label to m.pairs whose place another one may have, which is kept under another name.
func (m *Mapper) override(p pair) {
	if p.value == "" {
		return
	}
	if existing := m.pair(p.name); existing != nil {
		existing.name = m.free(exportedPrefix + p.name)
	}
	m.pairs = append(m.pairs, p)
}

// free is a name that no label has yet.
func (m *Mapper) free(name string) string {
	for m.pair(name) != nil {
		name = exportedPrefix + name
	}
	return name
}

// pointLabels are the labels of a point's series.
func (m *Mapper) pointLabels(d *metric, p *decode.Point) (labels.Labels, string) {
	o := d.origin
	if o.reason != "" {
		return labels.EmptyLabels(), o.reason
	}
	if most := m.options.MaxAttributes; most > 0 && o.attributes+len(p.Attributes) > most {
		return labels.EmptyLabels(), ReasonLabels
	}
	if !m.attributeLabels(p.Attributes, d.kind) {
		return labels.EmptyLabels(), ReasonName
	}
	m.originPairs(o)
	m.override(pair{model.MetricNameLabel, d.prom})
	return m.build()
}

// attributeLabels makes the labels of a point's own attributes.
func (m *Mapper) attributeLabels(attributes []columns.Attribute, kind decode.MetricKind) bool {
	m.pairs = m.pairs[:0]
	for i := range m.byName(attributes) {
		if !m.join(m.repair(m.sorted[i].Name), m.repair(m.sorted[i].Value.Text())) {
			return false
		}
	}
	for i := range m.pairs {
		if reserved(m.pairs[i].name, kind) {
			m.pairs[i].name = m.free(exportedPrefix + m.pairs[i].name)
		}
	}
	return true
}

// reserved reports whether a label's name is one that the series of a metric get.
func reserved(name string, kind decode.MetricKind) bool {
	switch name {
	case deltaLabel:
		return true
	case metricfile.BucketLabel:
		return kind == decode.MetricHistogram
	case metricfile.QuantileLabel:
		return kind == decode.MetricSummary
	}
	return false
}

// originPairs adds an origin's labels to m.pairs: a point's own stand before promoted ones, and give way to those that say where the point is from.
func (m *Mapper) originPairs(o *origin) {
	for _, p := range o.promoted {
		switch existing := m.pair(p.name); {
		case existing == nil:
			m.pairs = append(m.pairs, p)
		case o.identity && existing.value != p.value:
			m.pairs = append(m.pairs, pair{m.free(resourcePrefix + p.name), p.value})
		}
	}
	m.override(pair{model.JobLabel, o.job})
	m.override(pair{model.InstanceLabel, o.instance})
	for _, p := range o.scope {
		m.override(p)
	}
}

// build makes labels of m.pairs.
func (m *Mapper) build() (labels.Labels, string) {
	m.builder.Reset()
	for _, p := range m.pairs {
		if most := m.options.MaxLabelBytes; most > 0 && len(p.name)+len(p.value) > most {
			return labels.EmptyLabels(), ReasonLabels
		}
		m.builder.Add(p.name, p.value)
	}
	m.builder.Sort()
	return m.builder.Labels(), ""
}

// finalLabels are the labels of a series of Prometheus'. A name that comes twice makes them none.
func (m *Mapper) finalLabels(p *decode.Point) (labels.Labels, string) {
	if most := m.options.MaxAttributes; most > 0 && len(p.Attributes) > most {
		return labels.EmptyLabels(), ReasonLabels
	}
	m.pairs = m.pairs[:0]
	named := false
	for i := range p.Attributes {
		name, value := m.repair(p.Attributes[i].Name), m.repair(p.Attributes[i].Value.Text())
		if name == "" || m.pair(name) != nil {
			return labels.EmptyLabels(), ReasonName
		}
		if value == "" {
			continue
		}
		named = named || name == model.MetricNameLabel
		if name == deltaLabel {
			name = m.free(exportedPrefix + name)
		}
		m.pairs = append(m.pairs, pair{name, value})
	}
	if !named {
		return labels.EmptyLabels(), ReasonName
	}
	return m.build()
}
