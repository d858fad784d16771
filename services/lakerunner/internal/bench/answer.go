// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// answer is what the benchmark reads of an answer of the Loki or Prometheus HTTP API.
type answer struct {
	Status string   `json:"status"`
	Error  string   `json:"error"`
	Infos  []string `json:"infos"`
	Data   struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
	} `json:"data"`
}

// series is one element of a vector or matrix.
type series struct {
	Metric map[string]string `json:"metric"`
	Value  [2]any            `json:"value"`
	Values [][2]any          `json:"values"`
}

// wantLines expects so many log lines.
func wantLines(want int64) func(*answer) error {
	return func(a *answer) error {
		var streams []struct {
			Values []json.RawMessage `json:"values"`
		}
		if err := a.decode("streams", &streams); err != nil {
			return err
		}
		var got int64
		for _, s := range streams {
			got += int64(len(s.Values))
		}
		return same("lines", got, want)
	}
}

// wantValue expects one value, or none where it is zero.
func wantValue(want int64) func(*answer) error {
	return func(a *answer) error {
		var vector []series
		if err := a.decode("vector", &vector); err != nil {
			return err
		}
		var got int64
		for _, s := range vector {
			n, err := number(s.Value[1])
			if err != nil {
				return err
			}
			got += n
		}
		return same("count", got, want)
	}
}

// wantTotal expects all values together to make so many.
func wantTotal(want int64) func(*answer) error {
	return func(a *answer) error {
		var matrix []series
		if err := a.decode("matrix", &matrix); err != nil {
			return err
		}
		var got int64
		for _, s := range matrix {
			for _, v := range s.Values {
				n, err := number(v[1])
				if err != nil {
					return err
				}
				got += n
			}
		}
		return same("sum of all values", got, want)
	}
}

// wantTop expects the counts of the ten most frequent values, and those values whose count is not shared.
func wantTop(field string, top []topEntry) func(*answer) error {
	return func(a *answer) error {
		var vector []series
		if err := a.decode("vector", &vector); err != nil {
			return err
		}
		got := map[string]int64{}
		for _, s := range vector {
			n, err := number(s.Value[1])
			if err != nil {
				return err
			}
			got[s.Metric[field]] = n
		}
		want := top[:min(10, len(top))]
		if err := same("values", int64(len(got)), int64(len(want))); err != nil {
			return err
		}
		last := want[len(want)-1].N
		for _, e := range want {
			if n, ok := got[e.V]; (!ok && e.N > last) || (ok && n != e.N) {
				return fmt.Errorf("%s: got %d, want %d", e.V, n, e.N)
			}
		}
		return nil
	}
}

func (a *answer) decode(kind string, into any) error {
	if a.Data.ResultType != kind {
		return fmt.Errorf("got a %s, want a %s", a.Data.ResultType, kind)
	}
	return json.Unmarshal(a.Data.Result, into)
}

func number(v any) (int64, error) {
	s, _ := v.(string)
	f, err := strconv.ParseFloat(s, 64)
	return int64(f), err
}

func same(what string, got, want int64) error {
	if got != want {
		return fmt.Errorf("%s: got %d, want %d", what, got, want)
	}
	return nil
}

// floating reads a value as the Prometheus API writes it.
func floating(v any) (float64, error) {
	s, ok := v.(string)
	if !ok {
		return 0, fmt.Errorf("value %v is no string", v)
	}
	return strconv.ParseFloat(s, 64)
}
