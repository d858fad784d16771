// SPDX-License-Identifier: AGPL-3.0-only

package logs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/grafana/loki/v3/pkg/iter"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql"
	"github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/plan"
)

// rows is the storage under Loki's engine for a leaf whose rows have to meet. It fetches the rows as they are stored and
// applies the leaf's whole pipeline to them here, as they arrive, so that only samples are held.
type rows struct {
	session *Session
	leaf    *plan.Leaf
}

// SelectLogs is never asked of a leaf.
func (r *rows) SelectLogs(context.Context, logql.SelectLogParams) (iter.EntryIterator, error) {
	return nil, fault.New(fault.Internal, "lines were asked of a leaf of a metric query")
}

// SelectSamples answers the samples of a leaf in the order of their time.
func (r *rows) SelectSamples(ctx context.Context, p logql.SelectSampleParams) (iter.SampleIterator, error) {
	expr, err := p.Expr()
	if err != nil {
		return nil, err
	}
	if _, err := expr.Extractors(); err != nil {
		return nil, err // as the attempts would, which have one each
	}
	held := &extracted{}
	err = r.session.Fan.Run(ctx, fan.Scan{
		Organization: r.session.Organization,
		QueryID:      r.session.QueryID,
		Segments:     r.session.within(p.Start, p.End),
		Deletes:      r.session.Deletes,
		Fragment: func(req *workerv1.ScanRequest) {
			req.Fragment = &workerv1.ScanRequest_LogLines{LogLines: &workerv1.LogLines{
				Selector:  r.leaf.Rows,
				Start:     timestamppb.New(p.Start),
				End:       timestamppb.New(p.End),
				Direction: workerv1.Direction_DIRECTION_FORWARD,
			}}
		},
		NewDecoder: func([]lake.Segment) fan.Decoder { return newExtractor(expr, r.session.points()) },
		Done: func(d fan.Decoder) error {
			held.add(d.(*extractor))
			if len(held.samples) > r.session.points() {
				return r.session.errPoints()
			}
			return nil
		},
		Tally: r.session.Tally,
	})
	if err != nil {
		return nil, err
	}
	held.sort()
	return held, nil
}

// extractor turns the rows of one attempt into samples. Loki's extractors are not safe for concurrent use, so each attempt has its own.
type extractor struct {
	most     int
	expr     syntax.SampleExpr
	loki     []log.SampleExtractor
	streams  map[uint64][]log.StreamSampleExtractor
	series   map[string]int32
	names    []extractedSeries
	samples  []extractedSample
	metadata labels.ScratchBuilder
}

type extractedSeries struct {
	labels string
	hash   uint64
}

type extractedSample struct {
	time   int64 // ns
	value  float64
	series int32
}

func newExtractor(expr syntax.SampleExpr, most int) *extractor {
	return &extractor{
		most:     most,
		expr:     expr,
		streams:  map[uint64][]log.StreamSampleExtractor{},
		series:   map[string]int32{},
		metadata: labels.NewScratchBuilder(16),
	}
}

// Add takes in a batch of lines.
func (e *extractor) Add(batch arrow.RecordBatch) error {
	columns, err := lineColumnsOf(batch)
	if err != nil {
		return fmt.Errorf("log rows: %w", err)
	}
	for i := range int(batch.NumRows()) {
		if err := e.row(&columns, i); err != nil {
			return err
		}
	}
	if len(e.samples) > e.most {
		return fault.New(fault.Exhausted, "the query needs more than %d samples at once; narrow the time range or the stream selector", e.most)
	}
	return nil
}

func (e *extractor) row(c *lineColumns, i int) error {
	e.metadata.Reset()
	c.metadata.each(i, e.metadata.Add)
	e.metadata.Sort()
	metadata := e.metadata.Labels()
	streams, err := e.stream(c, i)
	if err != nil {
		return err
	}
	at := c.time.Value(i)
	for _, stream := range streams {
		samples, _ := stream.ProcessString(at, c.line.Value(i), metadata)
		for _, sample := range samples {
			e.samples = append(e.samples, extractedSample{time: at, value: sample.Value, series: e.intern(sample.Labels)})
		}
	}
	return nil
}

// stream returns the extractors of the row's stream.
func (e *extractor) stream(c *lineColumns, i int) ([]log.StreamSampleExtractor, error) {
	hash := c.hash.Value(i)
	if streams, ok := e.streams[hash]; ok {
		return streams, nil
	}
	if e.loki == nil {
		loki, err := e.expr.Extractors()
		if err != nil {
			return nil, err
		}
		e.loki = loki
	}
	base, err := streamLabels(c, i)
	if err != nil {
		return nil, err
	}
	streams := make([]log.StreamSampleExtractor, len(e.loki))
	for at, loki := range e.loki {
		streams[at] = loki.ForStream(base)
	}
	e.streams[hash] = streams
	return streams, nil
}

// streamLabels returns the labels of a row's stream: all its labels without its metadata and parsed ones.
func streamLabels(c *lineColumns, i int) (labels.Labels, error) {
	all, err := parseLabels(strings.Clone(c.labels.Value(i)))
	if err != nil {
		return labels.EmptyLabels(), err
	}
	builder := labels.NewBuilder(all)
	drop := func(name, _ string) { builder.Del(name) }
	c.metadata.each(i, drop)
	c.parsed.each(i, drop)
	return builder.Labels(), nil
}

func (e *extractor) intern(result log.LabelsResult) int32 {
	text := result.String()
	if at, ok := e.series[text]; ok {
		return at
	}
	at := int32(len(e.names))
	text = strings.Clone(text)
	e.series[text] = at
	e.names = append(e.names, extractedSeries{labels: text, hash: result.Hash()})
	return at
}

// extracted holds the samples of all attempts and iterates over them.
type extracted struct {
	series  map[string]int32
	names   []extractedSeries
	samples []extractedSample
	at      int // one behind the current sample
}

var _ iter.SampleIterator = (*extracted)(nil)

func (x *extracted) add(e *extractor) {
	if x.series == nil {
		x.series = map[string]int32{}
	}
	moved := make([]int32, len(e.names))
	for i, series := range e.names {
		at, ok := x.series[series.labels]
		if !ok {
			at = int32(len(x.names))
			x.series[series.labels] = at
			x.names = append(x.names, series)
		}
		moved[i] = at
	}
	for _, s := range e.samples {
		s.series = moved[s.series]
		x.samples = append(x.samples, s)
	}
}

// sort orders samples by time; equal times by series and value, so that first and last do not depend on who was faster.
func (x *extracted) sort() {
	slices.SortFunc(x.samples, func(a, b extractedSample) int {
		return cmp.Or(cmp.Compare(a.time, b.time),
			cmp.Compare(x.names[a.series].labels, x.names[b.series].labels),
			cmp.Compare(a.value, b.value))
	})
}

// Next moves to the next sample.
func (x *extracted) Next() bool {
	if x.at >= len(x.samples) {
		return false
	}
	x.at++
	return true
}

// At returns the sample. Its hash is zero: no sample is a replica of another.
func (x *extracted) At() logproto.Sample {
	s := x.samples[x.at-1]
	return logproto.Sample{Timestamp: s.time, Value: s.value}
}

// Labels returns the labels of the sample's series.
func (x *extracted) Labels() string { return x.names[x.samples[x.at-1].series].labels }

// StreamHash returns the hash of the sample's series.
func (x *extracted) StreamHash() uint64 { return x.names[x.samples[x.at-1].series].hash }

// Err is nil: all samples are there.
func (x *extracted) Err() error { return nil }

// Close has nothing to release.
func (x *extracted) Close() error { return nil }
