// SPDX-License-Identifier: AGPL-3.0-only

package metricmapping_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metricmapping"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metrictest"
)

func options() metricmapping.Options {
	return metricmapping.OptionsOf(config.DefaultMetrics(), config.DefaultLimits())
}

// attributes are names and values in turn.
func attributes(pairs ...string) (list []columns.Attribute) {
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, columns.Attribute{Name: pairs[i], Value: columns.Value{Str: pairs[i+1]}})
	}
	return list
}

func at() int64 { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).UnixNano() }

// lab is a mapper and its store.
type lab struct {
	*metricmapping.Mapper
	t     *testing.T
	store *metricfile.Store
}

func newLab(t *testing.T, change ...func(*metricmapping.Options)) *lab {
	t.Helper()
	store := metricfile.NewStore()
	l := &lab{Mapper: metricmapping.New(store), t: t, store: store}
	o := options()
	for _, f := range change {
		f(&o)
	}
	l.SetOptions(o)
	l.Begin()
	return l
}

// point maps one point and appends it; the reason says why it was not.
func (l *lab) point(p *decode.Point) (reason string) {
	l.t.Helper()
	s, reason, err := l.Series(p)
	if err != nil {
		l.t.Fatal(err)
	}
	if s != nil {
		l.Saw(p.Time)
		l.Append(s, p, 7)
	}
	return reason
}

// series are the labels of all samples, each once.
func (l *lab) series() (all []string) {
	l.t.Helper()
	for _, s := range metrictest.Store(l.t, l.store) {
		all = append(all, s.Series)
	}
	return slices.Compact(all)
}

