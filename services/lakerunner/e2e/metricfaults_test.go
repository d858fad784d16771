// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/index"
	nouns "github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
)

// metricFaultSettings have hours rolled up to a minute, and days to five.
const metricFaultSettings = "    limits: {query_timeout: 3s}\n    rollups: [{resolution: 1m}, {resolution: 5m}]\n"

// A run without LAKERUNNER_TORTURE goes on until so many of them have happened, or so many were tried: which points a story passes how often depends on how
// long things take.
const (
	metricFaultsOfCI = 3
	metricTriesOfCI  = 15
)

// TestMetricFaults has faults happen at every named point that metrics pass on their way: ingest, compaction into shards, rollups of both tiers,
// and rollups anew for a late object. Meanwhile each answer counts whole objects only, and none that was counted before is missing; in the end
// counts and sums of the points themselves and of every tier are exact, and no file is left over.
//
// A sample runs always, LAKERUNNER_TORTURE=1 runs all; see TestFaults.
func TestMetricFaults(t *testing.T) {
	t.Parallel()
	n := newLaneOn(t, lakeOptions{settings: metricFaultSettings})
	_, points := n.metricStory(order{Trace: true})
	for point := range points {
		if !strings.HasPrefix(point, "rollup.") && !strings.HasPrefix(point, "compactor.") && !strings.HasPrefix(point, "ingestor.") {
			delete(points, point)
		}
	}
	orders := allOrders(t, points)
	enough := len(orders) * 2 / 3
	if !torture() {
		orders = slices.DeleteFunc(orders, func(o order) bool { return o.Nth > 1 || strings.HasPrefix(o.Point, "ingestor.") })
		orders, enough = orders[:min(len(orders), metricTriesOfCI)], metricFaultsOfCI
	}
	hits, runs := 0, 0
	for i, o := range orders {
		if !torture() && hits == enough {
			break
		}
		runs++
		happened, _ := n.metricStory(o)
		if happened {
			hits++
		}
		if torture() {
			fmt.Println(time.Now().Format(time.TimeOnly), "metric run", i+1, "of", len(orders), o, "happened:", happened)
		}
	}
	n.until(order{}, "orphans are swept", n.orphans)
	t.Logf("%d points, %d runs, %d of which ran into their fault", len(points), runs, hits)
	if hits < enough {
		t.Errorf("only %d of %d faults happened", hits, runs)
	}
}

// metricBatch is an object of samples of one story's series.
type metricBatch struct {
	key     string
	body    []byte
	samples int
	sum     float64
}

// metricTale is a story's objects. Their numbers of samples are such that each sum of some of them says which.
type metricTale struct {
	*lane
	prefix     string
	start, end time.Time // of the samples, whole minutes
	batches    []metricBatch

	mu sync.Mutex
	// sure are counted by every answer that is asked from now on, and possible by some.
	sure, possible int // bits, by number of the batch
}

// metricStory tells a story with a fault in it, and returns whether the fault happened and the points that were passed.
func (n *lane) metricStory(o order) (happened bool, passed map[string]int) {
	n.t.Helper()
	n.runs++
	s := n.writeMetrics()
	if n.now == nil {
		n.now = n.lake.startChanger(n.t, order{})
	}
	n.now.give(n.t, o)
	ordered := n.now
	finish := s.watch(o)
	s.put(o, 0, 1, 2)
	s.rolled(o)
	s.put(o, 3) // the late one
	s.rolled(o)
	finish()
	happened, passed = ordered.hit(), ordered.points()
	if !closed(n.now.exited) {
		n.now.give(n.t, order{})
	}
	for _, c := range n.old {
		c.kill()
	}
	n.old = nil
	s.exact(o)
	return happened, passed
}

// writeMetrics makes the objects of the next story: four series with a sample each second in turn, over an hour that is its own.
func (n *lane) writeMetrics() *metricTale {
	s := &metricTale{lane: n, prefix: fmt.Sprintf("metrics-raw/default/run%d/", n.runs)}
	// Days are rolled up when they are over.
	s.end = n.base.Truncate(time.Hour).Add(-48*time.Hour - time.Duration(2*n.runs)*time.Hour)
	s.start = s.end.Add(-time.Hour)
	const series = 4
	sizes := []int{101, 203, 407, 811}
	second := 0
	for i, size := range sizes {
		b := metricBatch{key: fmt.Sprintf("%s%d", s.prefix, i), samples: size}
		written := make([]prom.Series, series)
		for k := range written {
			written[k].Labels = labels.FromStrings("__name__", "faults", "run", strconv.Itoa(n.runs), "series", strconv.Itoa(k))
		}
		for range size {
			second++
			to := &written[second%series]
			to.Times = append(to.Times, s.start.Add(time.Duration(second)*2*time.Second).UnixMilli())
			to.Values = append(to.Values, float64(second))
			b.sum += float64(second)
		}
		b.body = remoteWrite(n.t, written)
		s.batches = append(s.batches, b)
	}
	return s
}

