// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"context"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Series are samples of one label set, rising by time. Times are ms since 1970.
type Series struct {
	Labels labels.Labels
	// Delta says that each sample is what was added since the one before.
	Delta bool
	// Times and Values are the float samples.
	Times  []int64
	Values []float64
	// Starts are since when a float sample was counted up; nil: none is known. Zero: not known.
	Starts []int64
	// HistogramTimes and Histograms are the native histograms; a reset hint that is UnknownCounterReset is derived from the histogram before.
	HistogramTimes []int64
	Histograms     []*histogram.FloatHistogram
	// HistogramStarts are as Starts.
	HistogramStarts []int64
}

// Len returns the number of samples.
func (s *Series) Len() int { return len(s.Times) + len(s.HistogramTimes) }

// Selection asks for series.
type Selection struct {
	Matchers []*labels.Matcher
	// Start and End are ms since 1970, both inclusive. Samples outside of them are harmless.
	Start, End int64
	// Hints say what the engine will do with them; never nil.
	Hints *storage.SelectHints
	Shard lake.Shard
}

// Source has series. Select may be called from several goroutines at once.
type Source interface {
	// Select returns the series sorted by labels, without duplicates but for a delta one behind a cumulative one of the same labels. What it returns is not changed.
	Select(ctx context.Context, s Selection) ([]Series, error)
}
