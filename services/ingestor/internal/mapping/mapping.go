// SPDX-License-Identifier: AGPL-3.0-only

// Package mapping makes of a decoded row what segments hold: its stream as Loki's OTLP endpoint forms it, its detected level as Loki's
// distributor finds it, its message template, and text that is valid UTF-8.
//
// Streams. The resource attributes that the organization lists are the labels of the row's stream, under their LogQL names, maps
// flattened; all else is structured metadata (columns.Metadata). service_name is the label of service.name, else of the first
// label that names a service in another way (see serviceLabels), else unknown_service.
//
// Levels. A detected_level that the producer gave, normalized; else the value of the first name of a list (level, severity, ...) that the
// stream's labels, then the row's metadata have; else that of the severity number; else what the line speaks of: a level's field
// of JSON or logfmt, its first word that is a level's, or unknown.
//
// The package is deterministic: equal rows give equal results, wherever and whenever.
package mapping

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/grafana/loki/v3/pkg/logql/log/logfmt"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/template"
)

const (
	serviceAttribute = "service.name"
	serviceLabel     = columns.ServiceLabel
	unknownService   = "unknown_service"
)

// serviceLabels returns the labels that name a service where service.name does not.
func serviceLabels() []string {
	return []string{
		"service", "app", "application", "app_name", "name", "app_kubernetes_io_name", "container", "container_name",
		"k8s_container_name", "component", "workload", "job", "k8s_job_name",
	}
}

// Mapper maps the rows that go to one columns.Logs. It is for one goroutine.
type Mapper struct {
	logs      *columns.Logs
	templates *template.Templater
	services  []string
	fields    []string
	fieldRank map[string]int
	logfmt    *logfmt.Decoder

	listed   []string
	isLabel  map[string]bool
	identity string

	// origins are what is known of the origins of logs, by number.
	origins []*origin
	current *origin
	scratch columns.Origin

	// guesses are what attributes of the row before were for, by position.
	guesses []guess
	uses    map[string]guess

	// Repaired counts strings of rows that were not valid UTF-8.
	Repaired int64
}

// origin is what the rows of one resource and scope share.
type origin struct {
	id     columns.OriginID
	stream columns.StreamID
	// attributes counts those of resource and scope.
	attributes int
	levels     levels
	label      string // level of the stream's labels, and whether they have one
	hasLabel   bool
}

// levels are the entries of metadata that a level is found by; of several of one kind the first counts.
type levels struct {
	detected    string
	hasDetected bool
	number      string // of an attribute that is named as the record's own field is
	field       string
	rank        int // of field in the list of fields; its length: none
}

// New returns a Mapper of rows into logs.
func New(logs *columns.Logs) *Mapper {
	m := &Mapper{
		logs: logs, templates: template.New(), services: serviceLabels(), fields: levelFields(),
		fieldRank: map[string]int{}, logfmt: logfmt.NewDecoder(nil), uses: map[string]guess{},
	}
	for rank, name := range m.fields {
		m.fieldRank[name] = rank
	}
	return m
}

// SetLabels sets the names of the resource attributes that are stream labels, for the origins that follow.
func (m *Mapper) SetLabels(names []string) {
	if m.isLabel != nil && slices.Equal(names, m.listed) {
		return
	}
	m.listed, m.isLabel = slices.Clone(names), make(map[string]bool, len(names))
	for _, name := range names {
		m.isLabel[name] = true
	}
	m.Reset()
}

// SetIdentity sets the log attribute that identifies rows of the origins that follow; empty: none does.
func (m *Mapper) SetIdentity(attribute string) { m.identity = attribute }

// Reset forgets the origins; it must be called when the logs were reset.
func (m *Mapper) Reset() { m.origins, m.current = m.origins[:0], nil }

// Resume is Reset in the middle of an origin's rows: more of them follow.
func (m *Mapper) Resume() {
	m.Reset()
	o := m.scratch
	m.Origin(&o)
}

// CurrentOrigin is the resource and scope of the rows that follow. It is valid until the next one.
func (m *Mapper) CurrentOrigin() *columns.Origin { return &m.scratch }