// TestLabels has the rules by which labels come about, each with what must come of it.
func TestLabels(t *testing.T) {
	t.Parallel()
	shop := attributes("service.name", "checkout", "service.namespace", "shop", "service.instance.id", "i1", "host.arch", "arm64", "k8s.pod.name", "p1")
	const known = `instance="i1", job="shop/checkout", k8s_pod_name="p1"`
	const service = `service_name="checkout", service_namespace="shop"`
	for _, c := range []struct {
		name   string
		origin columns.Origin
		change func(*metricmapping.Options)
		points [][]columns.Attribute
		kind   decode.MetricKind
		want   []string
	}{
		{
			name: "job, instance and promoted attributes of the resource", origin: columns.Origin{Resource: shop},
			want: []string{`{__name__="m", ` + known + `, ` + service + `}`},
		},
		{
			name: "attributes of the point, whose names become labels' and whose values are joined where the names become one", origin: columns.Origin{Resource: shop},
			points: [][]columns.Attribute{attributes("http.route", "/", "a_b", "2", "a.b", "1", "a-b", "0", "2xx", "x", "_x", "y", "a..b", "z", "none", "")},
			want: []string{
				`{__name__="m", a__b="z", a_b="0;1;2", http_route="/", ` + known + `, key_2xx="x", key_x="y", ` + service + `}`,
			},
		},
		{
			name: "a point's own label stands before a promoted one", origin: columns.Origin{Resource: shop}, points: [][]columns.Attribute{attributes("k8s.pod.name", "other")},
			want: []string{`{__name__="m", instance="i1", job="shop/checkout", k8s_pod_name="other", ` + service + `}`},
		},
		{
			name: "a point's job and instance are kept beside the resource's", origin: columns.Origin{Resource: shop},
			points: [][]columns.Attribute{attributes("job", "a", "instance", "x"), attributes("job", "b", "instance", "x")},
			want: []string{
				`{__name__="m", exported_instance="x", exported_job="a", ` + known + `, ` + service + `}`,
				`{__name__="m", exported_instance="x", exported_job="b", ` + known + `, ` + service + `}`,
			},
		},
		{
			name: "a name of an attribute does not take the metric's", origin: columns.Origin{Resource: shop}, points: [][]columns.Attribute{attributes("__name__", "x", "__delta__", "y")},
			want: []string{`{__name__="m", exported___delta__="y", exported___name__="x", ` + known + `, ` + service + `}`},
		},
		{
			name: "scopes", origin: columns.Origin{Resource: shop, ScopeName: "lib", ScopeVersion: "1.0", ScopeSchemaURL: "u", Scope: attributes("x.y", "z", "name", "n")},
			want: []string{
				`{__name__="m", exported_otel_scope_name="n", ` + known + `, otel_scope_name="lib", otel_scope_schema_url="u", otel_scope_version="1.0", otel_scope_x_y="z", ` + service + `}`,
			},
		},
		{
			name: "scopes without a name are told apart by what they have", origin: columns.Origin{ScopeVersion: "2"}, want: []string{`{__name__="m", otel_scope_version="2"}`},
		},
		{
			name: "no scopes where they are not wanted", origin: columns.Origin{ScopeName: "lib"}, change: func(o *metricmapping.Options) { o.ScopeLabels = false },
			want: []string{`{__name__="m"}`},
		},
		{
			name: "UTF-8 where it is wanted", origin: columns.Origin{Resource: shop}, change: func(o *metricmapping.Options) { o.UTF8 = true },
			points: [][]columns.Attribute{attributes("http.route", "/", "a_b", "2", "a.b", "1")},
			want: []string{
				`{__name__="m", "a.b"="1", a_b="2", "http.route"="/", instance="i1", job="shop/checkout", "k8s.pod.name"="p1", "service.name"="checkout", "service.namespace"="shop"}`,
			},
		},
		{
			name:   "an instance that is not named is known by all that identifies it, but not by what describes it",
			origin: columns.Origin{Resource: attributes("service.name", "a", "k8s.pod.uid", "u", "k8s.volume.name", "v", "host.arch", "arm64", "process.command_args", "[]", "telemetry.sdk.name", "x")},
			want:   []string{`{__name__="m", job="a", k8s_pod_uid="u", k8s_volume_name="v", service_name="a"}`},
		},
		{
			name: "and by all that there is, where nothing identifies it", origin: columns.Origin{Resource: attributes("service.name", "a", "os.type", "linux", "process.command", "x")},
			want: []string{`{__name__="m", job="a", os_type="linux", process_command="x", service_name="a"}`},
		},
		{
			name: "what identifies it stays where a point says otherwise", origin: columns.Origin{Resource: attributes("host.name", "h1")}, points: [][]columns.Attribute{attributes("host.name", "h2")},
			want: []string{`{__name__="m", host_name="h2", resource_host_name="h1"}`},
		},
		{
			name: "a histogram's own le is another label", origin: columns.Origin{}, kind: decode.MetricHistogram, points: [][]columns.Attribute{attributes("le", "x")},
			want: []string{`{__name__="m_bucket", exported_le="x", le="+Inf"}`, `{__name__="m_count", exported_le="x"}`},
		},
		{
			name: "a summary's own quantile too", origin: columns.Origin{}, kind: decode.MetricSummary, points: [][]columns.Attribute{attributes("quantile", "x")},
			want: []string{`{__name__="m_count", exported_quantile="x"}`, `{__name__="m_sum", exported_quantile="x"}`},
		},
		{
			name: "what is not UTF-8 is replaced", origin: columns.Origin{Resource: attributes("service.name", "a\xff", "service.instance.id", "1")},
			points: [][]columns.Attribute{attributes("b\xff", "c\xff")}, want: []string{"{__name__=\"m\", b_=\"c\ufffd\", instance=\"1\", job=\"a\ufffd\", service_name=\"a\ufffd\"}"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, func(o *metricmapping.Options) {
				if o.TargetInfo = false; c.change != nil {
					c.change(o)
				}
			})
			l.Origin(&c.origin)
			kind := c.kind
			if kind == decode.MetricNone {
				kind = decode.MetricGauge
			}
			l.Metric(&decode.Metric{Name: "m", Kind: kind, Temporality: decode.TemporalityCumulative})
			if c.points == nil {
				c.points = [][]columns.Attribute{nil}
			}
			for _, own := range c.points {
				p := decode.Point{Time: at(), Attributes: own, Counts: []uint64{0}}
				if kind != decode.MetricHistogram {
					p.Counts = nil
				}
				if reason := l.point(&p); reason != "" {
					t.Fatal(reason)
				}
			}
			if diff := cmp.Diff(c.want, l.series()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestNoSeriesMerges makes many resources, scopes and points that differ in a single attribute, and holds that as many series come of them.
func TestNoSeriesMerges(t *testing.T) {
	t.Parallel()
	names := []string{
		"service.name", "service.namespace", "service.version", "k8s.pod.name", "k8s.pod.uid", "container.id", "host.id", "host.name", "process.pid", "cloud.region", "x.y", "a_b", "z",
	}
	l := newLab(t, func(o *metricmapping.Options) { o.TargetInfo = false })
	want := 0
	add := func(resource, scope, own []columns.Attribute) {
		l.Origin(&columns.Origin{Resource: resource, Scope: scope, ScopeName: "lib"})
		l.Metric(&decode.Metric{Name: "m", Kind: decode.MetricGauge})
		if reason := l.point(&decode.Point{Time: at(), Attributes: own}); reason != "" {
			t.Fatal(reason)
		}
		want++
	}
	for i := range names {
		for _, value := range []string{"1", "2"} {
			one := attributes(names[i], value)
			add(one, nil, nil)
			add(slices.Concat(attributes("service.instance.id", names[i]+value), one), nil, nil)
			add(attributes("service.instance.id", "x"), one, nil)
			add(attributes("service.instance.id", "y"), nil, one)
			for j := range names[:i] {
				add(slices.Concat(one, attributes(names[j], "1")), nil, nil)
			}
		}
	}
	if got := len(l.series()); got != want {
		t.Errorf("%d series of %d", got, want)
	}
}

func TestNamesAndFamilies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		metric decode.Metric
		change func(*metricmapping.Options)
		name   string
		family metricfile.Family
		reason string
	}{
		{metric: decode.Metric{Name: "http.requests", Kind: decode.MetricSum, Monotonic: true, Temporality: 2, Description: "how many"}, name: "http_requests_total", family: metricfile.Family{Type: model.MetricTypeCounter, Help: "how many"}},
		{metric: decode.Metric{Name: "http.requests", Kind: decode.MetricSum, Monotonic: true, Temporality: 1}, name: "http_requests_total", family: metricfile.Family{Type: model.MetricTypeUnknown}},
		{metric: decode.Metric{Name: "queue", Kind: decode.MetricSum, Temporality: 2, Unit: "{item}"}, name: "queue", family: metricfile.Family{Type: model.MetricTypeGauge}},
		{metric: decode.Metric{Name: "memory", Kind: decode.MetricGauge, Unit: "By"}, name: "memory_bytes", family: metricfile.Family{Type: model.MetricTypeGauge, Unit: "bytes"}},
		{metric: decode.Metric{Name: "full", Kind: decode.MetricGauge, Unit: "1"}, name: "full_ratio", family: metricfile.Family{Type: model.MetricTypeGauge}},
		{metric: decode.Metric{Name: "took", Kind: decode.MetricHistogram, Unit: "ms", Temporality: 2}, name: "took_milliseconds", family: metricfile.Family{Type: model.MetricTypeHistogram, Unit: "milliseconds"}},
		{metric: decode.Metric{Name: "took", Kind: decode.MetricSummary, Unit: "s"}, name: "took_seconds", family: metricfile.Family{Type: model.MetricTypeSummary, Unit: "seconds"}},
		{metric: decode.Metric{Name: "disk.io", Kind: decode.MetricSum, Monotonic: true, Temporality: 2, Unit: "By/s"}, change: func(o *metricmapping.Options) { o.UTF8 = true }, name: "disk.io_bytes_per_second_total", family: metricfile.Family{Type: model.MetricTypeCounter, Unit: "bytes_per_second"}},
		{metric: decode.Metric{Name: "disk.io", Kind: decode.MetricSum, Monotonic: true, Temporality: 2, Unit: "By/s"}, change: func(o *metricmapping.Options) { o.Suffixes = false }, name: "disk_io", family: metricfile.Family{Type: model.MetricTypeCounter, Unit: "bytes_per_second"}},
		{metric: decode.Metric{Name: "", Kind: decode.MetricGauge}, reason: metricmapping.ReasonName},
		{metric: decode.Metric{Name: "...", Kind: decode.MetricGauge}, reason: metricmapping.ReasonName},
		{metric: decode.Metric{Name: "x", Kind: decode.MetricSum}, reason: metricmapping.ReasonTemporality},
		{metric: decode.Metric{Name: "x", Kind: decode.MetricHistogram}, reason: metricmapping.ReasonTemporality},
	} {
		l := newLab(t, func(o *metricmapping.Options) {
			if c.change != nil {
				c.change(o)
			}
		})
		l.Origin(&columns.Origin{})
		l.Metric(&c.metric)
		s, reason, err := l.Series(&decode.Point{Time: at()})
		if err != nil || reason != c.reason {
			t.Errorf("%+v: %q, %v", c.metric, reason, err)
		}
		if s != nil && (s.File().Name() != c.name || s.File().Family != c.family || s.File().Delta != (c.metric.Temporality == decode.TemporalityDelta)) {
			t.Errorf("%+v: %s, %+v", c.metric, s.File().Labels, s.File().Family)
		}
	}
}

func TestPointsThatCannotBe(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(o *metricmapping.Options) { o.MaxAttributes, o.MaxLabelBytes = 3, 20 })
	l.Origin(&columns.Origin{Resource: attributes("a", "1")})
	for name, c := range map[string]struct {
		metric decode.Metric
		point  decode.Point
		want   string
	}{
		"an attribute without a name":         {gauge(), decode.Point{Attributes: attributes("", "x")}, metricmapping.ReasonName},
		"one of underscores":                  {gauge(), decode.Point{Attributes: attributes("__", "x")}, metricmapping.ReasonName},
		"more attributes than there may be":   {gauge(), decode.Point{Attributes: attributes("b", "1", "c", "1", "d", "1")}, metricmapping.ReasonLabels},
		"longer ones":                         {gauge(), decode.Point{Attributes: attributes("b", strings.Repeat("x", 20))}, metricmapping.ReasonLabels},
		"a scale that is too coarse":          {exponential(), decode.Point{Exponential: decode.Exponential{Scale: -5}}, metricmapping.ReasonHistogram},
		"buckets beyond all":                  {exponential(), decode.Point{Exponential: decode.Exponential{Positive: decode.Buckets{Offset: math.MaxInt32, Counts: []uint64{1}}}}, metricmapping.ReasonHistogram},
		"a label twice":                       {series(), decode.Point{Attributes: attributes("__name__", "x", "b", "1", "b", "2")}, metricmapping.ReasonName},
		"no name":                             {series(), decode.Point{Attributes: attributes("b", "1")}, metricmapping.ReasonName},
		"a native histogram that is none":     {series(), decode.Point{Attributes: attributes("__name__", "x"), Native: &histogram.FloatHistogram{PositiveBuckets: []float64{1}}}, metricmapping.ReasonHistogram},
		"buckets that count less than all":    {exponential(), decode.Point{Count: 9, Exponential: decode.Exponential{ZeroCount: 1, Negative: decode.Buckets{Counts: []uint64{7}}}}, metricmapping.ReasonHistogram},
		"buckets that count more than all":    {exponential(), decode.Point{Count: 1, Sum: math.NaN(), Exponential: decode.Exponential{Positive: decode.Buckets{Counts: []uint64{2}}}}, metricmapping.ReasonHistogram},
		"buckets whose sum begins anew":       {exponential(), decode.Point{Exponential: decode.Exponential{Positive: decode.Buckets{Counts: []uint64{math.MaxUint64, 1}}}}, metricmapping.ReasonHistogram},
		"measurements that were no numbers":   {exponential(), decode.Point{Count: 9, Sum: math.NaN(), Exponential: decode.Exponential{ZeroCount: 1}}, ""},
		"nothing wrong":                       {gauge(), decode.Point{Attributes: attributes("b", "1")}, ""},
		"nothing wrong with a series":         {series(), decode.Point{Attributes: attributes("__name__", "x", "b", "")}, ""},
		"nothing wrong with the coarsest one": {exponential(), decode.Point{Exponential: decode.Exponential{Scale: -4}}, ""},
	} {
		l.Metric(&c.metric)
		if _, reason, err := l.Series(&c.point); reason != c.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, reason, err, c.want)
		}
	}
}

