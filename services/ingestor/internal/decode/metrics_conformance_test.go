// SPDX-License-Identifier: AGPL-3.0-only

package decode_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// metricFormats are contents of each format of metrics, and whether points before a cut come out.
func metricFormats(t testing.TB) []metricConformance {
	t.Helper()
	v1, v2, _ := writeRequests(t)
	return []metricConformance{
		{"otlp-proto", metricsProto(t, generatedMetrics(6)), true},
		{"otlp-json", metricsJSON(t, generatedMetrics(6)), true},
		{"prometheus-remote-write", framed(v1, v2, v1), true},
		{"prometheus-text", []byte("# TYPE a gauge\na{b=\"c\"} 1 1795348800000\na{b=\"d\"} 2 1795348800000\n" + strings.Repeat("a 3\n", 50)), true},
		{"csv", []byte("timestamp,metric,value\n" + strings.Repeat("1795348800,x,1.5\n", 60)), true},
		{"parquet", parquetOf(t, readings(200)), false},
	}
}

// metricConformance is what every decoder of metrics is held to.
type metricConformance struct {
	format  string
	content []byte
	// streamed says that the points before the end of a cut content come out.
	streamed bool
}

func TestMetricConformance(t *testing.T) {
	t.Parallel()
	for _, f := range metricFormats(t) {
		t.Run(f.format, func(t *testing.T) {
			t.Parallel()
			f.test(t)
		})
	}
}