// Stream is the current origin's stream.
func (m *Mapper) Stream() columns.StreamID { return m.current.stream }

// Origin sets the resource and scope of the rows that follow. It copies what it keeps.
func (m *Mapper) Origin(o *columns.Origin) {
	m.scratch = columns.Origin{
		Resource:          m.repairAttributes(append(m.scratch.Resource[:0], o.Resource...)),
		Scope:             m.repairAttributes(append(m.scratch.Scope[:0], o.Scope...)),
		ResourceSchemaURL: m.repair(o.ResourceSchemaURL),
		ScopeName:         m.repair(o.ScopeName),
		ScopeVersion:      m.repair(o.ScopeVersion),
		ScopeSchemaURL:    m.repair(o.ScopeSchemaURL),
		Identity:          m.identity,
	}
	id := m.logs.Origin(m.scratch)
	for int(id) >= len(m.origins) {
		m.origins = append(m.origins, nil)
	}
	if m.origins[id] == nil {
		m.origins[id] = m.describe(id)
	}
	m.current = m.origins[id]
}

func (m *Mapper) describe(id columns.OriginID) *origin {
	own := m.logs.OriginOf(id)
	labels := m.labels(own.Resource)
	o := &origin{id: id, stream: m.logs.Stream(labels), attributes: len(own.Resource) + len(own.Scope)}
	for _, name := range m.fields {
		if i := slices.IndexFunc(labels, func(l columns.Label) bool { return l.Name == name && l.Value != "" }); i >= 0 {
			o.label, o.hasLabel = labels[i].Value, true
			break
		}
	}
	o.levels.rank = len(m.fields)
	for i := range own.Resource {
		if !m.isLabel[own.Resource[i].Name] {
			m.see(&o.levels, &own.Resource[i])
		}
	}
	for i := range own.Scope {
		m.see(&o.levels, &own.Scope[i])
	}
	return o
}

// labels are the stream labels of a resource, sorted.
func (m *Mapper) labels(resource []columns.Attribute) []columns.Label {
	found := false
	for i := range resource {
		found = found || resource[i].Name == serviceAttribute && resource[i].Value.Text() != ""
	}
	var labels []columns.Label
	for i := range resource {
		if !m.isLabel[resource[i].Name] {
			continue
		}
		for _, l := range columns.AppendFlat(nil, &resource[i]) {
			labels = setLabel(labels, l)
			if !found && slices.Contains(m.services, l.Name) {
				found = true
				labels = setLabel(labels, columns.Label{Name: serviceLabel, Value: l.Value})
			}
		}
	}
	if !found || len(labels) == 0 {
		labels = setLabel(labels, columns.Label{Name: serviceLabel, Value: unknownService})
	}
	slices.SortFunc(labels, func(a, b columns.Label) int { return strings.Compare(a.Name, b.Name) })
	return labels
}

func setLabel(labels []columns.Label, l columns.Label) []columns.Label {
	for i := range labels {
		if labels[i].Name == l.Name {
			labels[i].Value = l.Value
			return labels
		}
	}
	return append(labels, l)
}

// Row fills in what the decoder leaves to the mapping, and repairs text. At most maxAttributes attributes are kept, those of resource
// and scope included; the others count as dropped.
func (m *Mapper) Row(r *columns.LogRow, maxAttributes int) {
	r.Body, r.SeverityText, r.EventName = m.repair(r.Body), m.repair(r.SeverityText), m.repair(r.EventName)
	r.Attributes = m.repairAttributes(r.Attributes)
	if room := max(maxAttributes-m.current.attributes, 0); maxAttributes > 0 && len(r.Attributes) > room {
		r.DroppedAttributes += uint32(len(r.Attributes) - room)
		r.Attributes = r.Attributes[:room]
	}
	r.Stream, r.Origin = m.current.stream, m.current.id
	r.DetectedLevel = m.level(r)
	r.Fingerprint = m.templates.Fingerprint(r.Body)
}

// Template returns the message template of a body. It is valid until the next row.
func (m *Mapper) Template(body string) string { return string(m.templates.Template(body)) }

