// SPDX-License-Identifier: AGPL-3.0-only

package columns

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

func TestLogs(t *testing.T) {
	t.Parallel()

	t.Run("gives rows back as they were appended", func(t *testing.T) {
		t.Parallel()
		rng := rand.New(rand.NewPCG(1, 2))
		logs := NewLogs()
		rows := randomRows(rng, logs, 8000)
		var got LogRow
		for i, want := range rows {
			logs.Row(i, &got)
			if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("row %d (-want +got):\n%s", i, diff)
			}
		}
	})

	t.Run("copies strings whose memory the decoder uses again", func(t *testing.T) {
		t.Parallel()
		logs := NewLogs()
		buffer := []byte("first")
		logs.Append(&LogRow{Stream: logs.Stream(nil), Origin: logs.Origin(Origin{}), Body: string(buffer), Attributes: []Attribute{{Name: "k", Value: Value{Str: string(buffer)}}}})
		copy(buffer, "other")
		var got LogRow
		logs.Row(0, &got)
		if got.Body != "first" || got.Attributes[0].Value.Str != "first" {
			t.Errorf("got %+v", got)
		}
	})

	t.Run("numbers equal streams and origins alike", func(t *testing.T) {
		t.Parallel()
		logs := NewLogs()
		a := logs.Stream([]Label{{"b", "2"}, {"a", "1"}})
		b := logs.Stream([]Label{{"a", "1"}, {"b", "2"}, {"c", ""}})
		c := logs.Stream([]Label{{"a", "12"}, {"b", ""}})
		if a != b || a == c {
			t.Errorf("got streams %d, %d, %d", a, b, c)
		}
		want := []Label{{"a", "1"}, {"b", "2"}}
		if diff := gocmp.Diff(want, logs.StreamLabels(a)); diff != "" {
			t.Error(diff)
		}
		o := Origin{Resource: []Attribute{{"x", Value{Kind: KindInt, Num: 7}}}, ScopeName: "s"}
		first, again := logs.Origin(o), logs.Origin(o)
		o.Resource[0].Value.Num = 8
		if other := logs.Origin(o); first != again || first == other {
			t.Errorf("got origins %d, %d, %d", first, again, other)
		}
		if got := logs.OriginOf(first).Resource[0].Value.Num; got != 7 {
			t.Errorf("the origin was changed from outside: %d", got)
		}
	})

	t.Run("keeps the last of a repeated attribute, and both of two kinds", func(t *testing.T) {
		t.Parallel()
		logs := NewLogs()
		logs.Append(&LogRow{Stream: logs.Stream(nil), Origin: logs.Origin(Origin{}), Attributes: []Attribute{
			{"a", Value{Str: "x"}}, {"a", Value{Kind: KindInt, Num: 1}}, {"a", Value{Str: "y"}},
		}})
		var got LogRow
		logs.Row(0, &got)
		want := []Attribute{{"a", Value{Str: "y"}}, {"a", Value{Kind: KindInt, Num: 1}}}
		if diff := gocmp.Diff(want, got.Attributes); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("holds a row of more attributes than a chunk, and strings larger than a block", func(t *testing.T) {
		t.Parallel()
		logs := NewLogs()
		var many []Attribute
		for i := range 3*entryChunk + 5 {
			many = append(many, Attribute{fmt.Sprint("a", i), Value{Kind: KindInt, Num: uint64(i)}})
		}
		large := strings.Repeat("x", 3*arenaBlock)
		rows := []LogRow{{Attributes: many[:3]}, {Attributes: many, Body: large}, {Attributes: many[:2], Body: "y"}}
		logs.Stream(nil)
		logs.Origin(Origin{})
		for i := range rows {
			logs.Append(&rows[i])
		}
		var got LogRow
		for i, want := range rows {
			logs.Row(i, &got)
			if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("row %d differs", i)
			}
		}
	})

	t.Run("is empty and usable after a reset", func(t *testing.T) {
		t.Parallel()
		rng := rand.New(rand.NewPCG(5, 2))
		logs := NewLogs()
		for range 3 {
			rows := randomRows(rng, logs, 3000)
			held := logs.Bytes()
			var got LogRow
			for i, want := range rows {
				logs.Row(i, &got)
				if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("row %d (-want +got):\n%s", i, diff)
				}
			}
			logs.Reset()
			if logs.Len() != 0 || logs.Streams() != 0 || logs.Bytes() > held {
				t.Fatalf("after the reset: %d rows, %d streams, %d bytes of %d", logs.Len(), logs.Streams(), logs.Bytes(), held)
			}
		}
	})
}

