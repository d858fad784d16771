// SPDX-License-Identifier: AGPL-3.0-only

package columns

import (
	"encoding/binary"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// Row hashes are sums, so that neither the order of attributes nor the order of rows matters. They are of content, and hence the
// same in every segment and format version that holds the row.

// RowHash is the conservation hash of a row: all its fields, with the content of its stream and origin.
func (l *Logs) RowHash(i int) uint64 {
	r := l.Record(i)
	var fixed [86]byte
	put := binary.LittleEndian
	put.PutUint64(fixed[0:], uint64(r.Time))
	put.PutUint64(fixed[8:], uint64(r.ObservedTime))
	put.PutUint64(fixed[16:], uint64(r.Fingerprint))
	put.PutUint64(fixed[24:], uint64(r.Source))
	put.PutUint32(fixed[32:], uint32(r.SeverityNumber))
	put.PutUint32(fixed[36:], r.Flags)
	put.PutUint32(fixed[40:], r.DroppedAttributes)
	fixed[44] = byte(r.TimeSource)
	fixed[45] = byte(r.BodyKind)
	copy(fixed[46:], r.TraceID[:])
	copy(fixed[62:], r.SpanID[:])
	put.PutUint64(fixed[70:], l.streams[r.Stream].hash)
	put.PutUint64(fixed[78:], l.origins[r.Origin].hash)

	h := xxhash.Sum64(fixed[:])
	h = mix(h, hashText(l.Text(r.Body)))
	h = mix(h, l.texts.hashes[r.SeverityText])
	h = mix(h, l.texts.hashes[r.DetectedLevel])
	h = mix(h, l.texts.hashes[r.EventName])
	var attributes uint64
	for _, e := range l.Entries(r) {
		attributes += mix(l.keys[e.Key].hash, l.EntryHash(e))
	}
	return mix(h, attributes)
}

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
