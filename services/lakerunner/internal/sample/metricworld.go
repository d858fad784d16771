// SPDX-License-Identifier: AGPL-3.0-only

package sample

import (
	"math"
	"slices"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
)

// instrument is what a metric is measured with.
type instrument uint8

const (
	instrumentGauge instrument = iota
	instrumentCounter
	instrumentUpDown
	instrumentDelta // a counter that tells what it counted since it was last asked
	instrumentHistogram
	instrumentDeltaHistogram
	instrumentExponential
	instrumentSummary
)

// metricKind is one metric of the shop: how OTLP and how Prometheus names it.
type metricKind struct {
	otlp, unit, about string
	prometheus        string
	instrument        instrument
	bounds            []float64 // of histograms; quantiles of summaries
	scale             int32     // of exponential histograms
}

// attribute is a label of a point; numbers are integers in OTLP.
type attribute struct {
	otlp, label, text string
	number            int64
	isNumber          bool
}

func word(otlp, label, text string) attribute { return attribute{otlp: otlp, label: label, text: text} }

func code(otlp, label string, n int64) attribute {
	return attribute{otlp: otlp, label: label, number: n, isNumber: true}
}

// track is one series of a pod: a metric and attributes, with its state.
type track struct {
	metric     *metricKind
	attributes []attribute
	value      float64
	count      uint64
	sum        float64
	buckets    []uint64
	// exponential counts by index.
	exponential map[int32]uint64
	zero        uint64
	observed    []float64 // of a summary, lately
	exemplar    *observation
	// asked is when a delta was told last.
	asked time.Time
	// otlp are the attributes, and series what the track is in Prometheus, by suffix and label.
	otlp   []*commonpb.KeyValue
	series map[seriesOf]*Series
}

// seriesOf tells the series of one track from one another.
type seriesOf struct{ suffix, label, text string }

// observation is a measurement that is kept as an exemplar.
type observation struct {
	value float64
	at    time.Time
	trace [16]byte
}

// metricPod is a pod and what it measures.
type metricPod struct {
	*pod
	instance string // service.instance.id; empty: it has none
	offset   time.Duration
	started  time.Time
	tracks   []*track
	rate     float64 // requests a second
	// restart, silent and end are what happens to it; zero: nothing.
	restart, silentFrom, silentTo, end time.Time
	ended                              bool
}

// metricWorld is the shop while it is measured.
type metricWorld struct {
	*shop
	pods []*metricPod
}

func newMetricWorld(o MetricOptions, start time.Time) *metricWorld {
	w := &metricWorld{shop: newShop(o.Seed)}
	for _, s := range w.services {
		for i, p := range s.pods {
			m := &metricPod{
				pod: p, offset: time.Duration(w.random.Int64N(int64(o.Step))), started: start.Add(-time.Duration(1+w.random.IntN(72)) * time.Hour),
				rate: float64(s.weight) / 4 * (0.5 + w.random.Float64()),
			}
			if s.name != "inventory" { // is known by the names of its pods alone
				m.instance = p.name
			}
			at := func(part float64) time.Time { return start.Add(time.Duration(float64(o.Length) * part)) }
			switch {
			case o.Length < o.Step: // nothing happens
				m.started = start
			case s.name == "cart" && i == 0:
				m.restart = at(0.5)
			case s.name == "checkout" && i == 0:
				m.silentFrom, m.silentTo = at(0.4), at(0.5)
			case s.name == "gateway" && i == len(s.pods)-1:
				m.end = at(0.6)
			}
			w.begin(m, start)
			w.pods = append(w.pods, m)
		}
	}
	return w
}