func gauge() decode.Metric { return decode.Metric{Name: "m", Kind: decode.MetricGauge} }

func exponential() decode.Metric {
	return decode.Metric{Name: "m", Kind: decode.MetricExponential, Temporality: decode.TemporalityCumulative}
}

func series() decode.Metric { return decode.Metric{Kind: decode.MetricSeries} }

// TestStaleNative holds that nothing of a stale marker but that it is one goes on: whatever stands beside it was not checked.
func TestStaleNative(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Origin(&columns.Origin{})
	m := series()
	l.Metric(&m)
	stale := math.Float64frombits(0x7ff0000000000002)
	reason := l.point(&decode.Point{Time: at(), Attributes: attributes("__name__", "x"), Native: &histogram.FloatHistogram{
		Schema: 99, Sum: stale, PositiveSpans: []histogram.Span{{Offset: -7, Length: math.MaxUint32}}, PositiveBuckets: []float64{1}, CustomValues: []float64{2, 1},
	}})
	want := metrictest.Histogram(&histogram.FloatHistogram{Sum: stale})
	if samples := metrictest.Store(t, l.store); reason != "" || len(samples) != 1 || samples[0].Value != want {
		t.Errorf("%q %+v", reason, samples)
	}
	var got *histogram.FloatHistogram
	metrictest.StoreRows(t, l.store, func(_ *metricfile.Series, p *metricfile.Points) { got = p.Histograms[0] })
	if got.Schema != 0 || len(got.PositiveSpans)+len(got.PositiveBuckets)+len(got.CustomValues) > 0 {
		t.Errorf("%+v", got)
	}
}