func (f metricConformance) test(t *testing.T) {
	whole := decodeMetrics(t, f.content)
	if whole.Err != nil || whole.Format != f.format || len(whole.points) == 0 || len(whole.rejects) > 0 {
		t.Fatalf("%s: %d points, %v, %v", whole.Format, len(whole.points), whole.rejects, whole.Err)
	}
	check := func(t *testing.T, got measured, format string) {
		t.Helper()
		if diff := cmp.Diff(whole.points, got.points, nans(), equalHistograms()); diff != "" || got.Err != nil || got.Format != format {
			t.Errorf("format %s, %v, problem %q\n%s", got.Format, got.Err, got.Problem, diff)
		}
	}
	t.Run("may be compressed, twice, in many members or frames", func(t *testing.T) {
		t.Parallel()
		check(t, decodeMetrics(t, gz(t, f.content)), f.format+"+gzip")
		check(t, decodeMetrics(t, zst(t, gz(t, f.content))), f.format+"+gzip+zstd")
		half := len(f.content) / 2
		check(t, decodeMetrics(t, append(gz(t, f.content[:half]), gz(t, f.content[half:])...)), f.format+"+gzip")
		check(t, decodeMetrics(t, append(zst(t, f.content[:half]), zst(t, f.content[half:])...)), f.format+"+zstd")
	})
	t.Run("fails when its gzip is broken", func(t *testing.T) {
		t.Parallel()
		content := gz(t, f.content)
		content[len(content)-5] ^= 1 // the checksum
		if got := decodeMetrics(t, content); fault.KindOf(got.Err) != fault.Invalid {
			t.Errorf("got %v", got.Err)
		}
	})
	t.Run("gives the points before the end of truncated gzip, and says so", func(t *testing.T) {
		t.Parallel()
		compressed := gz(t, f.content)
		got := decodeMetrics(t, compressed[:len(compressed)-9])
		switch {
		case f.streamed && (got.Err != nil || got.Problem == "" || len(got.points) > len(whole.points)):
			t.Errorf("%d points of %d, %v, problem %q", len(got.points), len(whole.points), got.Err, got.Problem)
		case !f.streamed && got.Err == nil && got.Problem == "":
			t.Errorf("%d points, no problem", len(got.points))
		}
	})
	t.Run("does not depend on how its bytes arrive", func(t *testing.T) {
		t.Parallel()
		s := newMetricRecorder(t)
		_, err := decode.Decode(iotest.OneByteReader(bytes.NewReader(f.content)), decode.Options{ObjectTime: objectTime()}, decode.Sinks{Metrics: s})
		check(t, measured{Result: decode.Result{Format: f.format}, metricRecorder: s, Err: err}, f.format)
	})
	t.Run("does not take a broken connection for its end", func(t *testing.T) {
		t.Parallel()
		broken := fault.New(fault.Unavailable, "connection reset")
		for _, content := range [][]byte{f.content, gz(t, f.content)} {
			r := io.MultiReader(bytes.NewReader(content[:len(content)-3]), iotest.ErrReader(broken))
			if _, err := decode.Decode(r, decode.Options{}, decode.Sinks{Metrics: newMetricRecorder(t)}); !errors.Is(err, fault.Unavailable) {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("ends with the sink's error, and with its panic", func(t *testing.T) {
		t.Parallel()
		stop := errors.New("stop")
		s := &stoppingMetrics{metricRecorder: newMetricRecorder(t), err: stop}
		if _, err := decode.Decode(bytes.NewReader(f.content), decode.Options{}, decode.Sinks{Metrics: s}); !errors.Is(err, stop) {
			t.Errorf("got %v", err)
		}
		defer func() {
			if p := recover(); fmt.Sprint(p) != "no error to stop with" {
				t.Errorf("panicked with %v", p)
			}
		}()
		s.err = nil
		_, err := decode.Decode(bytes.NewReader(f.content), decode.Options{}, decode.Sinks{Metrics: s})
		t.Errorf("no panic, %v", err)
	})
	t.Run("uses memory of a decoding before", func(t *testing.T) {
		t.Parallel()
		var scratch decode.Scratch
		for range 3 {
			check(t, decodeMetrics(t, f.content, func(o *decode.Options) { o.Scratch = &scratch }), f.format)
		}
	})
	t.Run("is not wanted by those who take logs alone", func(t *testing.T) {
		t.Parallel()
		if got := decodeBytes(f.content); !decode.IsUnsupported(got.Err) || !strings.Contains(got.Err.Error(), "metrics") {
			t.Errorf("%s, %v", got.Format, got.Err)
		}
	})
}

type stoppingMetrics struct {
	*metricRecorder
	err error
}

func (s *stoppingMetrics) Point(*decode.Point) error {
	if s.err == nil {
		panic("no error to stop with")
	}
	return s.err
}

// TestMetricBombs holds that little content cannot take much memory.
func TestMetricBombs(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 8<<20)
	for name, content := range map[string][]byte{
		"an otlp resource that claims to be large": {0x0a, 0xff, 0xff, 0xff, 0x1f, 0x12, 0x04},
		"a json string without end":                gz(t, []byte(`{"resourceMetrics":[{"resource":{"attributes":[{"key":"`+long)),
		"a sample without end":                     gz(t, []byte("# TYPE a gauge\na{b=\""+long)),
		"a row without end":                        gz(t, []byte("timestamp,metric,value\n1,\""+long)),
		"a remote-write request that claims a lot": {0xff, 0xff, 0xff, 0x03, 0x80, 0x80, 0x80, 0x80, 0x04, 0x0c, 0x0a, 0x10, 0x0a},
		"buckets of one point, a million and more": gz(t, []byte(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"x","histogram":{"dataPoints":[{"bucketCounts":[`+strings.Repeat("0,", 4<<20)+`0]}]}}]}]}]}`)),
		"content that grows a thousand times":      gz(t, append(metricsProto(t, generatedMetrics(1)), make([]byte, 80<<20)...)),
	} {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s := &tallying{}
		_, err := decode.Decode(bytes.NewReader(content), decode.Options{MaxLineBytes: 64 << 10, MaxResourceBytes: 1 << 20}, decode.Sinks{Metrics: s})
		runtime.ReadMemStats(&after)
		if held := after.HeapSys - min(before.HeapSys, after.HeapSys); held > 64<<20 {
			t.Errorf("%s: %d MiB more, %d points, %v", name, held>>20, s.points, err)
		}
		if err == nil && s.points > 0 {
			t.Errorf("%s: %d points and no error", name, s.points)
		}
	}
}

// tallying counts points.
type tallying struct {
	discarding
	points int
}

func (*tallying) Metric(*decode.Metric)        {}
func (*tallying) Family(string, decode.Family) {}
func (s *tallying) Point(*decode.Point) error  { s.points++; return nil }
