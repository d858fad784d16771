// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"cmp"
	"encoding/hex"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// SortExemplars sorts exemplars by time, track, value, labels and source, and leaves one, that of the lowest source, of those that differ in nothing else:
// cumulative points repeat theirs. It works in place.
func SortExemplars(all []Exemplar) []Exemplar {
	slices.SortFunc(all, func(a, b Exemplar) int {
		return cmp.Or(compareObservations(&a, &b), cmp.Compare(a.Source, b.Source))
	})
	return slices.CompactFunc(all, func(a, b Exemplar) bool { return compareObservations(&a, &b) == 0 })
}

func compareObservations(a, b *Exemplar) int {
	return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Track, b.Track), cmp.Compare(math.Float64bits(a.Value), math.Float64bits(b.Value)),
		labels.Compare(a.Labels, b.Labels))
}

// hash is what an exemplar adds to the exemplars' hash.
func (e *Exemplar) hash(identity uint64) uint64 {
	h := mix(mix(identity, uint64(e.Time)), math.Float64bits(e.Value))
	h = mix(mix(h, uint64(e.Source)), uint64(e.Track))
	e.Labels.Range(func(l labels.Label) {
		h = mix(mix(h, xxhash.Sum64String(l.Name)), xxhash.Sum64String(l.Value))
	})
	return scramble(h)
}

// exemplars appends exemplars. Values that are hex digits, as ids of traces are, take half their length.
func (e *encoder) exemplars(all []Exemplar) {
	ints := make([]int64, len(all))
	vector := func(f func(*Exemplar) int64) {
		for i := range all {
			ints[i] = f(&all[i])
		}
		e.b = e.vectors.Ints(e.b, ints)
	}
	vector(func(x *Exemplar) int64 { return x.Time })
	vector(func(x *Exemplar) int64 { return int64(x.Source) })
	vector(func(x *Exemplar) int64 { return int64(x.Track) })
	vector(func(x *Exemplar) int64 { return int64(x.Labels.Len()) })
	values := make([]float64, len(all))
	for i := range all {
		values[i] = all[i].Value
	}
	e.b = e.vectors.Floats(e.b, values)
	names := map[string]int64{}
	for i := range all {
		all[i].Labels.Range(func(l labels.Label) {
			number, known := names[l.Name]
			if !known { // 0, and the name; else its number
				names[l.Name] = int64(len(names)) + 1
				e.uint(0)
				e.string(l.Name)
			} else {
				e.uint(uint64(number))
			}
			e.hexString(l.Value)
		})
	}
}

func (e *encoder) hexString(s string) {
	if isHex(s) {
		e.uint(uint64(len(s)/2)<<1 | 1)
		e.b, _ = hex.AppendDecode(e.b, []byte(s))
		return
	}
	e.uint(uint64(len(s)) << 1)
	e.b = append(e.b, s...)
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s)%2 == 0 && s != ""
}

func (d *decoder) hexString() string {
	n := d.uint()
	b := d.bytes(int(min(n>>1, maxBlob)))
	if n&1 != 0 {
		return hex.EncodeToString(b)
	}
	return string(b)
}

// exemplars reads n exemplars and appends them to dst.
func (d *decoder) exemplars(dst []Exemplar, n int) []Exemplar {
	times, sources, tracks, counts := d.vector(nil, n), d.vector(nil, n), d.vector(nil, n), d.vector(nil, n)
	values := d.floatVector(nil, n)
	var names []string
	b := labels.NewScratchBuilder(4)
	for i := range values {
		b.Reset()
		for range counts[i] {
			if d.err != nil {
				return dst
			}
			name := ""
			if number := d.uint(); number == 0 {
				name = d.string()
				names = append(names, name)
			} else if number <= uint64(len(names)) {
				name = names[number-1]
			} else {
				d.fail()
			}
			b.Add(name, d.hexString())
		}
		dst = append(dst, Exemplar{Labels: b.Labels(), Value: values[i], Time: times[i], Source: lake.ReceiptID(sources[i]), Track: int(tracks[i])})
	}
	return dst
}
