// SPDX-License-Identifier: AGPL-3.0-only

package columns

import (
	"encoding/binary"
	"slices"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

const (
	recordChunk = 4096
	entryChunk  = 8192
	// A key's string values are numbered until it has seen dictionaryTrial distinct ones that are more than half of
	// all its values, or dictionaryLimit at all: ids that never come back are not worth a lookup.
	dictionaryTrial = 1024
	dictionaryLimit = 1 << 16
)

// Record is the fixed part of a row in a Logs.
type Record struct {
	Time              int64
	ObservedTime      int64
	Fingerprint       lake.Fingerprint
	Source            lake.ReceiptID
	TraceID           [16]byte
	SpanID            [8]byte
	Body              Text
	entries, count    uint32
	Stream            StreamID
	Origin            OriginID
	SeverityText      uint32 // see Interned
	DetectedLevel     uint32
	EventName         uint32
	SeverityNumber    int32
	Flags             uint32
	DroppedAttributes uint32
	TimeSource        TimeSource
	BodyKind          ValueKind
}

// KeyID numbers the pairs of attribute name and kind of one Logs.
type KeyID uint32

// Key is a name and a kind of value. The same name with two kinds is two keys.
type Key struct {
	Name string
	Kind ValueKind
}

const numbered = ^uint32(0)

// Entry is one attribute of one row.
type Entry struct {
	Key KeyID
	// length is that of the string, or `numbered`.
	length uint32
	// bits is the number itself, the number of the string in its key's dictionary, or its block and offset in the arena.
	bits uint64
}

// Numbered returns the number of a string value in its key's dictionary, if it has one; equal numbers are equal values, but
// equal values may also be there without a number.
func (e Entry) Numbered() (uint32, bool) { return uint32(e.bits), e.length == numbered }

// Len is the length of a string that is stored without a number, and else a few bytes.
func (e Entry) Len() int {
	if e.length == numbered {
		return 8
	}
	return int(e.length)
}

// key is a Key with what was seen of it.
type key struct {
	Key
	dictionary texts
	closed     bool
	rows       int64
	hash       uint64
	// lastRow is the last row, from 1, that has the key, and lastEntry where: a repeated key replaces its value.
	lastRow   int
	lastEntry uint32
	// next is the key that followed this one last time, which is a good guess for this time.
	next KeyID
}

// Logs holds many log rows in memory: fixed fields as records, strings in an arena, attribute names, streams and origins
// numbered. It grows by chunks and does not allocate per row. It is not safe for concurrent writing.
//
// A row has at most one value for each attribute name and kind: of repeated ones the last stands. The order of a
// row's attributes is not part of its content and does not survive a segment.
type Logs struct {
	records [][]Record
	length  int
	entries [][]Entry
	// nextEntry is where the next row's entries begin, counted over all chunks.
	nextEntry uint32

	arena arena
	texts texts

	keys    []key
	byKey   map[Key]KeyID
	first   KeyID // guess for the first key of a row
	scratch []byte

	streams     []stream
	byStream    map[string]StreamID
	origins     []origin
	byOrigin    map[string]OriginID
	tablesBytes int64
}

type stream struct {
	labels []Label
	hash   uint64
}

type origin struct {
	Origin
	hash uint64
}

// NewLogs returns an empty Logs.
func NewLogs() *Logs {
	return &Logs{
		texts:    newTexts(),
		byKey:    map[Key]KeyID{},
		byStream: map[string]StreamID{},
		byOrigin: map[string]OriginID{},
	}
}

// Reset forgets all rows, streams, origins and names, and keeps memory for the next ones. Strings that Row, StreamLabels and
// OriginOf gave out are not valid any more.
func (l *Logs) Reset() {
	records, entries, arena, scratch := l.records, l.entries, l.arena, l.scratch
	*l = *NewLogs()
	l.records, l.entries, l.arena, l.scratch = records, entries, arena, scratch
	l.arena.reset()
}

// Len is the number of rows.
func (l *Logs) Len() int { return l.length }

// Bytes is the memory held, about.
func (l *Logs) Bytes() int64 {
	const recordSize, entrySize, textSize = 128, 16, 64
	return int64(len(l.records))*recordChunk*recordSize + int64(len(l.entries))*entryChunk*entrySize + l.arena.bytes +
		int64(len(l.texts.values))*textSize + l.tablesBytes
}

// Stream numbers a set of labels. Labels are sorted by name; a label with an empty value is no label.
func (l *Logs) Stream(labels []Label) StreamID {
	sorted := slices.IsSortedFunc(labels, compareLabels)
	if !sorted {
		labels = slices.Clone(labels)
		slices.SortStableFunc(labels, compareLabels)
	}
	l.scratch = l.scratch[:0]
	for _, label := range labels {
		if label.Value != "" {
			l.scratch = appendString(appendString(l.scratch, label.Name), label.Value)
		}
	}
	if id, ok := l.byStream[string(l.scratch)]; ok {
		return id
	}
	own := make([]Label, 0, len(labels))
	for _, label := range labels {
		if label.Value != "" {
			own = append(own, Label{Name: l.own(label.Name), Value: l.own(label.Value)})
		}
	}
	id := StreamID(len(l.streams))
	l.streams = append(l.streams, stream{labels: own, hash: hashLabels(own)})
	l.byStream[string(l.scratch)] = id
	l.tablesBytes += int64(len(l.scratch)) + int64(len(own))*32 + 96
	return id
}

// Origin numbers a resource and scope. It copies what it keeps.
func (l *Logs) Origin(o Origin) OriginID {
	l.scratch = appendOrigin(l.scratch[:0], o)
	if id, ok := l.byOrigin[string(l.scratch)]; ok {
		return id
	}
	own := Origin{
		Resource:          l.ownAttributes(o.Resource),
		ResourceSchemaURL: l.own(o.ResourceSchemaURL),
		ScopeName:         l.own(o.ScopeName),
		ScopeVersion:      l.own(o.ScopeVersion),
		Scope:             l.ownAttributes(o.Scope),
		ScopeSchemaURL:    l.own(o.ScopeSchemaURL),
		Identity:          l.own(o.Identity),
	}
	id := OriginID(len(l.origins))
	l.origins = append(l.origins, origin{Origin: own, hash: hashOrigin(own)})
	l.byOrigin[string(l.scratch)] = id
	l.tablesBytes += int64(len(l.scratch)) + int64(len(own.Resource)+len(own.Scope))*48 + 160
	return id
}

// Append copies a row. An observed time before 1970 is none.
func (l *Logs) Append(r *LogRow) {
	if l.length == len(l.records)*recordChunk {
		l.records = append(l.records, make([]Record, recordChunk))
	}
	rec := &l.records[l.length/recordChunk][l.length%recordChunk]
	l.length++
	*rec = Record{
		Time:              r.Time,
		ObservedTime:      max(0, r.ObservedTime),
		Fingerprint:       r.Fingerprint,
		Source:            r.Source,
		TraceID:           r.TraceID,
		SpanID:            r.SpanID,
		Body:              l.arena.put(r.Body),
		Stream:            r.Stream,
		Origin:            r.Origin,
		SeverityText:      l.texts.intern(r.SeverityText, &l.arena),
		DetectedLevel:     l.texts.intern(r.DetectedLevel, &l.arena),
		EventName:         l.texts.intern(r.EventName, &l.arena),
		SeverityNumber:    r.SeverityNumber,
		Flags:             r.Flags,
		DroppedAttributes: r.DroppedAttributes,
		TimeSource:        r.TimeSource,
		BodyKind:          r.BodyKind,
	}
	l.appendAttributes(rec, r.Attributes)
}

// appendAttributes keeps a row's entries together in one chunk.
func (l *Logs) appendAttributes(rec *Record, attributes []Attribute) {
	if len(attributes) == 0 {
		return
	}
	chunk, at := l.roomForEntries(len(attributes))
	rec.entries = uint32(chunk*entryChunk + at)
	previous := &l.first
	for i := range attributes {
		a := &attributes[i]
		id := l.keyID(a.Name, a.Value.Kind, *previous)
		*previous = id
		k := &l.keys[id]
		previous = &k.next
		e := l.entry(id, k, &a.Value)
		if k.lastRow == l.length {
			l.entries[chunk][k.lastEntry] = e
			continue
		}
		k.rows++
		k.lastRow, k.lastEntry = l.length, uint32(at)
		l.entries[chunk][at] = e
		at++
		rec.count++
	}
	l.nextEntry = uint32(chunk*entryChunk + at)
}

// roomForEntries returns the chunk and the place in it where n entries fit; a row with more than a chunk of them gets a larger
// chunk, and none follow it there.
func (l *Logs) roomForEntries(n int) (chunk, at int) {
	chunk, at = int(l.nextEntry)/entryChunk, int(l.nextEntry)%entryChunk
	if at+n > entryChunk && at > 0 {
		chunk, at = chunk+1, 0
	}
	for chunk >= len(l.entries) {
		l.entries = append(l.entries, make([]Entry, entryChunk))
	}
	if n > entryChunk {
		l.entries[chunk] = make([]Entry, n)
	}
	return chunk, at
}

// keyID numbers a name and kind, trying a guess first.
func (l *Logs) keyID(name string, kind ValueKind, guess KeyID) KeyID {
	if int(guess) < len(l.keys) {
		if k := &l.keys[guess]; k.Kind == kind && k.Name == name {
			return guess
		}
	}
	if id, ok := l.byKey[Key{Name: name, Kind: kind}]; ok {
		return id
	}
	own := Key{Name: l.own(name), Kind: kind}
	id := KeyID(len(l.keys))
	l.keys = append(l.keys, key{Key: own, dictionary: newTexts(), hash: hashKey(own)})
	l.byKey[own] = id
	l.tablesBytes += int64(len(name)) + 256
	return id
}

func (l *Logs) entry(id KeyID, k *key, v *Value) Entry {
	if !v.Kind.Textual() {
		return Entry{Key: id, bits: v.Num}
	}
	if n, ok := l.number(k, v.Str); ok {
		return Entry{Key: id, length: numbered, bits: uint64(n)}
	}
	t := l.arena.put(v.Str)
	return Entry{Key: id, length: t.length, bits: uint64(t.block)<<32 | uint64(t.offset)}
}

// number looks a value up in its key's dictionary, and adds it while the dictionary is worth having.
func (l *Logs) number(k *key, s string) (uint32, bool) {
	if !k.closed {
		before := len(k.dictionary.values)
		n := k.dictionary.intern(s, &l.arena)
		if after := len(k.dictionary.values); after != before {
			l.tablesBytes += 64
			k.closed = after >= dictionaryLimit || after >= dictionaryTrial && int64(after)*2 > k.rows
		}
		return n, true
	}
	return 0, false
}

// Textual reports whether values of the kind are in Str and not in Num.
func (k ValueKind) Textual() bool {
	return k != KindInt && k != KindDouble && k != KindBool
}

// Row reads a row. Its strings belong to the Logs; its Attributes slice is reused.
func (l *Logs) Row(i int, into *LogRow) {
	r := l.Record(i)
	attributes := into.Attributes[:0]
	for _, e := range l.Entries(r) {
		attributes = append(attributes, Attribute{Name: l.keys[e.Key].Name, Value: l.EntryValue(e)})
	}
	*into = LogRow{
		Time:              r.Time,
		TimeSource:        r.TimeSource,
		ObservedTime:      r.ObservedTime,
		Stream:            r.Stream,
		Origin:            r.Origin,
		Fingerprint:       r.Fingerprint,
		SeverityNumber:    r.SeverityNumber,
		SeverityText:      l.Interned(r.SeverityText),
		DetectedLevel:     l.Interned(r.DetectedLevel),
		TraceID:           r.TraceID,
		SpanID:            r.SpanID,
		Flags:             r.Flags,
		Body:              l.Text(r.Body),
		BodyKind:          r.BodyKind,
		EventName:         l.Interned(r.EventName),
		DroppedAttributes: r.DroppedAttributes,
		Source:            r.Source,
		Attributes:        attributes,
	}
}

// StreamLabels returns a stream's labels, sorted by name. They belong to the Logs.
func (l *Logs) StreamLabels(id StreamID) []Label { return l.streams[id].labels }

// Streams is the number of streams.
func (l *Logs) Streams() int { return len(l.streams) }

// OriginOf returns an origin. It belongs to the Logs.
func (l *Logs) OriginOf(id OriginID) Origin { return l.origins[id].Origin }

// Origins is the number of origins.
func (l *Logs) Origins() int { return len(l.origins) }

// Record returns the fixed part of a row; it belongs to the Logs.
func (l *Logs) Record(i int) *Record { return &l.records[i/recordChunk][i%recordChunk] }

// Text returns a string of the arena.
func (l *Logs) Text(t Text) string { return l.arena.get(t) }

// Interned returns a severity text, detected level or event name by its number; 0 is the empty string.
func (l *Logs) Interned(id uint32) string { return l.texts.values[id] }

// Entries returns a row's attributes; they belong to the Logs.
func (l *Logs) Entries(r *Record) []Entry {
	if r.count == 0 {
		return nil
	}
	at := r.entries % entryChunk
	return l.entries[r.entries/entryChunk][at : at+r.count]
}

// Keys is the number of attribute keys.
func (l *Logs) Keys() int { return len(l.keys) }

// Key returns a key by its number.
func (l *Logs) Key(id KeyID) Key { return l.keys[id].Key }

// EntryHash is a hash of an attribute's value alone.
func (l *Logs) EntryHash(e Entry) uint64 {
	switch {
	case e.length == numbered:
		return l.keys[e.Key].dictionary.hashes[uint32(e.bits)]
	case l.keys[e.Key].Kind.Textual():
		return hashText(l.EntryText(e))
	}
	return mix(0, e.bits)
}

// DictionaryLen is how many numbered values a key has.
func (l *Logs) DictionaryLen(id KeyID) int { return len(l.keys[id].dictionary.values) }

// DictionaryValue returns a numbered value of a key.
func (l *Logs) DictionaryValue(id KeyID, n uint32) string { return l.keys[id].dictionary.values[n] }

// EntryValue returns an attribute's value.
func (l *Logs) EntryValue(e Entry) Value {
	k := &l.keys[e.Key]
	if !k.Kind.Textual() {
		return Value{Kind: k.Kind, Num: e.bits}
	}
	return Value{Kind: k.Kind, Str: l.EntryText(e)}
}

// EntryNumber returns the number of an attribute that is not textual.
func (l *Logs) EntryNumber(e Entry) uint64 { return e.bits }

// EntryText returns the string of a textual attribute.
func (l *Logs) EntryText(e Entry) string {
	if e.length == numbered {
		return l.keys[e.Key].dictionary.values[uint32(e.bits)]
	}
	return l.arena.get(Text{block: uint32(e.bits >> 32), offset: uint32(e.bits), length: e.length})
}

func (l *Logs) own(s string) string { return l.arena.get(l.arena.put(s)) }

func (l *Logs) ownAttributes(attributes []Attribute) []Attribute {
	if len(attributes) == 0 {
		return nil
	}
	own := make([]Attribute, len(attributes))
	for i, a := range attributes {
		own[i] = Attribute{Name: l.own(a.Name), Value: Value{Kind: a.Value.Kind, Num: a.Value.Num, Str: l.own(a.Value.Str)}}
	}
	return own
}

func compareLabels(a, b Label) int {
	switch {
	case a.Name < b.Name:
		return -1
	case a.Name > b.Name:
		return 1
	}
	return 0
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendAttributeContent(dst []byte, a Attribute) []byte {
	dst = appendString(dst, a.Name)
	dst = append(dst, byte(a.Value.Kind))
	dst = binary.LittleEndian.AppendUint64(dst, a.Value.Num)
	return appendString(dst, a.Value.Str)
}

func appendOrigin(dst []byte, o Origin) []byte {
	for _, list := range [][]Attribute{o.Resource, o.Scope} {
		dst = binary.AppendUvarint(dst, uint64(len(list)))
		for _, a := range list {
			dst = appendAttributeContent(dst, a)
		}
	}
	for _, s := range []string{o.ScopeName, o.ScopeVersion, o.ResourceSchemaURL, o.ScopeSchemaURL, o.Identity} {
		dst = appendString(dst, s)
	}
	return dst
}
