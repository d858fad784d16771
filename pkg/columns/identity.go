// SPDX-License-Identifier: AGPL-3.0-only

package columns

import (
	"encoding/binary"
	"math/bits"

	"github.com/cespare/xxhash/v2"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Masked is the value that a masking field rule leaves. As a row's identity it is none: it tells nothing apart.
const Masked = "***"

// Identity identifies a row within its organization, however often it was delivered: 128 bits of hash of the hour, the name of the
// identifying attribute, and its value.
type Identity [2]uint64

// IdentityOf returns a row's identity: that of the value its origin's identifying attribute has in it. An empty or masked value is none.
// Where the attribute has values of two kinds, the first kind's counts.
func IdentityOf(o *Origin, r *LogRow) (Identity, bool) {
	if o.Identity == "" {
		return Identity{}, false
	}
	var best *Value
	for i := range r.Attributes {
		if a := &r.Attributes[i]; a.Name == o.Identity && (best == nil || a.Value.Kind <= best.Kind) {
			best = &a.Value
		}
	}
	if best == nil {
		return Identity{}, false
	}
	return IdentityOfValue(o.Identity, *best, r.Time)
}

// IdentityOfValue returns the identity that a value of the named attribute gives a row of that time. The same text is the same identity,
// whatever its kind: a collector that turns numbers into strings does not make another row of it.
func IdentityOfValue(name string, v Value, time int64) (Identity, bool) {
	text := v.Text()
	if text == "" || text == Masked {
		return Identity{}, false
	}
	var head [16]byte
	binary.LittleEndian.PutUint64(head[:], uint64(HourOf(time)))
	binary.LittleEndian.PutUint64(head[8:], xxhash.Sum64String(name))
	start := xxhash.Sum64(head[:])
	return Identity{mix(start, xxhash.Sum64String(text)), mix(bits.RotateLeft64(start, 31), seededHash(text))}, true
}

// identitySeed makes the second half of an identity independent of the first.
const identitySeed = 0x6c616b6572756e6e

func seededHash(s string) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(identitySeed)
	_, _ = d.WriteString(s) // never fails
	return d.Sum64()
}

// rival is the row that an identity is kept with.
type rival struct {
	source lake.ReceiptID
	at     int // in rows
}

// DropDoubles returns the rows without those whose identity another of them has, too, and how many those are. Of doubles the row of the
// lowest source stays, then the one with the lowest row hash, then the first. It keeps the order, and reuses rows.
func (l *Logs) DropDoubles(rows []uint32) (kept []uint32, dropped int64) {
	if !l.identified() {
		return rows, 0
	}
	best := map[Identity]rival{}
	out := make([]bool, len(rows))
	var row LogRow
	for i, n := range rows {
		r := l.Record(int(n))
		o := &l.origins[r.Origin].Origin
		if o.Identity == "" {
			continue
		}
		l.Row(int(n), &row)
		id, ok := IdentityOf(o, &row)
		if !ok {
			continue
		}
		before, double := best[id]
		if double && !l.beats(rows, i, before) {
			out[i] = true
			continue
		}
		if double {
			out[before.at] = true
		}
		best[id] = rival{source: r.Source, at: i}
	}
	kept = rows[:0]
	for i, n := range rows {
		if out[i] {
			dropped++
			continue
		}
		kept = append(kept, n)
	}
	return kept, dropped
}

func (l *Logs) beats(rows []uint32, i int, other rival) bool {
	source := l.Record(int(rows[i])).Source
	if source != other.source {
		return source < other.source
	}
	return l.RowHash(int(rows[i])) < l.RowHash(int(rows[other.at]))
}

// identified reports whether an origin has an identity.
func (l *Logs) identified() bool {
	for i := range l.origins {
		if l.origins[i].Identity != "" {
			return true
		}
	}
	return false
}

// HasIdentity reports whether a row has an identity.
func (l *Logs) HasIdentity(i int) bool {
	r := l.Record(i)
	o := &l.origins[r.Origin].Origin
	if o.Identity == "" {
		return false
	}
	var row LogRow
	l.Row(i, &row)
	_, ok := IdentityOf(o, &row)
	return ok
}
