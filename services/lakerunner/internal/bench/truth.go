// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// truth is a corpus's truth.json: what the queries must answer.
type truth struct {
	Lines, BodyBytes, OTLPBytes, OTLPGzBytes int64
	Start, End                               time.Time
	Needle                                   string
	NeedleCount                              int64
	Regex, RegexService                      string
	RegexCount                               int64
	LevelService, LevelLevel                 string
	LevelLastHour                            int64
	TopField, TopService                     string
	Top                                      []topEntry
	TraceID                                  string
	TraceLines                               int64
	// Of metrics: Prometheus' series and samples, and OTLP's data points.
	Series, Samples, OTLPPoints int64
}

func (t *truth) signal() lake.Signal {
	if t.Samples > 0 {
		return lake.SignalMetrics
	}
	return lake.SignalLogs
}

// rows are what segments and receipts count.
func (t *truth) rows() int64 { return t.Lines + t.OTLPPoints }

// units are what the corpus is measured by: lines, or samples as Prometheus counts them.
func (t *truth) units() int64 { return t.Lines + t.Samples }

func (t *truth) unit() string {
	if t.signal() == lake.SignalMetrics {
		return "samples"
	}
	return "rows"
}

func (t *truth) size() string {
	if t.signal() == lake.SignalMetrics {
		return fmt.Sprintf("%d samples of %d series", t.Samples, t.Series)
	}
	return fmt.Sprintf("%d log lines", t.Lines)
}

// topEntry is a value and how often it occurs.
type topEntry struct {
	V string
	N int64
}

func readTruth(corpus string) (*truth, error) {
	b, err := os.ReadFile(filepath.Join(corpus, "truth.json"))
	if err != nil {
		return nil, fmt.Errorf("read the corpus's answers: %w", err)
	}
	var t truth
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, fmt.Errorf("read the corpus's answers: %w", err)
	}
	if t.units() == 0 || !t.Start.Before(t.End) {
		return nil, fmt.Errorf("truth.json of %s has no lines, no samples or no time", corpus)
	}
	return &t, nil
}
