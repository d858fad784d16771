// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
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
	if t.Lines == 0 || !t.Start.Before(t.End) {
		return nil, fmt.Errorf("truth.json of %s has no lines or no time", corpus)
	}
	return &t, nil
}
