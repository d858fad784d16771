// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/promql/parser"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	nouns "github.com/lakerunner/lakerunner/pkg/lake"
	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
	"github.com/lakerunner/lakerunner/services/query-frontend/querytest"
)

// historyHours is how many hours of event time a history is about.
const historyHours = 5

// TestHistories leads lakes through histories drawn at random, and holds the answers of a standing set of queries against Loki's engine
// over the rows that ought to be there: after every step, and all along those steps that must not change an answer.
//
// The seed is fixed and printed; LAKERUNNER_SEED sets another one, LAKERUNNER_TORTURE=1 makes the histories long.
func TestHistories(t *testing.T) {
	t.Parallel()
	seed, histories, steps := uint64(max(1, number(t, "LAKERUNNER_SEED"))), 1, 12
	if torture() {
		histories, steps = 6, 60
	}
	for i := range uint64(histories) {
		t.Run(fmt.Sprintf("seed %d", seed+i), func(t *testing.T) {
			t.Parallel()
			h := newHistory(t, seed+i)
			h.opening()
			for range steps {
				h.step()
			}
			h.ending()
			t.Logf("seed %d: %s", seed+i, strings.Join(h.told, ", "))
		})
	}
}

// history is a lake and the model of its rows.
type history struct {
	*lane
	random     *rand.Rand
	start, end time.Time
	objects    []*chronicle
	deletes    []erasure
	queries    []querytest.Query
	want       []parser.Value // of queries; nil: an error
	told       []string
	at         int // number of the step
	receipts   int
}

// chronicle is what is known of one object's key.
type chronicle struct {
	key  string
	born int // step of its first version
	rows []querytest.Row
}

// erasure is a delete as the model understands it.
type erasure struct {
	at            int
	service, text string
	start, end    time.Time
}

func (e erasure) selector() string {
	if e.text == "" {
		return fmt.Sprintf(`{service_name=%q}`, e.service)
	}
	return fmt.Sprintf(`{service_name=%q} |= %q`, e.service, e.text)
}

func (e erasure) takes(born int, r querytest.Row) bool {
	return born < e.at && r.Labels["service_name"] == e.service && strings.Contains(r.Line, e.text) && !r.Time.Before(e.start) && r.Time.Before(e.end)
}

