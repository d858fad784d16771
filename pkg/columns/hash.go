// SPDX-License-Identifier: AGPL-3.0-only

package columns

import (
	"encoding/binary"
	"math/bits"

	"github.com/cespare/xxhash/v2"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Row hashes are sums, so that neither the order of attributes nor the order of rows matters. They are of content, and hence the
// same in every segment and format version that holds the row.

// RowHash is the conservation hash of a row: all its fields, with the content of its stream and origin.
func (l *Logs) RowHash(i int) uint64 {
	r := l.Record(i)
	p := RowParts{
		Time: r.Time, ObservedTime: r.ObservedTime, Fingerprint: r.Fingerprint, Source: r.Source,
		SeverityNumber: r.SeverityNumber, Flags: r.Flags, DroppedAttributes: r.DroppedAttributes, TimeSource: r.TimeSource, BodyKind: r.BodyKind,
		TraceID: r.TraceID, SpanID: r.SpanID, Stream: l.streams[r.Stream].hash, Origin: l.origins[r.Origin].hash,
		Body: hashText(l.Text(r.Body)), SeverityText: l.texts.hashes[r.SeverityText], DetectedLevel: l.texts.hashes[r.DetectedLevel],
		EventName: l.texts.hashes[r.EventName],
	}
	for _, e := range l.Entries(r) {
		p.Attributes += mix(l.keys[e.Key].hash, l.EntryHash(e))
	}
	return p.Hash()
}

// RowParts is what a row's hash is made of, for who has rows by column: numbers, and the hashes of the rest.
type RowParts struct {
	Time, ObservedTime       int64
	Fingerprint              lake.Fingerprint
	Source                   lake.ReceiptID
	SeverityNumber           int32
	Flags, DroppedAttributes uint32
	TimeSource               TimeSource
	BodyKind                 ValueKind
	TraceID                  [16]byte
	SpanID                   [8]byte
	Stream, Origin           uint64 // HashLabels, HashOrigin
	Body, SeverityText       uint64 // HashText
	DetectedLevel, EventName uint64
	Attributes               uint64 // the sum of HashAttribute
}

// Hash is RowHash of the row.
func (p *RowParts) Hash() uint64 {
	var fixed [86]byte
	put := binary.LittleEndian
	put.PutUint64(fixed[0:], uint64(p.Time))
	put.PutUint64(fixed[8:], uint64(p.ObservedTime))
	put.PutUint64(fixed[16:], uint64(p.Fingerprint))
	put.PutUint64(fixed[24:], uint64(p.Source))
	put.PutUint32(fixed[32:], uint32(p.SeverityNumber))
	put.PutUint32(fixed[36:], p.Flags)
	put.PutUint32(fixed[40:], p.DroppedAttributes)
	fixed[44] = byte(p.TimeSource)
	fixed[45] = byte(p.BodyKind)
	copy(fixed[46:], p.TraceID[:])
	copy(fixed[62:], p.SpanID[:])
	put.PutUint64(fixed[70:], p.Stream)
	put.PutUint64(fixed[78:], p.Origin)

	h := xxhash.Sum64(fixed[:])
	h = mix(h, p.Body)
	h = mix(h, p.SeverityText)
	h = mix(h, p.DetectedLevel)
	h = mix(h, p.EventName)
	return mix(h, p.Attributes)
}

// HashAttribute combines a key's hash and a value's into the part of an attribute.
func HashAttribute(key, value uint64) uint64 { return mix(key, value) }

// HashKey is the hash of an attribute's name and kind.
func HashKey(k Key) uint64 { return hashKey(k) }

// HashText is the hash of a text.
func HashText(s string) uint64 { return hashText(s) }

// HashNumber is the hash of a number, given by its bits.
func HashNumber(bits uint64) uint64 { return mix(0, bits) }

// HashValue is the hash of a value.
func HashValue(v Value) uint64 { return hashValue(v) }

// HashLabels is the hash of a stream's labels.
func HashLabels(labels []Label) uint64 { return hashLabels(labels) }

// HashOrigin is the hash of an origin.
func HashOrigin(o Origin) uint64 { return hashOrigin(o) }

// mix combines two hashes, in their order.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, bits.RotateLeft64(b, 32)^0xc2b2ae3d27d4eb4f)
	return hi ^ lo ^ a + b
}

func hashText(s string) uint64 { return xxhash.Sum64String(s) }

func hashKey(k Key) uint64 { return mix(xxhash.Sum64String(k.Name), uint64(k.Kind)+1) }

func hashLabels(labels []Label) uint64 {
	var sum uint64
	for _, label := range labels {
		sum += mix(xxhash.Sum64String(label.Name), xxhash.Sum64String(label.Value))
	}
	return sum
}

func hashAttributes(attributes []Attribute) uint64 {
	var sum uint64
	for _, a := range attributes {
		sum += mix(hashKey(Key{Name: a.Name, Kind: a.Value.Kind}), hashValue(a.Value))
	}
	return sum
}

func hashValue(v Value) uint64 {
	if v.Kind.Textual() {
		return hashText(v.Str)
	}
	return mix(0, v.Num)
}

func hashOrigin(o Origin) uint64 {
	h := mix(hashAttributes(o.Resource), hashAttributes(o.Scope))
	for _, s := range []string{o.ScopeName, o.ScopeVersion, o.ResourceSchemaURL, o.ScopeSchemaURL} {
		h = mix(h, hashText(s))
	}
	if o.Identity != "" { // so that rows without identity have the hash that they had before there was one
		h = mix(h, hashText(o.Identity))
	}
	return h
}