func (m *Mapper) level(r *columns.LogRow) string {
	found := levels{rank: len(m.fields)}
	for i := range r.Attributes {
		m.seeAt(i, &found, &r.Attributes[i])
	}
	// The record's own fields stand after its attributes, and those of the resource and the scope after them.
	if rank := m.fieldRank[columns.MetadataSeverityText]; r.SeverityText != "" && rank < found.rank {
		found.rank, found.field = rank, r.SeverityText
	}
	shared := &m.current.levels
	if shared.rank < found.rank {
		found.rank, found.field = shared.rank, shared.field
	}
	switch {
	case found.hasDetected:
		return normalizeLevel(found.detected)
	case shared.hasDetected:
		return normalizeLevel(shared.detected)
	case m.current.hasLabel:
		return normalizeLevel(m.current.label)
	case found.rank < len(m.fields):
		return normalizeLevel(found.field)
	case found.number != "":
		return levelOfNumberText(found.number)
	case r.SeverityNumber != 0:
		return levelOfNumber(int(r.SeverityNumber))
	case shared.number != "":
		return levelOfNumberText(shared.number)
	}
	return m.levelOfLine(r.Body)
}

// levelOfNumberText is the level of an attribute that is named as the severity number is.
func levelOfNumberText(s string) string {
	n, err := strconv.Atoi(s)
	if err != nil {
		return "info"
	}
	return levelOfNumber(max(n, 0))
}

// use is what an attribute's name means for the level: a rank in the list of fields, or one of those below.
type use int8

const (
	useNone     use = -1
	useDetected use = -2
	useNumber   use = -3
)

// guess is an attribute's name and its use.
type guess struct {
	name string
	use  use
}

// maxNames bounds what is remembered of attribute names.
const maxNames = 4096

// seeAt is see for the attribute at a position of a row: it is mostly named as that of the row before.
func (m *Mapper) seeAt(position int, found *levels, a *columns.Attribute) {
	if position >= len(m.guesses) {
		if position >= maxNames {
			m.see(found, a)
			return
		}
		m.guesses = append(m.guesses, m.useOf(a.Name))
	}
	g := &m.guesses[position]
	if g.name != a.Name {
		*g = m.useOf(a.Name)
	}
	if g.use != useNone || a.Value.Kind == columns.KindMap {
		m.see(found, a)
	}
}

// see notes what an attribute says of the level.
func (m *Mapper) see(found *levels, a *columns.Attribute) {
	if a.Value.Kind == columns.KindMap {
		for _, l := range columns.AppendFlat(nil, a) {
			m.note(found, m.useOf(l.Name).use, l.Value)
		}
		return
	}
	if g := m.useOf(a.Name); g.use != useNone {
		m.note(found, g.use, a.Value.Text())
	}
}

func (m *Mapper) note(found *levels, use use, value string) {
	switch {
	case use == useDetected && !found.hasDetected:
		found.hasDetected, found.detected = true, value
	case use == useNumber && found.number == "":
		found.number = value
	case use >= 0 && int(use) < found.rank:
		found.rank, found.field = int(use), value
	}
}

func (m *Mapper) useOf(name string) guess {
	if g, ok := m.uses[name]; ok {
		return g
	}
	g := guess{name: strings.Clone(name), use: useNone}
	switch translated := columns.LogQLName(name); translated {
	case columns.MetadataDetectedLevel:
		g.use = useDetected
	case columns.MetadataSeverityNumber:
		g.use = useNumber
	default:
		if rank, ok := m.fieldRank[translated]; ok {
			g.use = use(rank)
		}
	}
	if len(m.uses) < maxNames {
		m.uses[g.name] = g
	}
	return g
}

func (m *Mapper) repairAttributes(attributes []columns.Attribute) []columns.Attribute {
	for i := range attributes {
		a := &attributes[i]
		a.Name = m.repair(a.Name)
		if a.Value.Kind != columns.KindBytes {
			a.Value.Str = m.repair(a.Value.Str)
		}
	}
	return attributes
}

// repair replaces what is not UTF-8: one such string would make a whole segment unreadable.
func (m *Mapper) repair(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	m.Repaired++
	return Valid(s)
}

// Valid returns s with what is not UTF-8 replaced.
func Valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