// put writes objects and tells the notifier of them, and waits until they are ingested.
func (s *metricTale) put(o order, numbers ...int) {
	s.t.Helper()
	var notice notifierv1.NotifyObjectsRequest
	s.mu.Lock()
	for _, i := range numbers {
		s.possible |= 1 << i
	}
	s.mu.Unlock()
	for _, i := range numbers {
		b := &s.batches[i]
		tag := s.lake.put(b.key, b.body)
		notice.Objects = append(notice.Objects, &lakev1.Object{Bucket: s.lake.bucket.Name(), Key: b.key, Tag: tag, Size: int64(len(b.body))})
	}
	s.call(o, "notify", func(ctx context.Context, c *changer) error {
		_, err := c.notifier.NotifyObjects(withKey(ctx, s.lake.keys["default"]), &notice)
		return err
	})
	s.until(o, "ingest", func() error {
		receipts, _, err := s.index.Receipts(s.t.Context(), index.ReceiptQuery{Organization: "default", KeyPrefix: s.prefix, PageSize: 100})
		if err != nil {
			return err
		}
		done := 0
		for _, r := range receipts {
			if r.State == nouns.ReceiptDone {
				done++
			}
		}
		if want := numbers[len(numbers)-1] + 1; done != want {
			return fmt.Errorf("%d of %d objects are ingested", done, want)
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range numbers {
		s.sure |= 1 << i
	}
}

// rolled waits until the rollups of both tiers are current, and the hour is compacted.
func (s *metricTale) rolled(o order) {
	s.t.Helper()
	for _, resolution := range []time.Duration{time.Minute, 5 * time.Minute} {
		s.until(o, "rollups of "+resolution.String(), func() error {
			a, err := s.lookup(resolution)
			if err == nil && len(a.Uncovered) > 0 {
				err = fmt.Errorf("%d hours have none", len(a.Uncovered))
			}
			return err
		})
	}
	s.until(o, "compaction", func() error {
		a, err := s.lookup(0)
		if err == nil && slices.ContainsFunc(a.Segments, func(g nouns.Segment) bool { return g.Level == 0 }) {
			err = fmt.Errorf("of %d segments some are of level 0", len(a.Segments))
		}
		return err
	})
}

func (s *metricTale) lookup(resolution time.Duration) (index.Answer, error) {
	return s.index.Lookup(s.t.Context(), index.Query{
		Organization: "default", Signal: nouns.SignalMetrics, Start: s.start, End: s.end.Add(time.Minute), Resolution: resolution,
	})
}

// expectations are those at a moment.
func (s *metricTale) expectations() (sure, possible int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sure, s.possible
}

// watch asks for the count of all samples all along. The returned function ends that.
func (s *metricTale) watch(o order) func() {
	ctx, stop := context.WithCancel(s.t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if wrong := s.look(ctx); wrong != nil {
					s.t.Errorf("%s: a wrong answer meanwhile: %v", o, wrong)
					return
				}
			}
		}
	})
	return func() {
		stop()
		all.Wait()
	}
}

// look asks once. An answer that says why it is none is not wrong.
func (s *metricTale) look(ctx context.Context) error {
	sure, _ := s.expectations()
	got, answered := s.total(ctx, "count")
	if !answered {
		return nil
	}
	_, possible := s.expectations()
	for some := range 1 << len(s.batches) {
		if some&sure == sure && some&^possible == 0 && s.samples(some) == int(got) {
			return nil
		}
	}
	return fmt.Errorf("%v samples are counted; objects %04b are there, and objects %04b may be", got, sure, possible)
}

func (s *metricTale) samples(some int) (n int) {
	for i := range s.batches {
		if some&(1<<i) != 0 {
			n += s.batches[i].samples
		}
	}
	return n
}

// total asks for the count, or the sum, of all samples of the story. Its range ends and begins at whole hours, so that rollups may answer.
func (s *metricTale) total(ctx context.Context, what string) (value float64, answered bool) {
	text := fmt.Sprintf(`sum(%s_over_time(faults{run="%d"}[2h]))`, what, s.runs)
	a, err := s.lake.tryPromAPI(ctx, "default", "query", url.Values{"query": {text}, "time": {strconv.FormatInt(s.end.Add(time.Hour).Unix(), 10)}})
	if err != nil || a.Status != "success" {
		return 0, false
	}
	for _, l := range decoded(s.t, a.Data) {
		for _, v := range l.values {
			value += float64(v.Value)
		}
	}
	return value, true
}

// exact finds all samples, by themselves and by each tier.
func (s *metricTale) exact(o order) {
	s.t.Helper()
	all := 1<<len(s.batches) - 1
	sum := 0.0
	for _, b := range s.batches {
		sum += b.sum
	}
	for what, want := range map[string]float64{"count": float64(s.samples(all)), "sum": sum} {
		s.until(order{}, "ask", func() error {
			got, answered := s.total(s.t.Context(), what)
			if !answered {
				return fmt.Errorf("no answer")
			}
			if math.Abs(got-want) > 1e-9*want {
				s.t.Fatalf("%s: afterwards the %s is %v, want %v", o, what, got, want)
			}
			return nil
		})
	}
	// Days of few points become one segment: those of the stories before are in it too.
	raw, err := s.index.Lookup(s.t.Context(), index.Query{
		Organization: "default", Signal: nouns.SignalMetrics, Start: s.base.Add(-400 * 24 * time.Hour), End: s.base,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	rows := int64(0)
	for _, g := range raw.Segments {
		rows += g.Rows
	}
	if want := int64(s.runs * s.samples(all)); rows != want {
		s.t.Errorf("%s: segments hold %d points, want %d", o, rows, want)
	}
}

// tryPromAPI asks Prometheus' HTTP API, and may fail.
func (l *lake) tryPromAPI(ctx context.Context, organization, path string, params url.Values) (a answer, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.stack.HTTP+"/prometheus/api/v1/"+path+"?"+params.Encode(), nil)
	if err != nil {
		return a, err
	}
	request.SetBasicAuth("lakerunner", l.keys[organization])
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return a, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(body, &a)
}