// begin gives a pod its metrics. Those that count what happened before have a history.
func (w *metricWorld) begin(p *metricPod, at time.Time) {
	p.tracks = nil
	add := func(m *metricKind, attributes ...attribute) {
		t := &track{metric: m, attributes: attributes, asked: at, exponential: map[int32]uint64{}, buckets: make([]uint64, len(m.bounds)+1), series: map[seriesOf]*Series{}}
		for _, a := range attributes {
			if a.isNumber {
				t.otlp = append(t.otlp, integer(a.otlp, a.number))
			} else {
				t.otlp = append(t.otlp, text(a.otlp, a.text))
			}
		}
		p.tracks = append(p.tracks, t)
	}
	kinds := metricKinds()
	for _, route := range routesOf(p.service.name) {
		for _, status := range []int64{200, 404, 503} {
			attributes := []attribute{
				word("http.request.method", "http_request_method", "GET"), word("http.route", "http_route", route),
				code("http.response.status_code", "http_response_status_code", status),
			}
			add(kinds.requests, attributes...)
			add(kinds.duration, attributes...)
		}
	}
	switch p.service.name {
	case "checkout":
		for _, currency := range []string{"EUR", "USD", "CHF"} {
			add(kinds.orders, word("currency", "currency", currency))
		}
		add(kinds.items)
		add(kinds.rpc, word("rpc.method", "rpc_method", "PlaceOrder"))
	case "payment":
		add(kinds.fineRPC, word("rpc.method", "rpc_method", "Charge"))
	case "cart":
		add(kinds.carts)
	case "inventory":
		for _, warehouse := range []string{"ams", "fra", "iad"} {
			add(kinds.stock, word("warehouse", "warehouse", warehouse))
		}
	case "postgres":
		add(kinds.queries, word("db.operation.name", "db_operation_name", "SELECT"))
	}
	add(kinds.memory)
	add(kinds.cpu)
	add(kinds.up)
}

func routesOf(service string) []string {
	switch service {
	case "gateway", "frontend":
		return []string{"/", "/api/products/{id}", "/api/cart"}
	case "checkout", "cart", "payment":
		return []string{"/" + service}
	}
	return nil
}

// kinds are the shop's metrics.
type kinds struct {
	requests, duration, orders, items, rpc, fineRPC, carts, stock, queries, memory, cpu, up *metricKind
}

func metricKinds() kinds {
	return kinds{
		requests: &metricKind{otlp: "http.server.requests", unit: "{request}", about: "Requests answered.", prometheus: "http_server_requests_total", instrument: instrumentCounter},
		duration: &metricKind{
			otlp: "http.server.request.duration", unit: "s", about: "How long requests took.", prometheus: "http_server_request_duration_seconds",
			instrument: instrumentHistogram, bounds: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5},
		},
		orders: &metricKind{otlp: "shop.orders", unit: "{order}", about: "Orders placed.", prometheus: "shop_orders_total", instrument: instrumentDelta},
		items: &metricKind{
			otlp: "shop.order.items", unit: "{item}", about: "Items of an order.", prometheus: "shop_order_items", instrument: instrumentDeltaHistogram,
			bounds: []float64{1, 2, 5, 10},
		},
		rpc: &metricKind{
			otlp: "rpc.server.duration", unit: "ms", about: "How long calls took.", prometheus: "rpc_server_duration_milliseconds",
			instrument: instrumentExponential, scale: 3,
		},
		fineRPC: &metricKind{ // finer than Prometheus' histograms: made coarser when stored
			otlp: "rpc.server.duration", unit: "ms", about: "How long calls took.", prometheus: "rpc_server_duration_milliseconds",
			instrument: instrumentExponential, scale: 10,
		},
		carts: &metricKind{otlp: "cart.open", unit: "{cart}", about: "Carts with something in them.", prometheus: "cart_open", instrument: instrumentGauge},
		stock: &metricKind{otlp: "stock.level", unit: "1", about: "How full a warehouse is.", prometheus: "stock_level_ratio", instrument: instrumentGauge},
		queries: &metricKind{
			otlp: "db.query.duration", unit: "s", about: "How long queries took.", prometheus: "db_query_duration_seconds", instrument: instrumentSummary,
			bounds: []float64{0.5, 0.9, 0.99},
		},
		memory: &metricKind{otlp: "process.memory.usage", unit: "By", about: "Memory in use.", prometheus: "process_memory_usage_bytes", instrument: instrumentUpDown},
		cpu:    &metricKind{otlp: "process.cpu.time", unit: "s", about: "CPU time used.", prometheus: "process_cpu_time_seconds_total", instrument: instrumentCounter},
		up:     &metricKind{otlp: "up", about: "Whether it answers.", prometheus: "up", instrument: instrumentGauge},
	}
}

