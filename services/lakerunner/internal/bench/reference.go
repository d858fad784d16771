// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"github.com/prometheus/prometheus/tsdb"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	lakeconfig "github.com/lakerunner/lakerunner/pkg/config"
)

// reference is Prometheus over the corpus: its translation of OTLP, its database with all samples in the head, its engine.
type reference struct {
	directory string
	db        *tsdb.DB
	engine    *promql.Engine
}

// newReference opens an empty database.
func newReference(directory string) (*reference, error) {
	r := &reference{directory: filepath.Join(directory, "prometheus")}
	options := tsdb.DefaultOptions()
	options.WALSegmentSize = -1                                     // no WAL: nothing of this is to be kept
	options.MinBlockDuration = (30 * 24 * time.Hour).Milliseconds() // all samples stay in memory
	options.MaxBlockDuration = options.MinBlockDuration
	options.RetentionDuration = 12 * options.MinBlockDuration
	var err error
	if r.db, err = tsdb.Open(r.directory, nil, nil, options, nil); err != nil {
		return nil, fmt.Errorf("open Prometheus' database: %w", err)
	}
	r.engine = promql.NewEngine(promql.EngineOpts{
		MaxSamples: 500_000_000, Timeout: 10 * time.Minute, EnableAtModifier: true, EnableNegativeOffset: true,
		Parser: parser.NewParser(parser.Options{}),
	})
	return r, nil
}

// openReference fills a database with the corpus, as Prometheus' OTLP receiver does.
func openReference(ctx context.Context, corpus, directory string) (*reference, error) {
	r, err := newReference(directory)
	if err != nil {
		return nil, err
	}
	paths, err := corpusObjects(corpus)
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	for _, path := range paths {
		if err := r.append(ctx, path); err != nil {
			return nil, errors.Join(fmt.Errorf("give %s to Prometheus: %w", path, err), r.close())
		}
	}
	return r, nil
}

func (r *reference) append(ctx context.Context, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	z, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		return err
	}
	request := pmetricotlp.NewExportRequest()
	if err := request.UnmarshalProto(raw); err != nil {
		return err
	}
	appender := r.db.AppenderV2(ctx)
	converter := prometheusremotewrite.NewPrometheusConverter(appender)
	_, err = converter.FromMetrics(ctx, request.Metrics(), prometheusremotewrite.Settings{
		AddMetricSuffixes: true, PromoteScopeMetadata: true,
		PromoteResourceAttributes: prometheusremotewrite.NewPromoteResourceAttributes(config.OTLPConfig{
			PromoteResourceAttributes: lakeconfig.DefaultMetrics().PromoteResourceAttributes,
		}),
	})
	return errors.Join(err, appender.Commit())
}

// ask answers a query; took is the median of three.
func (r *reference) ask(ctx context.Context, q *metricQuery) (value parser.Value, took time.Duration, err error) {
	const runs = 3
	var times []time.Duration
	for range runs {
		started := time.Now()
		if value, err = r.once(ctx, q); err != nil {
			return nil, 0, err
		}
		times = append(times, time.Since(started))
	}
	return value, median(times), nil
}

// once answers with values of its own: the engine's are reused.
func (r *reference) once(ctx context.Context, q *metricQuery) (parser.Value, error) {
	var asked promql.Query
	var err error
	if q.step == 0 {
		asked, err = r.engine.NewInstantQuery(ctx, r.db, nil, q.promql, q.end)
	} else {
		asked, err = r.engine.NewRangeQuery(ctx, r.db, nil, q.promql, q.start, q.end, q.step)
	}
	if err != nil {
		return nil, err
	}
	defer asked.Close()
	result := asked.Exec(ctx)
	switch v := result.Value.(type) {
	case promql.Vector:
		return append(promql.Vector{}, v...), result.Err
	case promql.Matrix:
		own := make(promql.Matrix, len(v))
		for i, s := range v {
			own[i] = promql.Series{Metric: s.Metric, Floats: append([]promql.FPoint{}, s.Floats...)}
		}
		return own, result.Err
	}
	return nil, errors.Join(result.Err, fmt.Errorf("no vector and no matrix: %T", result.Value))
}

func (r *reference) close() error {
	return errors.Join(r.engine.Close(), r.db.Close(), os.RemoveAll(r.directory))
}

// tolerance is how far, relative to it, a value may be from Prometheus': sums are made in another order.
const tolerance = 1e-9

// wantSeries expects the series and samples that Prometheus answers.
func wantSeries(want parser.Value) func(*answer) error {
	samples := map[string][]promql.FPoint{}
	kind := "matrix"
	switch v := want.(type) {
	case promql.Vector:
		kind = "vector"
		for _, s := range v {
			samples[s.Metric.String()] = []promql.FPoint{{T: s.T, F: s.F}}
		}
	case promql.Matrix:
		for _, s := range v {
			samples[s.Metric.String()] = s.Floats
		}
	}
	return func(a *answer) error {
		var got []series
		if err := a.decode(kind, &got); err != nil {
			return err
		}
		if err := same("series", int64(len(got)), int64(len(samples))); err != nil {
			return err
		}
		for _, s := range got {
			name := labels.FromMap(s.Metric).String()
			points, known := samples[name]
			if !known {
				return fmt.Errorf("series %s is not Prometheus'", name)
			}
			values := s.Values
			if kind == "vector" {
				values = [][2]any{s.Value}
			}
			if err := samePoints(values, points); err != nil {
				return fmt.Errorf("series %s: %w", name, err)
			}
		}
		return nil
	}
}

func samePoints(got [][2]any, want []promql.FPoint) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d samples, want %d", len(got), len(want))
	}
	for i, p := range want {
		at, _ := got[i][0].(float64)
		value, err := floating(got[i][1])
		if err != nil {
			return err
		}
		close := value == p.F || math.IsNaN(value) && math.IsNaN(p.F) || math.Abs(value-p.F) <= tolerance*math.Max(math.Abs(value), math.Abs(p.F))
		if int64(math.Round(at*1000)) != p.T || !close {
			return fmt.Errorf("%v at %v, want %v at %d ms", value, at, p.F, p.T)
		}
	}
	return nil
}
