// SPDX-License-Identifier: AGPL-3.0-only

package decode_test

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"github.com/prometheus/common/model"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

func known(name string) decode.Metric {
	return decode.Metric{Name: name, Kind: decode.MetricGauge, Type: model.MetricTypeUnknown}
}

func TestCSV(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).UnixNano()
	meters := &decode.Table{
		Time: "when", TimeUnit: "s", Values: []string{"power", "energy"}, Labels: []string{"meter"}, Static: map[string]string{"site": "a", "area": "b"}, Prefix: "grid.", Type: "gauge",
	}
	site := func(meter string) []columns.Attribute {
		return []columns.Attribute{text("meter", meter), text("area", "b"), text("site", "a")}
	}
	for _, c := range []struct {
		name, content string
		table         *decode.Table
		want          []point
		rejects       []reject
	}{
		{
			name: "a header that says it all",
			content: "\ufefftimestamp,metric,value,host,\"a \"\"b\"\"\"\r\n2026-11-22T12:00:00Z,cpu.load,1.5,h1,\r\n1795348800000,cpu.load,NaN,\"h,2\",x\r\n\r\n" +
				"1795348800,mem,2\r\nyesterday,mem,2,h1,\r\n1795348800,mem,much,h1,\r\n1795348800,,2,h1,\r\n",
			want: []point{
				{Metric: known("cpu.load"), Time: noon, Value: 1.5, Attributes: []columns.Attribute{text("host", "h1")}},
				{Metric: known("cpu.load"), Time: 1795348800 * 1e9, Value: math.NaN(), Attributes: []columns.Attribute{text("host", "h,2"), text(`a "b"`, "x")}},
				{Metric: known("mem"), Time: 1795348800 * 1e9, Value: 2},
			},
			rejects: []reject{
				{decode.ReasonMalformed, "yesterday,mem,2,h1,"}, {decode.ReasonMalformed, "1795348800,mem,much,h1,"}, {decode.ReasonMalformed, "1795348800,,2,h1,"},
			},
		},
		{
			name: "a mapping with a metric a column", table: meters,
			content: "when;meter;power;energy;note\n1795348800;m1;230.5;17;x\n1795348800.25;m2;;18;y\n1795348801;m3;off;;z\n",
			want: []point{
				{Metric: decode.Metric{Name: "grid.power", Kind: decode.MetricGauge}, Time: 1795348800 * 1e9, Value: 230.5, Attributes: site("m1")},
				{Metric: decode.Metric{Name: "grid.energy", Kind: decode.MetricGauge}, Time: 1795348800 * 1e9, Value: 17, Attributes: site("m1")},
				{Metric: decode.Metric{Name: "grid.energy", Kind: decode.MetricGauge}, Time: 1795348800*1e9 + 250e6, Value: 18, Attributes: site("m2")},
			},
			rejects: []reject{{decode.ReasonMalformed, "1795348801;m3;off;;z"}},
		},
		{
			name: "a mapping of a counter", table: &decode.Table{Time: "t", TimeUnit: "ns", Name: "n", Value: "v", Type: "counter"},
			content: "n\tv\tt\nrequests\t3\t1795348800000000001\n",
			want: []point{{
				Metric: decode.Metric{Name: "requests", Kind: decode.MetricSum, Temporality: decode.TemporalityCumulative, Monotonic: true},
				Time:   1795348800000000001, Value: 3,
			}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := decodeMetrics(t, []byte(c.content), func(o *decode.Options) { o.Table = c.table })
			if diff := cmp.Diff(c.want, got.points, nans()) + cmp.Diff(c.rejects, got.rejects); diff != "" || got.Err != nil || got.Format != "csv" {
				t.Errorf("%s, %v\n%s", got.Format, got.Err, diff)
			}
		})
	}
	t.Run("a table that is no table of metrics is text", func(t *testing.T) {
		t.Parallel()
		for content, hint := range map[string]lake.Signal{"time,level,message\n1,info,x\n": lake.SignalUnknown, "time,metric,value\n1,x,2\n": lake.SignalLogs} {
			if got := decodeBytes([]byte(content), func(o *decode.Options) { o.Hint = hint }); got.Format != "text" || len(got.Rows) != 2 {
				t.Errorf("%q: %s, %d rows, %v", content, got.Format, len(got.Rows), got.Err)
			}
		}
	})
	t.Run("a column that is not there fails the object", func(t *testing.T) {
		t.Parallel()
		got := decodeMetrics(t, []byte("a,b\n1,2\n"), func(o *decode.Options) { o.Table = meters })
		if fault.KindOf(got.Err) != fault.Invalid || !strings.Contains(got.Err.Error(), `"when"`) {
			t.Errorf("%v", got.Err)
		}
	})
	t.Run("a row that is too long is rejected", func(t *testing.T) {
		t.Parallel()
		got := decodeMetrics(t, []byte("ts,metric,value\n1795348800,x,"+strings.Repeat("1", 200)+"\n1795348800,x,2\n"), func(o *decode.Options) { o.MaxLineBytes = 100 })
		if len(got.points) != 1 || len(got.rejects) != 1 || got.rejects[0].Reason != decode.ReasonTooLong || got.Err != nil {
			t.Errorf("%d points, %v, %v", len(got.points), got.rejects, got.Err)
		}
	})
}