// observe is what happens to a pod in one step.
func (w *metricWorld) observe(p *metricPod, at time.Time, step time.Duration) {
	if !p.restart.IsZero() && !at.Before(p.restart) {
		p.started, p.restart = at, time.Time{}
		w.begin(p, at)
	}
	day := 1 + 0.4*math.Sin(2*math.Pi*float64(at.Unix()%86400)/86400)
	for _, t := range p.tracks {
		w.measure(p, t, at, p.rate*day*step.Seconds())
	}
}

// measure changes one series as if `expected` requests had come.
func (w *metricWorld) measure(p *metricPod, t *track, at time.Time, expected float64) {
	switch t.metric.instrument {
	case instrumentCounter:
		if t.metric.unit == "s" {
			t.value += math.Round(expected*w.random.Float64()*3000) / 1e6
		} else {
			t.value += float64(w.poisson(expected * share(t)))
		}
	case instrumentUpDown:
		t.value = math.Max(1<<20, t.value+math.Round(w.random.NormFloat64()*(1<<18)))
	case instrumentDelta:
		t.value = float64(w.poisson(expected / 9))
	case instrumentGauge:
		w.level(p, t)
	default:
		for range w.poisson(expected * share(t)) {
			w.sample(t, at)
		}
	}
}

// share is the part of requests that end with a series' status.
func share(t *track) float64 {
	for _, a := range t.attributes {
		switch {
		case a.isNumber && a.number == 404:
			return 0.04
		case a.isNumber && a.number >= 500:
			return 0.01
		}
	}
	return 0.6
}

func (w *metricWorld) level(p *metricPod, t *track) {
	switch t.metric.prometheus {
	case "up":
		t.value = 1
	case "stock_level_ratio":
		t.value = math.Round(math.Min(1, math.Max(0, t.value+0.5*(0.6-t.value)+0.05*w.random.NormFloat64()))*1e4) / 1e4
	default:
		t.value = math.Round(math.Max(0, t.value+p.rate*w.random.NormFloat64()))
	}
}

// sample records one measurement of a histogram or summary.
func (w *metricWorld) sample(t *track, at time.Time) {
	var v float64
	switch t.metric.instrument {
	case instrumentDeltaHistogram:
		v = float64(1 + w.random.IntN(12))
	case instrumentExponential:
		if v = w.millis(20); w.random.IntN(200) == 0 {
			v = 0
		}
	default:
		v = w.millis(30) / 1000
	}
	t.count++
	t.sum += v
	switch t.metric.instrument {
	case instrumentExponential:
		if v == 0 {
			t.zero++
		} else {
			t.exponential[exponentialIndex(v, t.metric.scale)]++
		}
	case instrumentSummary:
		t.observed = append(t.observed[max(0, len(t.observed)-summarized):], v)
	default:
		i, _ := slices.BinarySearch(t.metric.bounds, v)
		t.buckets[i]++
		if t.metric.instrument == instrumentHistogram && w.random.IntN(400) == 0 {
			t.exemplar = &observation{value: v, at: at.Add(time.Millisecond), trace: w.traces[w.random.IntN(len(w.traces))]}
		}
	}
}

// exponentialIndex is the bucket of a value: (base^i, base^(i+1)].
func exponentialIndex(v float64, scale int32) int32 {
	return int32(math.Ceil(math.Log2(v)*math.Exp2(float64(scale)))) - 1
}

func (w *metricWorld) poisson(mean float64) int {
	if mean <= 0 {
		return 0
	}
	if mean > 30 {
		return max(0, int(math.Round(mean+math.Sqrt(mean)*w.random.NormFloat64())))
	}
	n, p := 0, w.random.Float64()
	for limit := math.Exp(-mean); p > limit; n++ {
		p *= w.random.Float64()
	}
	return n
}

// summarized is how many measurements a summary looks back at.
const summarized = 200

// quantile is that of what a summary saw lately.
func (t *track) quantile(q float64) float64 {
	if len(t.observed) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(t.observed))
	return sorted[int(q*float64(len(sorted)-1))]
}
