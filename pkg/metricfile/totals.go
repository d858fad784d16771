// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// totals are what sidecar and footer say of a segment as a whole.
type totals struct {
	Meta
	formatVersion            int
	series                   int64
	rows, samples, exemplars int64
	first, last              int64
	rowHash                  uint64
	exemplarHash             uint64
}

// document is the form of totals: JSON, so that whoever has the Parquet file alone can read them.
type document struct {
	Format        int               `json:"format"`
	Organization  lake.Organization `json:"organization"`
	Signal        string            `json:"signal"`
	WindowStart   int64             `json:"window_start"`  // ns since 1970
	WindowLength  int64             `json:"window_length"` // ns
	Level         int               `json:"level"`
	Lease         lake.LeaseID      `json:"lease"`
	Sources       []lake.ReceiptID  `json:"sources,omitempty"`
	Inputs        []string          `json:"inputs,omitempty"`
	AppliedDelete lake.DeleteID     `json:"applied_delete,omitempty"`
	Rules         []string          `json:"rules,omitempty"`
	Resolution    int64             `json:"resolution,omitempty"` // ns
	ShardIndex    uint32            `json:"shard_index,omitempty"`
	ShardCount    uint32            `json:"shard_count,omitempty"`
	Series        int64             `json:"series"`
	Rows          int64             `json:"rows"`
	Samples       int64             `json:"samples"`
	Exemplars     int64             `json:"exemplars,omitempty"`
	First         int64             `json:"first"` // ns since 1970
	Last          int64             `json:"last"`  // ns since 1970
	RowHash       string            `json:"row_hash"`
	ExemplarHash  string            `json:"exemplar_hash,omitempty"`
}

func (t *totals) marshal() []byte {
	d := document{
		Format: t.formatVersion, Organization: t.Organization, Signal: t.Signal.String(), WindowStart: t.Window.Start.UnixNano(), WindowLength: int64(t.Window.Length),
		Level: t.Level, Lease: t.Lease, Sources: t.Sources, Inputs: t.Inputs, AppliedDelete: t.AppliedDelete, Rules: t.Rules,
		Resolution: int64(t.Resolution), ShardIndex: t.Shard.Index, ShardCount: t.Shard.Count,
		Series: t.series, Rows: t.rows, Samples: t.samples, Exemplars: t.exemplars, First: t.first, Last: t.last, RowHash: strconv.FormatUint(t.rowHash, 16),
	}
	if t.exemplars > 0 {
		d.ExemplarHash = strconv.FormatUint(t.exemplarHash, 16)
	}
	b, err := json.Marshal(&d)
	if err != nil {
		panic(err) // there is nothing in it that JSON has not
	}
	return b
}

func unmarshalTotals(b []byte) (totals, error) {
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return totals{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if d.Format < 1 || d.Format > FormatVersion {
		return totals{}, fmt.Errorf("segment has format version %d, and this release reads up to %d", d.Format, FormatVersion)
	}
	signal, err := lake.ParseSignal(d.Signal)
	if err != nil {
		return totals{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	t := totals{
		Meta: Meta{
			Organization: d.Organization, Signal: signal, Level: d.Level, Lease: d.Lease, Sources: d.Sources, Inputs: d.Inputs,
			Window:        lake.Window{Start: time.Unix(0, d.WindowStart).UTC(), Length: time.Duration(d.WindowLength)},
			AppliedDelete: d.AppliedDelete, Rules: d.Rules, Resolution: time.Duration(d.Resolution), Shard: lake.Shard{Index: d.ShardIndex, Count: d.ShardCount},
		},
		formatVersion: d.Format, series: d.Series, rows: d.Rows, samples: d.Samples, exemplars: d.Exemplars, first: d.First, last: d.Last,
	}
	if t.rowHash, err = strconv.ParseUint(d.RowHash, 16, 64); err != nil {
		return totals{}, errDamaged
	}
	if d.Exemplars > 0 {
		if t.exemplarHash, err = strconv.ParseUint(d.ExemplarHash, 16, 64); err != nil {
			return totals{}, errDamaged
		}
	}
	return t, nil
}