func TestSort(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 2))
		logs := NewLogs()
		rows := randomRows(rng, logs, 1+rng.IntN(3000))
		got := make([]uint32, 0, len(rows))
		for i := range rows {
			got = append(got, uint32(i))
		}
		want := slices.Clone(got)
		service := func(i uint32) string { return labelValue(logs.StreamLabels(rows[i].Stream), ServiceLabel) }
		slices.SortStableFunc(want, func(a, b uint32) int {
			return cmp.Or(
				strings.Compare(service(a), service(b)),
				cmp.Compare(HourOf(rows[a].Time), HourOf(rows[b].Time)),
				cmp.Compare(rows[a].Fingerprint, rows[b].Fingerprint),
				cmp.Compare(rows[a].Time, rows[b].Time),
				cmp.Compare(rows[a].Source, rows[b].Source),
			)
		})
		logs.Sort(got)
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
		}
	}
}

func TestRowHash(t *testing.T) {
	t.Parallel()

	t.Run("is of content: the order of attributes, ids and neighbours do not matter", func(t *testing.T) {
		t.Parallel()
		rng := rand.New(rand.NewPCG(3, 4))
		one := NewLogs()
		rows := randomRows(rng, one, 2000)
		other := NewLogs()
		for _, i := range rng.Perm(len(rows)) {
			row := rows[i]
			row.Stream = other.Stream(one.StreamLabels(row.Stream))
			row.Origin = other.Origin(one.OriginOf(row.Origin))
			row.Attributes = slices.Clone(row.Attributes)
			rng.Shuffle(len(row.Attributes), func(i, j int) {
				row.Attributes[i], row.Attributes[j] = row.Attributes[j], row.Attributes[i]
			})
			other.Append(&row)
			if want, got := one.RowHash(i), other.RowHash(other.Len()-1); want != got {
				t.Fatalf("row %d: %x and %x", i, want, got)
			}
		}
	})

	t.Run("sees every field", func(t *testing.T) {
		t.Parallel()
		changes := map[string]func(*LogRow){
			"time":       func(r *LogRow) { r.Time++ },
			"timesource": func(r *LogRow) { r.TimeSource++ },
			"observed":   func(r *LogRow) { r.ObservedTime++ },
			"stream":     func(r *LogRow) { r.Stream++ },
			"origin":     func(r *LogRow) { r.Origin++ },
			"print":      func(r *LogRow) { r.Fingerprint++ },
			"severity":   func(r *LogRow) { r.SeverityNumber++ },
			"text":       func(r *LogRow) { r.SeverityText = "x" },
			"level":      func(r *LogRow) { r.DetectedLevel = "x" },
			"trace":      func(r *LogRow) { r.TraceID[15]++ },
			"span":       func(r *LogRow) { r.SpanID[7]++ },
			"flags":      func(r *LogRow) { r.Flags++ },
			"body":       func(r *LogRow) { r.Body = "x" },
			"kind":       func(r *LogRow) { r.BodyKind++ },
			"event":      func(r *LogRow) { r.EventName = "x" },
			"dropped":    func(r *LogRow) { r.DroppedAttributes++ },
			"source":     func(r *LogRow) { r.Source++ },
			"name":       func(r *LogRow) { r.Attributes = []Attribute{{"B", Value{Str: "v"}}} },
			"value":      func(r *LogRow) { r.Attributes = []Attribute{{"b", Value{Str: "w"}}} },
			"valuekind":  func(r *LogRow) { r.Attributes = []Attribute{{"b", Value{Kind: KindBytes, Str: "v"}}} },
			"none":       func(r *LogRow) { r.Attributes = nil },
		}
		logs := NewLogs()
		for i := range 2 {
			logs.Stream([]Label{{ServiceLabel, fmt.Sprint(i)}})
			logs.Origin(Origin{ScopeName: fmt.Sprint(i)})
		}
		hashes := map[uint64]string{}
		add := func(name string, change func(*LogRow)) {
			row := LogRow{Attributes: []Attribute{{"b", Value{Str: "v"}}}}
			change(&row)
			logs.Append(&row)
			h := logs.RowHash(logs.Len() - 1)
			if other, ok := hashes[h]; ok {
				t.Errorf("%s and %s have the same hash", name, other)
			}
			hashes[h] = name
		}
		add("base", func(*LogRow) {})
		for name, change := range changes {
			add(name, change)
		}
	})

	t.Run("is frozen", func(t *testing.T) {
		t.Parallel()
		logs := NewLogs()
		logs.Append(&LogRow{
			Time: 1_700_000_000_000_000_000, Body: "order failed", SeverityText: "ERROR", Fingerprint: 7, Source: 3, TraceID: [16]byte{1},
			Stream:     logs.Stream([]Label{{ServiceLabel, "checkout"}}),
			Origin:     logs.Origin(Origin{Resource: []Attribute{{"service.name", Value{Str: "checkout"}}}, ScopeName: "app"}),
			Attributes: []Attribute{{"http.status", Value{Kind: KindInt, Num: 500}}, {"user", Value{Str: "u1"}}},
		})
		const want = uint64(0xf77130d7ae5e8b55)
		if got := logs.RowHash(0); got != want {
			t.Errorf("want %#x, got %#x", want, got)
		}
	})
}