// TestExponential has histograms written out.
func TestExponential(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		delta bool
		point decode.Point
		want  histogram.FloatHistogram
	}{
		{
			name: "indexes grow by one, and gaps of more than two begin a span",
			point: decode.Point{Count: 10, Sum: 3.5, HasSum: true, Exponential: decode.Exponential{
				Scale: 2, ZeroCount: 1, Positive: decode.Buckets{Offset: -2, Counts: []uint64{0, 1, 0, 0, 2, 0, 0, 0, 3, 0}}, Negative: decode.Buckets{Offset: 5, Counts: []uint64{3}},
			}},
			want: histogram.FloatHistogram{
				Schema: 2, ZeroThreshold: 1e-128, ZeroCount: 1, Count: 10, Sum: 3.5, PositiveSpans: []histogram.Span{{Offset: 0, Length: 4}, {Offset: 3, Length: 1}},
				PositiveBuckets: []float64{1, 0, 0, 2, 3}, NegativeSpans: []histogram.Span{{Offset: 6, Length: 1}}, NegativeBuckets: []float64{3},
			},
		},
		{
			name:  "what is finer than native histograms is made coarser",
			point: decode.Point{Count: 15, Exponential: decode.Exponential{Scale: 10, Positive: decode.Buckets{Offset: -5, Counts: []uint64{1, 2, 0, 0, 4, 8}}}},
			want: histogram.FloatHistogram{
				Schema: 8, ZeroThreshold: 1e-128, Count: 15, PositiveSpans: []histogram.Span{{Offset: -1, Length: 3}}, PositiveBuckets: []float64{1, 6, 8},
			},
		},
		{
			name: "a zero bucket as wide as its producer says, and a delta that cannot be reset", delta: true,
			point: decode.Point{Count: 1, Exponential: decode.Exponential{Scale: -4, ZeroCount: 1, ZeroThreshold: 0.25}},
			want:  histogram.FloatHistogram{CounterResetHint: histogram.GaugeType, Schema: -4, ZeroThreshold: 0.25, ZeroCount: 1, Count: 1},
		},
		{
			name: "a stale one", point: decode.Point{Stale: true, Count: 9, Exponential: decode.Exponential{Positive: decode.Buckets{Counts: []uint64{9}}}},
			want: histogram.FloatHistogram{Sum: math.Float64frombits(0x7ff0000000000002)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			m := exponential()
			if c.delta {
				m.Temporality = decode.TemporalityDelta
			}
			l.Origin(&columns.Origin{})
			l.Metric(&m)
			c.point.Time = at()
			if reason := l.point(&c.point); reason != "" {
				t.Fatal(reason)
			}
			samples := metrictest.Store(t, l.store)
			if want := metrictest.Histogram(&c.want); len(samples) != 1 || samples[0].Value != want || samples[0].Delta != c.delta {
				t.Errorf("%+v\nwant %s", samples, want)
			}
		})
	}
}

