// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/grafana/loki/v3/pkg/logproto"
	lokilog "github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
)

// FieldsRequest asks which fields the newest lines of a log query have.
type FieldsRequest struct {
	Query      string
	Start, End time.Time
	Lines      int // that are looked at
	Limit      int // of fields, or of values
}

// Field is a field found in lines: of structured metadata, or one that a parser would make.
type Field struct {
	Name     string
	Type     logproto.DetectedFieldType
	Parsers  []string // none for structured metadata and for what the query itself parsed
	JSONPath []string // where a JSON parser found it
	Values   []string // distinct, sorted
}

// Fields detects the fields of the newest lines, as Loki does: structured metadata, labels that the query makes, and what the
// json or else the logfmt parser makes of each line.
func (f *Frontend) Fields(ctx context.Context, req FieldsRequest) ([]Field, Statistics, error) {
	lines, err := f.Lines(ctx, Request{Query: req.Query, Start: req.Start, End: req.End, Limit: req.Lines, Direction: logproto.BACKWARD})
	if err != nil {
		return nil, Statistics{}, err
	}
	defer lines.Close()
	found := newFieldFinder(req.Limit)
	for line := lines.Next(); line != nil; line = lines.Next() {
		found.line(line)
	}
	if err := lines.Err(); err != nil {
		return nil, Statistics{}, err
	}
	return found.fields(), lines.Statistics(), nil
}

type fieldFinder struct {
	most   int
	found  map[string]*foundField
	json   *lokilog.JSONParser
	logfmt *lokilog.LogfmtParser
	bases  map[string]labels.Labels
}

type foundField struct {
	Field
	values map[string]struct{}
}

func newFieldFinder(most int) *fieldFinder {
	return &fieldFinder{
		most: most, found: map[string]*foundField{}, bases: map[string]labels.Labels{},
		json: lokilog.NewJSONParser(true), logfmt: lokilog.NewLogfmtParser(false, false),
	}
}

func (f *fieldFinder) line(line *logs.Line) {
	for _, l := range line.Metadata {
		f.add(l.Name, l.Value, nil, nil)
	}
	for _, l := range line.Parsed {
		f.add(l.Name, l.Value, nil, nil)
	}
	builder := lokilog.NewBaseLabelsBuilder().ForLabels(f.base(line), line.StreamHash)
	parser := "json"
	if _, ok := f.json.Process(0, []byte(line.Line), builder); !ok || builder.HasErr() {
		builder.Reset()
		parser = "logfmt"
		if _, ok := f.logfmt.Process(0, []byte(line.Line), builder); !ok || builder.HasErr() {
			return
		}
	}
	builder.LabelsResult().Parsed().Range(func(l labels.Label) {
		var path []string
		if parser == "json" {
			path = builder.GetJSONPath(l.Name)
		}
		f.add(l.Name, l.Value, []string{parser}, path)
	})
}

// base returns the labels of the line's stream, with which parsed names may clash.
func (f *fieldFinder) base(line *logs.Line) labels.Labels {
	if base, ok := f.bases[line.Labels]; ok {
		return base
	}
	base := line.StreamLabels()
	f.bases[line.Labels] = base
	return base
}

func (f *fieldFinder) add(name, value string, parsers, path []string) {
	switch name {
	case logqlmodel.ErrorLabel, logqlmodel.ErrorDetailsLabel, logqlmodel.PreserveErrorLabel:
		return
	}
	field, ok := f.found[name]
	if !ok {
		if len(f.found) >= f.most {
			return
		}
		field = &foundField{Field: Field{Name: name, Type: typeOf(value)}, values: map[string]struct{}{}}
		f.found[name] = field
	}
	field.values[value] = struct{}{}
	for _, parser := range parsers {
		if !slices.Contains(field.Parsers, parser) {
			field.Parsers = append(field.Parsers, parser)
		}
	}
	if len(path) > 0 {
		field.JSONPath = path
	}
}

func (f *fieldFinder) fields() []Field {
	out := make([]Field, 0, len(f.found))
	for _, field := range f.found {
		field.Values = slices.Sorted(maps.Keys(field.values))
		out = append(out, field.Field)
	}
	slices.SortFunc(out, func(a, b Field) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// typeOf guesses a field's type by its first value.
func typeOf(value string) logproto.DetectedFieldType {
	if _, err := strconv.ParseInt(value, 10, 64); err == nil {
		return logproto.DetectedFieldInt
	}
	if _, err := strconv.ParseFloat(value, 64); err == nil {
		return logproto.DetectedFieldFloat
	}
	if _, err := strconv.ParseBool(value); err == nil {
		return logproto.DetectedFieldBoolean
	}
	if _, err := time.ParseDuration(value); err == nil {
		return logproto.DetectedFieldDuration
	}
	if isBytes(value) {
		return logproto.DetectedFieldBytes
	}
	return logproto.DetectedFieldString
}

func isBytes(value string) bool {
	_, err := humanize.ParseBytes(value)
	return err == nil
}

// Query returns a value as it can stand in a query: sizes in the form that comparisons parse.
func (f *Field) Query(value string) string {
	if f.Type != logproto.DetectedFieldBytes {
		return value
	}
	size, err := humanize.ParseBytes(value)
	if err != nil {
		return value
	}
	return strings.ReplaceAll(humanize.Bytes(size), " ", "")
}
