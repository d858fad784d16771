// SPDX-License-Identifier: AGPL-3.0-only

package columns

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"math"
	"strconv"
	"strings"
)

// Names that structured metadata has of its own, beside the attributes'.
const (
	MetadataDetectedLevel     = "detected_level"
	MetadataObservedTimestamp = "observed_timestamp"
	MetadataSeverityNumber    = "severity_number"
	MetadataSeverityText      = "severity_text"
	MetadataDroppedAttributes = "dropped_attributes_count"
	MetadataFlags             = "flags"
	MetadataTraceID           = "trace_id"
	MetadataSpanID            = "span_id"
	MetadataScopeName         = "scope_name"
	MetadataScopeVersion      = "scope_version"
)

// maxCachedNames bounds what a Metadata remembers of attribute names: names without end must not become memory without end.
const maxCachedNames = 4096

// LogQLName translates an attribute's name to the one that LogQL knows it by, as Loki's OTLP endpoint does: every run of
// characters other than a-z, A-Z and 0-9 becomes one underscore, a leading digit gets "key_" before it, and the two
// underscores at either end of a reserved name (__x__) stay. A name of which nothing is left has none: the result is empty, and
// the attribute cannot be seen by LogQL. (Loki refuses the whole request for such a name.)
func LogQLName(name string) string {
	if plainName(name) {
		return name
	}
	inner, reserved := name, len(name) >= 4 && strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__")
	if reserved {
		inner = name[2 : len(name)-2]
	}
	b := make([]byte, 0, len(name)+len("key_"))
	if reserved {
		b = append(b, "__"...)
	} else if name != "" && digit(name[0]) {
		b = append(b, "key_"...)
	}
	b, letters := appendCollapsed(b, inner)
	if !letters {
		return ""
	}
	if reserved {
		b = append(b, "__"...)
	}
	return string(b)
}

// appendCollapsed writes s with every run of other characters as one underscore, and says whether a letter or digit was left.
func appendCollapsed(b []byte, s string) ([]byte, bool) {
	letters, run := false, false
	for i := 0; i < len(s); i++ {
		if alphanumeric(s[i]) {
			b = append(b, s[i])
			letters, run = true, false
			continue
		}
		if !run {
			b = append(b, '_')
		}
		run = true
	}
	return b, letters
}

// plainName reports whether LogQLName would return the name itself; most names need no translation.
func plainName(name string) bool {
	if name == "" || digit(name[0]) {
		return false
	}
	letters := false
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case alphanumeric(c):
			letters = true
		case c != '_', i > 0 && name[i-1] == '_':
			return false
		}
	}
	return letters
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || digit(c)
}

// Text renders a value as LogQL sees it, which is how OTLP's own libraries render it: doubles as JavaScript does (1.0 is "1"), bytes
// in base64, arrays and maps as JSON.
func (v Value) Text() string {
	switch v.Kind {
	case KindInt:
		return strconv.FormatInt(int64(v.Num), 10)
	case KindDouble:
		return string(AppendDouble(nil, math.Float64frombits(v.Num)))
	case KindBool:
		return strconv.FormatBool(v.Num != 0)
	case KindBytes:
		return base64.StdEncoding.EncodeToString([]byte(v.Str))
	}
	return v.Str
}

// AppendDouble writes f as ECMAScript does, which is also encoding/json's way; "NaN", "Infinity" and "-Infinity" for the rest.
func AppendDouble(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	}
	abs := math.Abs(f)
	if abs == 0 || abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(b, f, 'f', -1, 64)
	}
	b = strconv.AppendFloat(b, f, 'e', -1, 64)
	if n := len(b); n >= 4 && b[n-4] == 'e' && b[n-3] == '-' && b[n-2] == '0' {
		b[n-2] = b[n-1] // e-09 is written e-9
		b = b[:n-1]
	}
	return b
}

// Metadata makes the structured metadata of the rows of one stream and origin. It is what Loki's OTLP endpoint and distributor
// make of the same record, duplicates resolved.
//
// Precedence. Where two entries meet under one name, as `a.b` and `a_b` do, the later one of this order is kept, which is what a
// query against Loki shows: log attributes in their order; observed_timestamp, severity_number, severity_text,
// dropped_attributes_count, flags, trace_id, span_id; resource attributes in their order; scope attributes in their order,
// scope_name, scope_version; detected_level. The entries of a map stand in the order of their keys.
//
// A resource attribute that is a stream label is no metadata. Where two resource attributes have one name, the one whose value the
// label has is the label (of those without a value, the one whose name needed translation); the other remains, and LogQL shows it with the suffix _extracted, which its pipeline adds, not this package.
//
// A Metadata is for one goroutine.
type Metadata struct {
	shared []Label // of resource and scope
	names  map[string]string
}

// NewMetadata prepares the part that rows of one stream and origin share.
func NewMetadata(o Origin, stream []Label) *Metadata {
	return &Metadata{shared: appendOriginLabels(nil, o, stream), names: map[string]string{}}
}

// Append appends the structured metadata of one row.
func (m *Metadata) Append(dst []Label, r *LogRow) []Label {
	start := len(dst)
	for i := range r.Attributes {
		a := &r.Attributes[i]
		dst = appendValueLabels(dst, start, m.name(a.Name), &a.Value)
	}
	dst = appendFieldLabels(dst, start, r)
	for _, l := range m.shared {
		dst = setLabel(dst, start, l.Name, l.Value)
	}
	return appendLevelLabel(dst, start, r)
}