// randomRows appends rows with all kinds of fields to logs, and returns them.
func randomRows(rng *rand.Rand, logs *Logs, n int) []LogRow {
	rows := make([]LogRow, n)
	var streams []StreamID
	var origins []OriginID
	for i := range 5 {
		streams = append(streams, logs.Stream([]Label{{ServiceLabel, fmt.Sprint("s", i/2)}, {"pod", fmt.Sprint(i)}}))
		origins = append(origins, logs.Origin(Origin{ScopeName: fmt.Sprint("scope", i), Resource: []Attribute{{"service.name", Value{Str: fmt.Sprint("s", i/2)}}}}))
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	for i := range rows {
		r := &rows[i]
		*r = LogRow{
			Time:        start + rng.Int64N(int64(2*time.Hour))/1e9*1e9,
			TimeSource:  TimeSource(rng.IntN(3)),
			Stream:      streams[rng.IntN(len(streams))],
			Origin:      origins[rng.IntN(len(origins))],
			Fingerprint: lake.Fingerprint(rng.Uint64N(4)) << 62,
			Source:      lake.ReceiptID(rng.IntN(3)),
			Body:        fmt.Sprint("line ", rng.Uint64N(1000)),
		}
		if rng.IntN(2) == 0 {
			r.SeverityNumber, r.SeverityText, r.DetectedLevel = 9, "INFO", "info"
			r.Flags, r.EventName, r.DroppedAttributes, r.ObservedTime = 1, "e", 2, r.Time+5
			r.TraceID[3], r.SpanID[2] = byte(rng.Uint32()), byte(rng.Uint32())
		}
		for k := range rng.IntN(5) {
			v := Value{Kind: ValueKind(rng.IntN(7))}
			if v.Kind.Textual() {
				v.Str = fmt.Sprint(rng.IntN(1 + k*20_000))
			} else {
				v.Num = uint64(rng.IntN(2))
			}
			r.Attributes = append(r.Attributes, Attribute{Name: fmt.Sprint("a", k), Value: v})
		}
		logs.Append(r)
	}
	return rows
}