// TestCachedSeries holds that series which are known are the same ones, of whatever content, and that what one content says does not reach another.
func TestCachedSeries(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	resources := [][]columns.Attribute{attributes("service.name", "a", "service.instance.id", "1", "x", "y"), attributes("service.name", "a", "service.instance.id", "2", "x", "y")}
	write := func(order []int) {
		l.Begin()
		for _, r := range order {
			l.Origin(&columns.Origin{Resource: resources[r]})
			for _, m := range order {
				l.Metric(&decode.Metric{Name: fmt.Sprint("m", m), Kind: decode.MetricHistogram, Temporality: decode.TemporalityCumulative})
				for _, i := range order {
					p := decode.Point{Time: at() + int64(l.store.Len()), HasSum: i == 0, Attributes: attributes("i", fmt.Sprint(i)), Bounds: []float64{float64(i)}, Counts: []uint64{1, 2}, Count: 3}
					if i == 1 { // by its bytes, as decoders of OTLP protobuf tell it
						p.Key = []byte{0x3a, byte(i)}
					}
					if reason := l.point(&p); reason != "" {
						t.Fatal(reason)
					}
				}
			}
		}
	}
	write([]int{0, 1})
	first := l.series()
	if len(first) != 2*2*(4+3) {
		t.Fatalf("%d series", len(first))
	}
	for _, forget := range []bool{false, true} {
		l.store.Reset()
		l.Reset()
		if forget {
			l.Forget()
		}
		write([]int{1, 0})
		write([]int{0, 1})
		if diff := cmp.Diff(first, l.series()); diff != "" {
			t.Error(diff)
		}
	}
	t.Run("memory is counted, and given back", func(t *testing.T) {
		before := l.Bytes()
		if before == 0 {
			t.Error("no memory")
		}
		write([]int{0, 1})
		if l.Bytes() > before+1024 {
			t.Errorf("%d bytes, then %d", before, l.Bytes())
		}
		if l.Forget(); l.Bytes() != 0 {
			t.Errorf("%d bytes", l.Bytes())
		}
	})
}