func newHistory(t *testing.T, seed uint64) *history {
	t.Helper()
	l := newLake(t, historyOptions())
	opened, err := index.Open(t.Context(), index.Config{URL: l.database, MaxConns: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(opened.Close)
	h := &history{lane: &lane{t: t, lake: l, index: opened, base: lately()}, random: rand.New(rand.NewPCG(seed, 11))}
	h.end = h.base
	h.start = h.end.Add(-historyHours * time.Hour)
	h.queries = querytest.Queries(seed, 14, h.start, h.end)
	h.queries = append(h.queries,
		querytest.Query{Text: everything, Start: h.start, End: h.end, Limit: 5000},
		querytest.Query{Text: `sum by (service_name, env) (count_over_time({service_name=~".+"}[5h]))`, Start: h.end, End: h.end, Limit: 100},
	)
	h.now = l.startChanger(t, order{})
	return h
}

func historyOptions() lakeOptions {
	return lakeOptions{
		roles: stack.Roles{Frontend: true, Worker: true}, deaf: true, onRewrite: "replace", settings: faultSettings,
		streamLabels: []string{"service.name", "env", "k8s.pod.name"},
	}
}

// opening ingests the first objects.
func (h *history) opening() {
	h.t.Helper()
	for range 3 {
		h.ingest()
	}
	h.at++
	h.told = append(h.told, h.erase())
	h.check("the opening")
}

// steps are what may happen, as often as they are listed. The still ones must not change an answer, not even while they go on.
func (h *history) step() {
	h.t.Helper()
	h.at++
	changing := []func() string{h.ingest, h.ingest, h.replace, h.replace, h.erase}
	still := []func() string{h.replay, h.replay, h.compactHour, h.compactHour, h.compactDay, h.expireOthers, h.kill, h.kill}
	var what string
	switch n := h.random.IntN(len(changing) + len(still) + 1); {
	case n < len(changing):
		what = changing[n]()
	case n < len(changing)+len(still):
		what = h.meanwhile(still[n-len(changing)])
	default:
		what = h.rebuild()
	}
	h.told = append(h.told, what)
	h.check(what)
}

// ending waits for the janitor, looks for orphans, and asks once more.
func (h *history) ending() {
	h.t.Helper()
	h.close()
	h.check("the ending")
}

// rows are those that ought to be there, in the order of time.
func (h *history) rows() querytest.Memory {
	var rows querytest.Memory
	for _, o := range h.objects {
		for _, r := range o.rows {
			if !slices.ContainsFunc(h.deletes, func(e erasure) bool { return e.takes(o.born, r) }) {
				rows = append(rows, r)
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b querytest.Row) int { return a.Time.Compare(b.Time) })
	return rows
}

// check computes what the answers ought to be, and compares.
func (h *history) check(what string) {
	h.t.Helper()
	rows := h.rows()
	h.want = h.want[:0]
	for _, q := range h.queries {
		value, err := rows.Evaluate(h.t.Context(), q)
		if err != nil {
			value = nil
		} else {
			value = withoutMetadata(value)
		}
		h.want = append(h.want, value)
	}
	for i, q := range h.queries {
		h.until(order{}, "ask", func() error {
			wrong, err := h.compare(i)
			if wrong != "" {
				h.t.Fatalf("after %s (%s): %s\n(-want +got):\n%.3000s", what, strings.Join(h.told, ", "), q, wrong)
			}
			return err
		})
	}
}

// compare asks one query. An error where there ought to be an answer is no wrong answer.
func (h *history) compare(i int) (wrong string, err error) {
	got, err := h.lake.evaluate(h.t, h.queries[i])
	switch want := h.want[i]; {
	case err != nil && want == nil:
		return "", nil
	case err != nil:
		return "", err
	case want == nil:
		return "an answer, where Loki has an error", nil
	default:
		return querytest.Diff(want, got), nil
	}
}

// meanwhile asks the standing queries while a step goes on.
func (h *history) meanwhile(step func() string) string {
	h.t.Helper()
	ctx, stop := context.WithCancel(h.t.Context())
	var asking sync.WaitGroup
	var wrong string
	asking.Go(func() {
		for i := 0; ctx.Err() == nil && wrong == ""; i = (i + 1) % len(h.queries) {
			if wrong, _ = h.compare(i); wrong != "" {
				wrong = fmt.Sprintf("%s\n(-want +got):\n%.3000s", h.queries[i], wrong)
			}
		}
	})
	what := step()
	stop()
	asking.Wait()
	if wrong != "" {
		h.t.Fatalf("during %s (%s): %s", what, strings.Join(h.told, ", "), wrong)
	}
	return what
}

// fresh makes rows of an hour and a half of the history.
func (h *history) fresh() []querytest.Row {
	start := h.start.Add(time.Duration(h.random.IntN(historyHours-1)) * time.Hour)
	return querytest.Rows(h.random.Uint64(), 40+h.random.IntN(40), start.Add(time.Duration(h.random.IntN(1e6))), 90*time.Minute)
}

func (h *history) ingest() string {
	o := &chronicle{key: fmt.Sprintf("otel-raw/default/history/logs_%d.binpb.gz", len(h.objects)), born: h.at, rows: h.fresh()}
	h.objects = append(h.objects, o)
	h.put(o)
	return "ingest"
}

func (h *history) replace() string {
	o := h.any()
	o.rows = h.fresh()
	h.put(o)
	return "replace"
}

func (h *history) any() *chronicle { return h.objects[h.random.IntN(len(h.objects))] }

// put writes an object's newest version, waits until it is ingested, and learns how its rows are stored.
func (h *history) put(o *chronicle) {
	h.t.Helper()
	h.notify(o.key, encodeRows(h.t, o.rows))
	h.receipts++
	h.settled("otel-raw/default/history/", h.receipts)
	h.learn(o)
}

func (h *history) notify(key string, body []byte) {
	h.t.Helper()
	tag := h.lake.put(key, body)
	h.call(order{}, "notify", func(ctx context.Context, c *changer) error {
		_, err := c.notifier.NotifyObjects(withKey(ctx, h.lake.keys["default"]), &notifierv1.NotifyObjectsRequest{
			Objects: []*lakev1.Object{{Bucket: h.lake.bucket.Name(), Key: key, Tag: tag, Size: int64(len(body))}},
		})
		return err
	})
}

func (h *history) settled(prefix string, want int) {
	h.t.Helper()
	h.until(order{}, "ingest", func() error {
		receipts, _, err := h.index.Receipts(h.t.Context(), index.ReceiptQuery{Organization: "default", KeyPrefix: prefix, PageSize: 1000})
		if err != nil {
			return err
		}
		pending := 0
		for _, r := range receipts {
			if r.State == nouns.ReceiptPending {
				pending++
			}
		}
		if len(receipts) < want || pending > 0 {
			return fmt.Errorf("%d receipts, %d of them pending; want %d", len(receipts), pending, want)
		}
		h.receipts = max(h.receipts, len(receipts))
		return nil
	})
}

// learn takes the rows' metadata from what is stored, where the rows themselves are as they were put.
func (h *history) learn(o *chronicle) {
	h.t.Helper()
	stored := map[int64]int{}
	lines := h.lake.lines("default", everything, h.start, h.end)
	for i, line := range lines {
		stored[line.GetTime().AsTime().UnixNano()] = i
	}
	for i, r := range o.rows {
		at, ok := stored[r.Time.UnixNano()]
		if !ok {
			if !slices.ContainsFunc(h.deletes, func(e erasure) bool { return e.takes(o.born, r) }) {
				h.t.Fatalf("a row of %s at %s is not there (%s)", o.key, r.Time, strings.Join(h.told, ", "))
			}
			continue
		}
		line := lines[at]
		if line.GetLine() != r.Line || !cmp.Equal(line.GetLabels(), r.Labels) {
			h.t.Fatalf("a row of %s came back as %q of %v, want %q of %v", o.key, line.GetLine(), line.GetLabels(), r.Line, r.Labels)
		}
		o.rows[i].Metadata = asStored(line)
	}
}

func (h *history) erase() string {
	services, texts := []string{"checkout", "frontend", "payment", "search"}, []string{"", "declined", "user", "GET"}
	start := h.start.Add(time.Duration(h.random.Int64N(int64(historyHours * time.Hour))))
	e := erasure{
		at: h.at, service: services[h.random.IntN(len(services))], text: texts[h.random.IntN(len(texts))],
		start: start, end: start.Add(time.Duration(h.random.Int64N(int64(2 * time.Hour)))),
	}
	h.call(order{}, "delete", func(ctx context.Context, c *changer) error {
		_, err := c.janitor.DeleteData(withKey(ctx, h.lake.adminKey), &janitorv1.DeleteDataRequest{
			Organization: "default", Selector: e.selector(), Start: timestamppb.New(e.start), End: timestamppb.New(e.end), Reason: "history",
		})
		return err
	})
	h.deletes = append(h.deletes, e)
	return "delete " + e.selector()
}

func (h *history) replay() string {
	o := h.any()
	receipts, _, err := h.index.Receipts(h.t.Context(), index.ReceiptQuery{Organization: "default", KeyPrefix: o.key, PageSize: 1000})
	if err != nil {
		h.t.Fatal(err)
	}
	at := slices.IndexFunc(receipts, func(r nouns.Receipt) bool { return r.State == nouns.ReceiptDone })
	if at < 0 {
		h.t.Fatalf("no receipt of %s is done", o.key)
	}
	h.call(order{}, "replay", func(ctx context.Context, c *changer) error {
		_, err := c.ingestor.ReplayObjects(withKey(ctx, h.lake.keys["default"]), &ingestorv1.ReplayObjectsRequest{ReceiptIds: []string{fmt.Sprint(receipts[at].ID)}})
		return err
	})
	h.settled("otel-raw/default/history/", h.receipts+1)
	return "replay"
}

func (h *history) compactHour() string {
	h.compact(h.start.Add(time.Duration(h.random.IntN(historyHours))*time.Hour), false)
	return "compact an hour"
}

func (h *history) compactDay() string {
	h.compact(h.start, true)
	return "compact a day"
}

func (h *history) compact(at time.Time, day bool) {
	h.t.Helper()
	h.call(order{}, "compact", func(ctx context.Context, c *changer) error {
		_, err := c.compactor.CompactWindow(withKey(ctx, h.lake.adminKey), &compactorv1.CompactWindowRequest{
			Organization: "default", Signal: lakev1.Signal_SIGNAL_LOGS, Start: timestamppb.New(at), Day: day,
		})
		return err
	})
}

// expireOthers ingests rows that are past their retention, and waits until they are gone.
func (h *history) expireOthers() string {
	old := h.base.Add(-100 * 24 * time.Hour)
	h.runs++
	prefix := fmt.Sprintf("otel-raw/default/old%d/", h.runs)
	h.notify(prefix+"logs_1.binpb.gz", encodeRows(h.t, querytest.Rows(h.random.Uint64(), 30, old, time.Hour)))
	kept := h.receipts
	h.settled(prefix, 1)
	h.receipts = kept
	h.until(order{}, "expiry", func() error {
		answer, err := h.index.Lookup(h.t.Context(), index.Query{Organization: "default", Signal: nouns.SignalLogs, Start: old.Add(-48 * time.Hour), End: old.Add(48 * time.Hour)})
		if err == nil && len(answer.Segments) > 0 {
			err = fmt.Errorf("%d old segments are there", len(answer.Segments))
		}
		return err
	})
	return "expire older rows"
}

// kill kills the process that changes the lake in the middle of whatever it does, and starts another one.
func (h *history) kill() string {
	h.now.kill()
	h.now = h.lake.startChanger(h.t, order{})
	return "kill"
}

// rebuild drops the index and makes it again from the bucket alone.
func (h *history) rebuild() string {
	h.t.Helper()
	// What comes after this is compaction and the janitor's: files that are not written down are not there, and those they replace still are.
	h.call(order{}, "ship", func(ctx context.Context, c *changer) error {
		_, err := c.janitor.ShipRecords(withKey(ctx, h.lake.adminKey), &janitorv1.ShipRecordsRequest{Organization: "default", Snapshot: h.random.IntN(2) == 0})
		return err
	})
	h.now.stop()
	h.lake.stop()
	h.lake.database = indextest.URL(h.t)
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	code, stdout, stderr := h.lake.command(ctx, h.lake.adminKey, "", "rebuild-index", "--database", h.lake.database, "--config", h.lake.configPath())
	if code != 0 {
		h.t.Fatalf("rebuild-index: exit code %d: %s%s", code, stdout, stderr)
	}
	h.lake.start(historyOptions())
	opened, err := index.Open(h.t.Context(), index.Config{URL: h.lake.database, MaxConns: 3})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(opened.Close)
	h.index = opened
	h.now = h.lake.startChanger(h.t, order{})
	return "rebuild"
}
