// SPDX-License-Identifier: AGPL-3.0-only

// Package metricmapping makes series and points of a metric segment of what decoders find: names and labels as Prometheus' OTLP endpoint forms
// them, exponential histograms as native ones, classic histograms and summaries as one row each, target_info.
//
// Invariants:
//
//   - Series that differ in an attribute differ in a label. Where Prometheus lets one label take the place of another, the other is kept under a name
//     beside it (exported_, resource_); where a resource has no service.instance.id, what may identify it is promoted.
//   - Labels are made once a series, not once a point, however many contents bring it; a series is known by the bytes of its attributes, compared and
//     not only hashed.
//   - Equal points give equal series and values, wherever and whenever.
//
// It decides about no point: what is too old, too much or deleted is the caller's. docs/metrics.md has the rules in full.
package metricmapping

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/prometheus/common/model"
	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// Reasons for points that cannot become samples.
const (
	ReasonName        = "invalid_name"          // the metric, or a label, has none that Prometheus could have
	ReasonLabels      = "too_many_labels"       // more attributes than the organization's limit, or longer ones
	ReasonTemporality = "unknown_temporality"   // a sum or histogram that says neither cumulative nor delta
	ReasonHistogram   = "unsupported_histogram" // an exponential histogram that no native histogram can hold, or one that contradicts itself
)

// Mapper maps the points that go to one metricfile.Store. It is for one goroutine.
type Mapper struct {
	store   *metricfile.Store
	options Options
	promote map[string]bool
	// identifying are promoted where there is no service.instance.id.
	identifying map[string]bool
	namer       otlptranslator.MetricNamer
	labels      otlptranslator.LabelNamer
	units       otlptranslator.UnitNamer

	// names are label names by attribute names. origins, metrics and series stay from content to content; generation tells whose number is of the
	// store as it is now.
	names      map[string]string
	origins    map[string]*origin
	series     map[uint64]*Series
	seed       maphash.Seed
	generation uint32
	metrics    uint64 // how many there were: their ids
	bytes      int64
	// content is the number of the content at hand.
	content uint64

	families map[string]decode.Family
	// resources are those of the content at hand.
	resources map[string]*resource
	current   *origin
	metric    *metric

	key     []byte
	pairs   []pair
	sorted  []columns.Attribute
	builder labels.ScratchBuilder
	targets *metric // of target_info

	// Repaired counts strings that were not valid UTF-8; Orphans exemplars of series that have no point.
	Repaired, Orphans int64
}

// pair is a label.
type pair struct{ name, value string }

// origin is what the metrics of one resource and scope share.
type origin struct {
	key string // of the resource
	// resource is that of the content resourceOf.
	resource   *resource
	resourceOf uint64
	// promoted, job, instance and scope are labels; identity says that promoted labels tell instances apart.
	promoted      []pair
	identity      bool
	job, instance string
	scope         []pair
	reason        string // why no label could be made
	attributes    int
	target        *Series // target_info; nil: there is none
	own           columns.Origin
	metrics       map[metricKey]*metric
	// last is the metric before, whose next is a good guess.
	last, first *metric
}

// metricKey is all that a metric says of itself, so that nothing of one organization's goes on to another's.
type metricKey struct {
	name, unit, description string
	kind                    decode.MetricKind
	temporality             decode.Temporality
	monotonic               bool
	typ                     model.MetricType
}

// metric is one metric of one origin.
type metric struct {
	metricKey
	origin *origin
	id     uint64
	next   *metric
	prom   string // name
	family metricfile.Family
	reason string // why its points cannot be samples
	// last is the series of the point before: the next point is of the same, or of the one that followed it the last time.
	last, first *Series
}

// Series is a series as the points of one metric and one set of attributes have it.
type Series struct {
	file       metricfile.Series
	metric     *metric
	key        string
	shape      uint8
	next       *Series // that followed it
	chain      *Series // of the same hash
	id         metricfile.SeriesID
	generation uint32
	// row is its latest in the store of the generation rowOf.
	row   uint32
	rowOf uint32
	// Object is the caller's: the number of the content that brought it last.
	Object uint64
}

// Labels are the series' labels; of a histogram or summary with its base name.
func (s *Series) Labels() labels.Labels { return s.file.Labels }

// File is the series as the store has it. It is not to be changed.
func (s *Series) File() *metricfile.Series { return &s.file }

const (
	shapeNoSum uint8 = 1 << iota
	shapeNative
)