// reading is a row of a Parquet file of metrics.
type reading struct {
	Timestamp time.Time `parquet:"timestamp,timestamp(microsecond)"`
	Metric    string    `parquet:"metric,dict"`
	Value     *float64  `parquet:"value"`
	Host      string    `parquet:"host,optional"`
	Port      int64     `parquet:"port"`
	On        bool      `parquet:"on"`
	Tags      []string  `parquet:"tags"`
}

func parquetOf(t testing.TB, rows []reading) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[reading](&b, parquet.Compression(&parquet.Zstd), parquet.PageBufferSize(4096))
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readings(n int) (rows []reading) {
	for i := range n {
		v := float64(i) / 4
		rows = append(rows, reading{
			Timestamp: time.UnixMicro(1795348800000000 + int64(i)), Metric: fmt.Sprint("m", i%3), Value: &v, Host: "h", Port: 1<<60 + int64(i%2), On: i%2 == 0, Tags: []string{"a", "b"},
		})
	}
	return rows
}

func TestParquet(t *testing.T) {
	t.Parallel()
	t.Run("columns that are called as everybody calls them need no mapping", func(t *testing.T) {
		t.Parallel()
		rows := readings(3)
		rows[1].Value, rows[2].Host = nil, ""
		got := decodeMetrics(t, parquetOf(t, rows))
		want := []point{
			{Metric: known("m0"), Time: 1795348800000000 * 1000, Attributes: []columns.Attribute{text("host", "h"), text("port", "1152921504606846976"), text("on", "true")}},
			{Metric: known("m2"), Time: 1795348800000002 * 1000, Value: 0.5, Attributes: []columns.Attribute{text("port", "1152921504606846976"), text("on", "true")}},
		}
		if diff := cmp.Diff(want, got.points); diff != "" || got.Err != nil || got.Format != "parquet" || len(got.rejects) != 1 {
			t.Errorf("%s, %v, %v\n%s", got.Format, got.Err, got.rejects, diff)
		}
		if raw := got.rejects[0].Raw; !strings.Contains(raw, "metric=m1") || !strings.Contains(raw, "host=h") {
			t.Errorf("rejected: %s", raw)
		}
	})
	t.Run("with a mapping a column is a metric", func(t *testing.T) {
		t.Parallel()
		table := &decode.Table{Time: "timestamp", Values: []string{"value", "port"}, Labels: []string{"metric"}, Type: "gauge"}
		got := decodeMetrics(t, parquetOf(t, readings(100)), func(o *decode.Options) { o.Table = table })
		if got.Err != nil || len(got.points) != 200 || got.points[1].Metric.Name != "port" || got.points[1].Value != 1<<60 || got.points[4].Attributes[0].Value.Str != "m2" {
			t.Errorf("%d points, %v", len(got.points), got.Err)
		}
	})
	t.Run("a large one is read from disk", func(t *testing.T) {
		t.Parallel()
		rows := readings(1)
		rows[0].Tags = []string{strings.Repeat("\x01\x02\x03", 7<<20)}
		var b bytes.Buffer
		w := parquet.NewGenericWriter[reading](&b)
		if _, err := w.Write(rows); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got := decodeMetrics(t, b.Bytes(), func(o *decode.Options) { o.ScratchDirectory = t.TempDir() })
		if got.Err != nil || len(got.points) != 1 || b.Len() < 17<<20 {
			t.Errorf("%d points of %d bytes, %v", len(got.points), b.Len(), got.Err)
		}
	})
	t.Run("one of something else is left to a later release", func(t *testing.T) {
		t.Parallel()
		var b bytes.Buffer
		w := parquet.NewGenericWriter[struct{ Message string }](&b)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := decodeMetrics(t, b.Bytes()); !decode.IsUnsupported(got.Err) || !strings.Contains(got.Err.Error(), "parquet") {
			t.Errorf("%v", got.Err)
		}
	})
	t.Run("a broken one fails, wherever it is broken", func(t *testing.T) {
		t.Parallel()
		content := parquetOf(t, readings(2000))
		for at := 4; at < len(content); at += 1 + len(content)/150 {
			damaged := bytes.Clone(content)
			damaged[at] ^= 0x55
			got := decodeMetrics(t, damaged, func(o *decode.Options) { o.MaxBytes = 1 << 24 })
			if got.Err != nil && fault.KindOf(got.Err) != fault.Invalid && !decode.IsUnsupported(got.Err) {
				t.Errorf("at %d: %v", at, got.Err)
			}
			if cut := decodeMetrics(t, content[:at], func(o *decode.Options) { o.Hint = lake.SignalMetrics }); cut.Err == nil {
				t.Errorf("cut at %d: no error", at)
			}
		}
	})
	t.Run("one that claims to grow without bound is refused", func(t *testing.T) {
		t.Parallel()
		got := decodeMetrics(t, parquetOf(t, readings(20_000)), func(o *decode.Options) { o.MaxBytes = 1000 })
		if fault.KindOf(got.Err) != fault.Invalid {
			t.Errorf("%v", got.Err)
		}
	})
}
