// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/chaos"
)

// faultsOfCI is how many faults a run without LAKERUNNER_TORTURE has, drawn from all points and kinds with a fixed seed.
const faultsOfCI = 4

// TestFaults has faults happen at every named point of the services that change the lake: each point, each kind of fault. Stories of
// ingest, compaction, deletes, replay and retention run into them, and end with exactly their rows all the same; no answer is
// wrong meanwhile, and no file is left over.
//
// A sample runs always. LAKERUNNER_TORTURE=1 runs every point and kind, with LAKERUNNER_SEEDS seeds (default 1; a seed decides at which
// passage of a point the fault happens), those alone whose text, such as
// "hang at janitor.index.Commit, passage 3", LAKERUNNER_FAULTS matches, a regular expression.
func TestFaults(t *testing.T) {
	t.Parallel()
	first := newLane(t)
	_, points := first.story(order{Trace: true})
	m := &matrix{orders: ordersOf(t, points)}
	m.total = len(m.orders)
	t.Run("lanes", func(t *testing.T) {
		lanes := 1
		if torture() {
			lanes = 4
		}
		for i := range lanes {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				n := first
				if i > 0 {
					n = newLane(t)
				}
				n.t, n.lake.t = t, t
				m.run(n)
			})
		}
	})
	t.Logf("%d points, %d kinds of faults, %d runs, %d of which ran into their fault; not run into: %q", len(points), len(chaos.Kinds()), m.runs, m.hits, m.missed)
	if m.hits < m.runs*2/3 {
		t.Errorf("only %d of %d faults happened", m.hits, m.runs)
	}
}

func torture() bool { return os.Getenv("LAKERUNNER_TORTURE") != "" }

// ordersOf makes the faults of this run: all, or a sample, of each kind one.
func ordersOf(t *testing.T, points map[string]int) []order {
	t.Helper()
	orders := allOrders(t, points)
	if torture() {
		return orders
	}
	return sampleOf(orders, faultsOfCI, "ingestor.", "compactor.", "janitor.", "notifier.")
}

// allOrders makes a fault of each kind at each point, in an order drawn with a fixed seed.
func allOrders(t *testing.T, points map[string]int) []order {
	t.Helper()
	seeds := max(1, number(t, "LAKERUNNER_SEEDS"))
	wanted := regexp.MustCompile(os.Getenv("LAKERUNNER_FAULTS"))
	var orders []order
	for seed := range seeds {
		random := rand.New(rand.NewPCG(uint64(seed), 7))
		for _, point := range slices.Sorted(maps.Keys(points)) {
			for _, kind := range chaos.Kinds() {
				if o := (order{Point: point, Kind: kind, Nth: 1 + random.IntN(min(points[point], passages))}); wanted.MatchString(o.String()) {
					orders = append(orders, o)
				}
			}
		}
		random.Shuffle(len(orders), func(i, j int) { orders[i], orders[j] = orders[j], orders[i] })
	}
	return orders
}

// sampleOf takes n faults, each of another kind than the one before, and of the next of the services: at first passages, which every story makes.
func sampleOf(orders []order, n int, services ...string) []order {
	var out []order
	kinds := chaos.Kinds()
	for i := range n {
		at := slices.IndexFunc(orders, func(o order) bool {
			return o.Kind == kinds[i%len(kinds)] && o.Nth == 1 && strings.HasPrefix(o.Point, services[i%len(services)])
		})
		if at >= 0 {
			out = append(out, orders[at])
		}
	}
	return out
}

func number(t *testing.T, variable string) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(variable), "0"))
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// matrix are the faults that are still to happen; lanes take the next one each.
type matrix struct {
	mu         sync.Mutex
	orders     []order
	total      int
	runs, hits int
	missed     []string
}

func (m *matrix) next() (order, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.orders) == 0 {
		return order{}, false
	}
	o := m.orders[0]
	m.orders = m.orders[1:]
	return o, true
}

func (m *matrix) told(o order, happened bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.runs++
	if happened {
		m.hits++
		return
	}
	m.missed = append(m.missed, o.String())
}

// run tells stories until there are no more faults, and ends the lane.
func (m *matrix) run(n *lane) {
	for o, more := m.next(); more; o, more = m.next() {
		if n.t.Failed() {
			return
		}
		happened, _ := n.story(o)
		m.told(o, happened)
		if torture() {
			fmt.Println(time.Now().Format(time.TimeOnly), "run", m.runs, "of", m.total, o, "happened:", happened)
		}
	}
	n.close()
}
