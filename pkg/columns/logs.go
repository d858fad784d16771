// SPDX-License-Identifier: AGPL-3.0-only

package columns

import "github.com/lakerunner/lakerunner/pkg/lake"

// ValueKind is the type of an attribute's value, as OTLP has it.
type ValueKind uint8

// The kinds of value.
const (
	KindString ValueKind = iota
	KindInt
	KindDouble
	KindBool
	KindBytes
	KindArray
	KindMap
)

// Value is one typed value.
type Value struct {
	Kind ValueKind
	// Num holds an int64, the bits of a float64, or 0 and 1 of a bool.
	Num uint64
	// Str holds a string, raw bytes, or the canonical JSON of an array or map.
	Str string
}

// Attribute is a name, as its producer wrote it, and a value.
type Attribute struct {
	Name  string
	Value Value
}

// Label is a stream label, or one entry of structured metadata.
type Label struct{ Name, Value string }

// TimeSource says where a row's time is from.
type TimeSource uint8

// The sources of a row's time.
const (
	TimeEvent    TimeSource = iota // the record's own
	TimeObserved                   // when a collector saw it
	TimeObject                     // when the object was written: the record had no time
)

// StreamID and OriginID index the streams and origins of one Logs.
type (
	StreamID uint32
	OriginID uint32
)

// Origin is where rows come from: a resource and a scope, as OTLP has them.
type Origin struct {
	Resource          []Attribute
	ResourceSchemaURL string
	ScopeName         string
	ScopeVersion      string
	Scope             []Attribute
	ScopeSchemaURL    string
	// Identity is the log attribute whose value identifies a row of this origin within its organization and hour, so that a row which was
	// delivered twice is kept once; empty: rows have no identity.
	Identity string
}

// LogRow is one log record. A decoder reuses one LogRow: its strings need only live until Append returns.
type LogRow struct {
	Time              int64 // ns since 1970
	TimeSource        TimeSource
	ObservedTime      int64 // ns since 1970; 0: none
	Stream            StreamID
	Origin            OriginID
	Fingerprint       lake.Fingerprint
	SeverityNumber    int32
	SeverityText      string
	DetectedLevel     string
	TraceID           [16]byte // zero: none
	SpanID            [8]byte  // zero: none
	Flags             uint32
	Body              string    // the LogQL line: text, or the canonical JSON of a structured body
	BodyKind          ValueKind // KindString, or the kind of the structured body
	EventName         string
	DroppedAttributes uint32
	Source            lake.ReceiptID
	Attributes        []Attribute
}