func (m *Metadata) name(name string) string {
	if plainName(name) {
		return name
	}
	if translated, ok := m.names[name]; ok {
		return translated
	}
	translated := LogQLName(name)
	if len(m.names) < maxCachedNames {
		m.names[strings.Clone(name)] = translated
	}
	return translated
}

// appendOriginLabels appends the entries of resource and scope, but for those that are the stream's labels.
func appendOriginLabels(dst []Label, o Origin, stream []Label) []Label {
	taken := make(map[string]bool)
	for i := range o.Resource {
		own := appendValueLabels(nil, 0, LogQLName(o.Resource[i].Name), &o.Resource[i].Value)
		for _, l := range own {
			if !taken[l.Name] && isStreamLabel(stream, o.Resource[i].Name, l) {
				taken[l.Name] = true
				continue
			}
			dst = setLabel(dst, 0, l.Name, l.Value)
		}
	}
	for i := range o.Scope {
		dst = appendValueLabels(dst, 0, LogQLName(o.Scope[i].Name), &o.Scope[i].Value)
	}
	if o.ScopeName != "" {
		dst = setLabel(dst, 0, MetadataScopeName, o.ScopeName)
	}
	if o.ScopeVersion != "" {
		dst = setLabel(dst, 0, MetadataScopeVersion, o.ScopeVersion)
	}
	return dst
}

// isStreamLabel reports whether an entry of a resource attribute is a label of the stream.
func isStreamLabel(stream []Label, attribute string, entry Label) bool {
	for _, l := range stream {
		if l.Name == entry.Name {
			return l.Value == entry.Value || entry.Value == "" && attribute != entry.Name
		}
	}
	return false
}

func appendFieldLabels(dst []Label, start int, r *LogRow) []Label {
	if r.TimeSource == TimeEvent && r.ObservedTime != 0 {
		dst = setLabel(dst, start, MetadataObservedTimestamp, strconv.FormatInt(r.ObservedTime, 10))
	}
	if r.SeverityNumber != 0 {
		dst = setLabel(dst, start, MetadataSeverityNumber, strconv.Itoa(int(r.SeverityNumber)))
	}
	if r.SeverityText != "" {
		dst = setLabel(dst, start, MetadataSeverityText, r.SeverityText)
	}
	if r.DroppedAttributes != 0 {
		dst = setLabel(dst, start, MetadataDroppedAttributes, strconv.FormatUint(uint64(r.DroppedAttributes), 10))
	}
	if r.Flags != 0 {
		dst = setLabel(dst, start, MetadataFlags, strconv.FormatUint(uint64(r.Flags), 10))
	}
	if r.TraceID != [16]byte{} {
		dst = setLabel(dst, start, MetadataTraceID, hex.EncodeToString(r.TraceID[:]))
	}
	if r.SpanID != [8]byte{} {
		dst = setLabel(dst, start, MetadataSpanID, hex.EncodeToString(r.SpanID[:]))
	}
	return dst
}

func appendLevelLabel(dst []Label, start int, r *LogRow) []Label {
	if r.DetectedLevel == "" {
		return dst
	}
	return setLabel(dst, start, MetadataDetectedLevel, r.DetectedLevel)
}

// AppendFlat appends the entries that an attribute becomes under LogQL: one, or those of a map's leaves, names joined by underscores.
// A name that comes twice among them keeps its last value.
func AppendFlat(dst []Label, a *Attribute) []Label {
	return appendValueLabels(dst, len(dst), LogQLName(a.Name), &a.Value)
}

func appendValueLabels(dst []Label, start int, name string, v *Value) []Label {
	if name == "" {
		return dst
	}
	if v.Kind != KindMap {
		return setLabel(dst, start, name, v.Text())
	}
	return appendMapLabels(dst, start, name, v.Str)
}

// appendMapLabels flattens the canonical JSON of a map. Text that is not such JSON is shown as it is rather than lost.
func appendMapLabels(dst []Label, start int, name, object string) []Label {
	decoder := json.NewDecoder(strings.NewReader(object))
	if t, err := decoder.Token(); err != nil || t != json.Delim('{') {
		return setLabel(dst, start, name, object)
	}
	for decoder.More() {
		key, value, err := nextEntry(decoder)
		if err != nil {
			return dst
		}
		dst = appendLeafLabel(dst, start, LogQLName(name+"_"+key), value)
	}
	return dst
}

func nextEntry(decoder *json.Decoder) (key string, value json.RawMessage, err error) {
	t, err := decoder.Token()
	if err != nil {
		return "", nil, err
	}
	key, ok := t.(string)
	if !ok {
		return "", nil, io.ErrUnexpectedEOF
	}
	err = decoder.Decode(&value)
	return key, value, err
}

func appendLeafLabel(dst []Label, start int, name string, value json.RawMessage) []Label {
	switch {
	case name == "" || len(value) == 0:
		return dst
	case value[0] == '{':
		return appendMapLabels(dst, start, name, string(value))
	case value[0] == 'n':
		return setLabel(dst, start, name, "")
	case value[0] == '"':
		var text string
		if err := json.Unmarshal(value, &text); err != nil {
			return dst
		}
		return setLabel(dst, start, name, text)
	}
	return setLabel(dst, start, name, string(value))
}

// setLabel appends an entry, or replaces the one of that name after start.
func setLabel(dst []Label, start int, name, value string) []Label {
	for i := start; i < len(dst); i++ {
		if dst[i].Name == name {
			dst[i].Value = value
			return dst
		}
	}
	return append(dst, Label{Name: name, Value: value})
}