// New returns a Mapper of points into a store.
func New(store *metricfile.Store) *Mapper {
	m := &Mapper{
		store: store, seed: maphash.MakeSeed(), families: map[string]decode.Family{}, builder: labels.NewScratchBuilder(32),
		targets: &metric{metricKey: metricKey{name: "target_info", kind: decode.MetricGauge}},
	}
	m.SetOptions(OptionsOf(config.DefaultMetrics(), config.DefaultLimits()))
	return m
}

// SetOptions sets how names and labels come about, for the origins that follow.
func (m *Mapper) SetOptions(o Options) {
	if m.promote != nil && m.options.equal(o) {
		return
	}
	o.Promote, o.Identifying = slices.Clone(o.Promote), slices.Clone(o.Identifying)
	m.options, m.promote, m.identifying = o, setOf(o.Promote), setOf(o.Identifying)
	m.namer = otlptranslator.MetricNamer{WithMetricSuffixes: o.Suffixes, UTF8Allowed: o.UTF8}
	m.labels = otlptranslator.LabelNamer{
		UTF8Allowed: o.UTF8, PreserveMultipleUnderscores: true,
		UnderscoreLabelSanitization: true, //nolint:staticcheck // as Prometheus has it where nobody says otherwise
	}
	m.Forget()
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

// Forget gives back the memory of all series and origins.
func (m *Mapper) Forget() {
	m.names, m.origins, m.series, m.bytes = map[string]string{}, map[string]*origin{}, map[uint64]*Series{}, 0
	m.resources, m.current, m.metric = map[string]*resource{}, nil, nil
	m.generation++
}

// Reset must be called when the store was reset.
func (m *Mapper) Reset() { m.generation++ }

// Begin begins the points of another content.
func (m *Mapper) Begin() {
	clear(m.resources)
	m.content++
	m.current, m.metric = nil, nil
}

// BeginOrganization forgets what one organization told of its families.
func (m *Mapper) BeginOrganization() { clear(m.families) }

// Bytes is about how much memory the mapper holds.
func (m *Mapper) Bytes() int64 { return m.bytes }

// Resume is Forget in the middle of a content, when what target_info there is has been taken: points of the same origin and metric follow.
func (m *Mapper) Resume() {
	current, now := m.current, m.metric
	m.Forget()
	if current == nil {
		return
	}
	own := current.own
	m.Origin(&own)
	if now != nil {
		m.Metric(&decode.Metric{
			Name: now.name, Unit: now.unit, Description: now.description, Kind: now.kind, Temporality: now.temporality, Monotonic: now.monotonic,
			Type: now.typ,
		})
	}
}

// CurrentOrigin is the resource and scope of the points that follow, and CurrentMetric their metric. Both are valid until the next one.
func (m *Mapper) CurrentOrigin() *columns.Origin { return &m.current.own }

// CurrentMetric is the metric of the points that follow.
func (m *Mapper) CurrentMetric() decode.Metric {
	k := m.metric.metricKey
	return decode.Metric{Name: k.name, Unit: k.unit, Description: k.description, Kind: k.kind, Temporality: k.temporality, Monotonic: k.monotonic, Type: k.typ}
}

// Origin sets the resource and scope of the metrics that follow. It copies what it keeps.
func (m *Mapper) Origin(o *columns.Origin) {
	m.metric = nil
	m.key = appendAttributes(m.key[:0], o.Resource)
	resourceEnd := len(m.key)
	m.key = appendText(appendText(appendText(m.key, o.ScopeName), o.ScopeVersion), o.ScopeSchemaURL)
	m.key = appendText(appendAttributes(m.key, o.Scope), o.ResourceSchemaURL)
	known, ok := m.origins[string(m.key)]
	if !ok {
		key := string(m.key)
		known = m.describe(o)
		known.key = key[:resourceEnd]
		m.origins[key] = known
		m.bytes += int64(4*len(key)) + int64(unsafe.Sizeof(origin{})) + 512
	}
	m.current = known
	known.last = nil
}

// appendAttributes writes attributes so that different ones differ.
func appendAttributes(key []byte, attributes []columns.Attribute) []byte {
	key = binary.AppendUvarint(key, uint64(len(attributes)))
	for i := range attributes {
		v := &attributes[i].Value
		key = append(appendText(key, attributes[i].Name), byte(v.Kind))
		switch v.Kind {
		case columns.KindInt, columns.KindDouble, columns.KindBool:
			key = binary.LittleEndian.AppendUint64(key, v.Num)
		default:
			key = appendText(key, v.Str)
		}
	}
	return key
}

func appendText(key []byte, s string) []byte {
	return append(binary.AppendUvarint(key, uint64(len(s))), s...)
}

// describe copies an origin and makes its labels.
func (m *Mapper) describe(o *columns.Origin) *origin {
	own := columns.Origin{
		Resource: m.copyAttributes(o.Resource), Scope: m.copyAttributes(o.Scope), ResourceSchemaURL: m.repair(strings.Clone(o.ResourceSchemaURL)),
		ScopeName: m.repair(strings.Clone(o.ScopeName)), ScopeVersion: m.repair(strings.Clone(o.ScopeVersion)),
		ScopeSchemaURL: m.repair(strings.Clone(o.ScopeSchemaURL)),
	}
	d := &origin{own: own, metrics: map[metricKey]*metric{}, attributes: len(own.Resource) + len(own.Scope)}
	m.originLabels(d)
	return d
}

func (m *Mapper) copyAttributes(attributes []columns.Attribute) []columns.Attribute {
	copied := slices.Clone(attributes)
	for i := range copied {
		a := &copied[i]
		a.Name, a.Value.Str = m.repair(strings.Clone(a.Name)), strings.Clone(a.Value.Str)
		if a.Value.Kind != columns.KindBytes {
			a.Value.Str = m.repair(a.Value.Str)
		}
	}
	return copied
}

// Metric sets the metric of the points that follow. It copies what it keeps.
func (m *Mapper) Metric(d *decode.Metric) {
	if m.current == nil {
		m.Origin(&columns.Origin{})
	}
	o := m.current
	key := metricKey{
		name: d.Name, unit: d.Unit, description: d.Description, kind: d.Kind, temporality: d.Temporality, monotonic: d.Monotonic, typ: d.Type,
	}
	guess := o.first
	if o.last != nil {
		guess = o.last.next
	}
	if guess == nil || guess.metricKey != key {
		guess = m.metricOf(o, key)
		if o.last != nil {
			o.last.next = guess
		} else {
			o.first = guess
		}
	}
	o.last, m.metric = guess, guess
	guess.last = nil
}

func (m *Mapper) metricOf(o *origin, key metricKey) *metric {
	if known, ok := o.metrics[key]; ok {
		return known
	}
	key.name, key.unit, key.description = strings.Clone(key.name), strings.Clone(key.unit), strings.Clone(key.description)
	m.metrics++
	made := &metric{metricKey: key, origin: o, id: m.metrics}
	m.nameMetric(made)
	o.metrics[key] = made
	m.bytes += int64(unsafe.Sizeof(metric{})) + int64(len(key.name)+len(key.unit)+len(key.description)+len(made.prom)) + 200
	return made
}

// maxFamilies bounds what is remembered of families, maxSaid how long a name, unit or description is.
const (
	maxFamilies = 20_000
	maxSaid     = 1 << 10
)

// Family remembers what is known of a metric of Prometheus'.
func (m *Mapper) Family(name string, f decode.Family) {
	known, ok := m.families[name]
	if ok && known == f || !ok && len(m.families) >= maxFamilies || len(name) > maxSaid {
		return
	}
	m.families[m.repair(strings.Clone(name))] = decode.Family{Type: f.Type, Unit: m.said(f.Unit), Help: m.said(f.Help)}
}

// said copies what describes a metric, and cuts it where it is too long.
func (m *Mapper) said(s string) string {
	if len(s) > maxSaid {
		s = s[:maxSaid]
		for len(s) > maxSaid-utf8.UTFMax && !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	return m.repair(strings.Clone(s))
}

// familyOf finds what is known of a series' metric: by its own name, else by that of the family that it belongs to.
func (m *Mapper) familyOf(name string, typ model.MetricType) metricfile.Family {
	f, ok := m.families[name]
	for _, suffix := range []string{"_bucket", "_sum", "_count", "_total", "_info", "_created", "_gsum", "_gcount"} {
		if ok || !strings.HasSuffix(name, suffix) {
			continue
		}
		f, ok = m.families[strings.TrimSuffix(name, suffix)]
	}
	if !ok || f.Type == "" {
		f.Type = typ
	}
	if f.Type == "" {
		f.Type = model.MetricTypeUnknown
	}
	return metricfile.Family{Type: f.Type, Unit: f.Unit, Help: f.Help}
}

// Series returns the series of a point of the current metric; else the reason why it has none. An error is the decoder's.
func (m *Mapper) Series(p *decode.Point) (*Series, string, error) {
	now := m.metric
	if now.reason != "" {
		return nil, now.reason, nil
	}
	if reason := checked(now.kind, p); reason != "" {
		return nil, reason, nil
	}
	key, err := m.keyOf(p)
	if err != nil {
		return nil, "", err
	}
	shape := shapeOf(now.kind, p)
	s := now.last
	if s == nil || !s.is(key, shape) {
		var reason string
		if s, reason, err = m.following(key, shape, p); s == nil {
			return nil, reason, err
		}
	}
	if s.generation != m.generation {
		m.enter(s)
	}
	return s, "", nil
}

// enter gives a series its number in the store.
func (m *Mapper) enter(s *Series) {
	if s.metric.kind == decode.MetricSeries {
		s.file.Family = m.familyOf(s.file.Name(), s.metric.typ)
	}
	s.id, s.generation = m.store.Series(&s.file), m.generation
}

func shapeOf(kind decode.MetricKind, p *decode.Point) uint8 {
	var shape uint8
	if kind == decode.MetricHistogram && !p.HasSum {
		shape |= shapeNoSum
	}
	if p.Native != nil {
		shape |= shapeNative
	}
	return shape
}

// keyOf are the bytes that a series is known by among those of its metric. Keys of decoders begin with the tag of a field or a name, those made
// here with a zero.
func (m *Mapper) keyOf(p *decode.Point) ([]byte, error) {
	if p.Key != nil {
		return p.Key, nil
	}
	if err := p.Load(); err != nil {
		return nil, err
	}
	m.key = appendAttributes(append(m.key[:0], 0), p.Attributes)
	for _, b := range p.Bounds {
		m.key = binary.LittleEndian.AppendUint64(m.key, math.Float64bits(b))
	}
	return m.key, nil
}

func (s *Series) is(key []byte, shape uint8) bool { return s.shape == shape && s.key == string(key) }

// following finds a series that is not that of the point before: most likely the one that followed it the last time.
func (m *Mapper) following(key []byte, shape uint8, p *decode.Point) (*Series, string, error) {
	now := m.metric
	guess := now.first
	if now.last != nil {
		guess = now.last.next
	}
	if guess == nil || !guess.is(key, shape) {
		var reason string
		var err error
		if guess, reason, err = m.find(key, shape, p); guess == nil {
			return nil, reason, err
		}
	}
	if now.last != nil {
		now.last.next = guess
	} else {
		now.first = guess
	}
	now.last = guess
	return guess, "", nil
}

// find looks for a series among all, and makes it where it is new.
func (m *Mapper) find(key []byte, shape uint8, p *decode.Point) (*Series, string, error) {
	now := m.metric
	hash := maphash.Bytes(m.seed, key) ^ now.id*0x9e3779b97f4a7c15
	for s := m.series[hash]; s != nil; s = s.chain {
		if s.metric == now && s.is(key, shape) {
			return s, "", nil
		}
	}
	if err := p.Load(); err != nil {
		return nil, "", err
	}
	s := &Series{metric: now, key: string(key), shape: shape, chain: m.series[hash]}
	if reason := m.shape(s, p); reason != "" {
		return nil, reason, nil
	}
	m.series[hash] = s
	m.bytes += int64(unsafe.Sizeof(*s)) + int64(len(s.key)) + int64(s.file.Labels.ByteSize()) + int64(8*len(s.file.Bounds)) + 48
	return s, "", nil
}

// shape makes what the store knows of a series.
func (m *Mapper) shape(s *Series, p *decode.Point) (reason string) {
	now := s.metric
	s.file.Delta = now.temporality == decode.TemporalityDelta
	s.file.NoSum = s.shape&shapeNoSum != 0
	s.file.Kind, s.file.Family = metricfile.KindFloat, now.family
	switch now.kind {
	case decode.MetricHistogram:
		s.file.Kind, s.file.Bounds = metricfile.KindClassic, slices.Clone(p.Bounds)
	case decode.MetricSummary:
		s.file.Kind, s.file.Bounds = metricfile.KindSummary, slices.Clone(p.Bounds)
	case decode.MetricExponential:
		s.file.Kind = metricfile.KindHistogram
	case decode.MetricSeries:
		if p.Native != nil {
			s.file.Kind = metricfile.KindHistogram
		}
		s.file.Labels, reason = m.finalLabels(p)
		return reason
	}
	s.file.Labels, reason = m.pointLabels(now, p)
	return reason
}

// repair replaces what is not UTF-8: one such string would make a whole segment unreadable.
func (m *Mapper) repair(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	m.Repaired++
	return strings.ToValidUTF8(s, "\uFFFD")
}