func TestTargetInfo(t *testing.T) {
	t.Parallel()
	times := func(t *testing.T, resource []columns.Attribute, seconds ...int64) (list []string) {
		l := newLab(t)
		for i, second := range seconds {
			l.Origin(&columns.Origin{Resource: resource, ScopeName: fmt.Sprint("lib", i%2)})
			l.Metric(&decode.Metric{Name: "m", Kind: decode.MetricGauge})
			if reason := l.point(&decode.Point{Time: at() + second*1e9}); reason != "" {
				t.Fatal(reason)
			}
		}
		err := l.Targets(func(s *metricmapping.Series, ns int64) error {
			list = append(list, fmt.Sprint(s.Labels(), " ", (ns-at())/1e9))
			l.AppendTarget(s, ns, lake.ReceiptID(7))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	named := attributes("service.name", "a", "service.instance.id", "1", "k8s.pod.name", "p", "host.arch", "arm64")
	const info = `{__name__="target_info", host_arch="arm64", instance="1", job="a", k8s_pod_name="p"} `
	for name, c := range map[string]struct {
		resource []columns.Attribute
		seconds  []int64
		want     []string
	}{
		"one point":                             {named, []int64{5}, []string{info + "5"}},
		"the first and the last, in any order":  {named, []int64{60, 5, 30}, []string{info + "5", info + "60"}},
		"not too far apart":                     {named, []int64{0, 100, 200, 300, 400}, []string{info + "0", info + "150", info + "300", info + "400"}},
		"and none where there was nothing":      {named, []int64{0, 10, 100_000, 100_010}, []string{info + "0", info + "10", info + "100000", info + "100010"}},
		"none of nothing but job and instance":  {attributes("service.name", "a", "service.namespace", "b", "service.instance.id", "1"), []int64{5}, nil},
		"none of neither":                       {attributes("host.name", "h"), []int64{5}, nil},
		"one of a service without its instance": {attributes("service.name", "a", "host.name", "h"), []int64{5}, []string{`{__name__="target_info", host_name="h", job="a"} 5`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, times(t, c.resource, c.seconds...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExemplars(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.Origin(&columns.Origin{})
	l.Metric(&decode.Metric{Name: "m", Kind: decode.MetricHistogram, Temporality: decode.TemporalityCumulative})
	p := decode.Point{Time: at(), Bounds: []float64{1, 2}, Counts: []uint64{1, 1, 1}, Count: 3, Exemplars: []decode.Exemplar{
		{Time: at() - 5, Value: 1.5, TraceID: [16]byte{15: 1}, SpanID: [8]byte{7: 2}, Attributes: attributes("user.id", "u")},
		{Value: 7, Attributes: attributes("long", strings.Repeat("x", 130))},
	}}
	if reason := l.point(&p); reason != "" {
		t.Fatal(reason)
	}
	l.Metric(&decode.Metric{Kind: decode.MetricSeries})
	for _, bare := range []string{"known", "unknown"} {
		point := decode.Point{Time: at(), Attributes: attributes("__name__", bare)}
		if bare == "known" {
			if reason := l.point(&point); reason != "" {
				t.Fatal(reason)
			}
		}
		s, _, err := l.Series(&point)
		if err != nil {
			t.Fatal(err)
		}
		point.Exemplars = []decode.Exemplar{{Value: 3, Time: at()}}
		l.Mapper.Exemplars(s, &point)
	}
	if l.Orphans != 1 {
		t.Errorf("%d orphans", l.Orphans)
	}
	want := []string{
		`m track 1 {span_id="0000000000000002", trace_id="00000000000000000000000000000001", "user.id"="u"} 1.5 -5`, `m track 2 {} 7 0`, `known track 0 {} 3 0`,
	}
	if diff := cmp.Diff(want, exemplars(t, l.store), cmp.Transformer("sort", func(s []string) []string { return slices.Sorted(slices.Values(s)) })); diff != "" {
		t.Error(diff)
	}
}

func exemplars(t *testing.T, store *metricfile.Store) (list []string) {
	t.Helper()
	metrictest.StoreRows(t, store, func(s *metricfile.Series, p *metricfile.Points) {
		for _, e := range p.Exemplars {
			list = append(list, fmt.Sprintf("%s track %d %s %v %d", s.Name(), e.Track, e.Labels, e.Value, e.Time-at()))
		}
	})
	return list
}
