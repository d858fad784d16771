// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// streamTotal is a stream of an answer.
type streamTotal struct {
	text                     string
	rows, bytes, first, last int64
}

// Streams gives the streams that have rows in the range. Rows and bytes are exact: those of a stream that the range cuts, and of segments
// some of whose rows are not answered, are counted.
func (s *Scan) Streams(ctx context.Context, q Streams, emit func(arrow.RecordBatch) error) error {
	sel, err := streamSelection(q.Selector)
	if err != nil {
		return err
	}
	cuts, err := s.cuts(ctx, sel, q.Start, q.End)
	if err != nil {
		return err
	}
	byText := map[string]*streamTotal{}
	var counted []*cut
	for _, k := range cuts {
		k.streams = slices.DeleteFunc(k.streams, func(id uint32) bool {
			stream := &k.contents.streams[id]
			whole := k.whole() && stream.First >= q.Start && stream.Last < q.End
			if whole {
				mergeStream(byText, streamTotal{stream.text, stream.Rows, stream.Bytes, stream.First, stream.Last})
			}
			return whole
		})
		if len(k.streams) > 0 {
			counted = append(counted, k)
		}
	}
	if err := s.countStreams(ctx, counted, byText); err != nil {
		return err
	}
	var all []streamTotal
	for _, total := range byText {
		all = append(all, *total)
	}
	slices.SortFunc(all, func(a, b streamTotal) int { return strings.Compare(a.text, b.text) })
	return emitStreams(all, emit)
}

func streamSelection(selector string) (*plan.Selection, error) {
	if selector == "" {
		return &plan.Selection{Lines: plan.Lines{Exact: true}}, nil
	}
	expr, err := plan.ParseStreams(selector)
	if err != nil {
		return nil, err
	}
	return &plan.Selection{Matchers: expr, Lines: plan.Lines{Exact: true}}, nil
}

func mergeStream(into map[string]*streamTotal, s streamTotal) {
	known := into[s.text]
	if known == nil {
		into[s.text] = &s
		return
	}
	known.rows += s.rows
	known.bytes += s.bytes
	known.first, known.last = min(known.first, s.first), max(known.last, s.last)
}

// countStreams counts rows.
func (s *Scan) countStreams(ctx context.Context, cuts []*cut, into map[string]*streamTotal) error {
	return s.share(ctx, cuts, func(ctx context.Context, next func() *cut) (func() error, error) {
		var found []streamTotal
		for k := next(); k != nil; k = next() {
			totals, err := s.countCut(ctx, k)
			if err != nil {
				return nil, err
			}
			found = append(found, totals...)
		}
		return func() error {
			for _, total := range found {
				mergeStream(into, total)
			}
			return nil
		}, nil
	})
}

func (s *Scan) countCut(ctx context.Context, k *cut) ([]streamTotal, error) {
	file, err := s.open(ctx, k)
	if err != nil {
		return nil, err
	}
	defer file.Release()
	if s.scanner.options.DirectRows > 0 || k.chosen {
		return s.countDirect(ctx, k, file)
	}
	inner := k.from(file, []string{"stream", "time", "strlen(body) AS length"}, k.conditions(k.streams, k.start, k.end))
	sql := "SELECT stream, count(*), sum(length)::BIGINT, min(time), max(time) FROM (" + inner + ") GROUP BY stream"
	var found []streamTotal
	err = s.query(ctx, sql, func(batch arrow.RecordBatch) error {
		for i := range int(batch.NumRows()) {
			at := func(c int) int64 { return int64At(batch.Column(c), i) }
			found = append(found, streamTotal{k.contents.streams[at(0)].text, at(1), at(2), at(3), at(4)})
		}
		return nil
	})
	return found, err
}

// countDirect counts without DuckDB.
func (s *Scan) countDirect(ctx context.Context, k *cut, file *cache.Pinned) ([]streamTotal, error) {
	d, err := s.openDirect(k, file)
	if err != nil {
		return nil, err
	}
	defer d.close()
	var p projection
	p.time()
	p.stream()
	p.body()
	counted := make([]streamTotal, len(k.contents.streams))
	err = d.each(ctx, &p, unordered, anyRow, func(r *row) error {
		t := &counted[r.Stream]
		if t.rows == 0 {
			*t = streamTotal{text: k.contents.streams[r.Stream].text, first: r.Time, last: r.Time}
		}
		t.rows, t.bytes = t.rows+1, t.bytes+int64(len(r.Body))
		t.first, t.last = min(t.first, r.Time), max(t.last, r.Time)
		return nil
	})
	return slices.DeleteFunc(counted, func(t streamTotal) bool { return t.rows == 0 }), err
}

// fieldTotal is a field of an answer.
type fieldTotal struct {
	name, kind        string
	rows, cardinality int64
}

// Fields gives the structured metadata that segments with matching streams in the range have, by name and type. Rows and cardinality are those
// of whole segments, masked sources included; the cardinality is the largest of any segment. Of resource and scope, rows are not known: they
// count as all rows of their segment.
func (s *Scan) Fields(ctx context.Context, q Streams, emit func(arrow.RecordBatch) error) error {
	sel, err := streamSelection(q.Selector)
	if err != nil {
		return err
	}
	cuts, err := s.cuts(ctx, sel, q.Start, q.End)
	if err != nil {
		return err
	}
	fields := fieldTotals{}
	for _, k := range cuts {
		fields.addAttributes(k.contents)
		fields.addOrigins(k.contents)
	}
	var all []fieldTotal
	for _, f := range fields {
		all = append(all, *f)
	}
	slices.SortFunc(all, func(a, b fieldTotal) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.kind, b.kind)) })
	return emitFields(all, emit)
}

type fieldTotals map[[2]string]*fieldTotal

func (t fieldTotals) add(f fieldTotal) {
	known := t[[2]string{f.name, f.kind}]
	if known == nil {
		t[[2]string{f.name, f.kind}] = &f
		return
	}
	known.rows += f.rows
	known.cardinality = max(known.cardinality, f.cardinality)
}

func (t fieldTotals) addAttributes(c *Contents) {
	for _, a := range c.attributes {
		if name := columns.LogQLName(a.Name); name != "" {
			t.add(fieldTotal{name, kindName(a.Kind), a.Rows, a.Cardinality})
		}
	}
}

func (t fieldTotals) addOrigins(c *Contents) {
	distinct := map[string]map[string]bool{}
	for _, origin := range c.origins {
		for _, l := range origin {
			if distinct[l.Name] == nil {
				distinct[l.Name] = map[string]bool{}
			}
			distinct[l.Name][l.Value] = true
		}
	}
	for name, values := range distinct {
		t.add(fieldTotal{name, kindName(columns.KindString), c.Rows, int64(len(values))})
	}
}

func kindName(k columns.ValueKind) string {
	switch k {
	case columns.KindInt:
		return "int"
	case columns.KindDouble:
		return "float"
	case columns.KindBool:
		return "boolean"
	}
	return "string"
}
