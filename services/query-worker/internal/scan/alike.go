// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"slices"
	"strings"
)

// alike counts lines that fare equally together: Loki's extractor looks at one of each variety, which is told by what the query can see of the stream's labels, and by
// the values of the fields that it looks at.
type alike struct {
	counter *counter
	classes map[string]map[string]*variety // by what is seen of streams, then by fields
	held    int
}

// variety are lines that fare equally, and the series that they go to.
type variety struct {
	series []*totalSeries
	bucket int64 // of those counted and not yet added
	rows   int64
}

// maxAlike is how many bytes one goroutine remembers of varieties. Lines of further ones are each given to the extractor.
const maxAlike = 16 << 20

// visitor counts rows of a cut; those that are not plain are given to the extractor.
func (a *alike) visitor(k *cut, extract func(*row) error) func(*row) error {
	known := make([]map[string]*variety, len(k.contents.streams))
	var values []byte
	return func(r *row) error {
		var plain bool
		if values, plain = a.counter.w.fields.Append(values[:0], r.Body); !plain {
			return extract(r)
		}
		bucket, ok := a.counter.w.grid.bucket(r.Time)
		if !ok {
			return nil
		}
		if known[r.Stream] == nil {
			known[r.Stream] = a.class(&k.contents.streams[r.Stream])
		}
		s := known[r.Stream][string(values)]
		switch {
		case s == nil:
			return a.first(known[r.Stream], values, extract, r)
		case s.rows > 0 && s.bucket != bucket:
			if err := a.add(s); err != nil {
				return err
			}
		}
		s.bucket, s.rows = bucket, s.rows+1
		return nil
	}
}

// class returns the varieties of a stream.
func (a *alike) class(of *stream) map[string]*variety {
	var seen strings.Builder
	for _, name := range a.counter.w.names.List() {
		seen.WriteString(of.labels.Get(name))
		seen.WriteByte(0)
	}
	class := a.classes[seen.String()]
	if class == nil {
		class = map[string]*variety{}
		a.classes[seen.String()] = class
	}
	return class
}

// first counts the first line of a variety.
func (a *alike) first(class map[string]*variety, values []byte, extract func(*row) error, r *row) error {
	a.counter.last = a.counter.last[:0]
	if err := extract(r); err != nil {
		return err
	}
	const fixed = 120
	if a.held += len(values) + fixed; a.held < maxAlike {
		class[string(values)] = &variety{series: slices.Clone(a.counter.last)}
	}
	return nil
}

// add adds what was counted of a variety.
func (a *alike) add(s *variety) error {
	for _, to := range s.series {
		if err := a.counter.into.put(to, s.bucket, total{rows: s.rows, value: float64(s.rows)}); err != nil {
			return err
		}
	}
	s.rows = 0
	return nil
}

// finish adds all that was counted.
func (a *alike) finish() error {
	for _, class := range a.classes {
		for _, s := range class {
			if err := a.add(s); err != nil {
				return err
			}
		}
	}
	return nil
}
