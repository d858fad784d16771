// SPDX-License-Identifier: AGPL-3.0-only

package sample

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
)

// level is a severity as its producer writes it.
type level struct {
	text   string
	number logspb.SeverityNumber
}

// levels of the shop's services.
func debug() level   { return level{"DEBUG", logspb.SeverityNumber_SEVERITY_NUMBER_DEBUG} }
func info() level    { return level{"INFO", logspb.SeverityNumber_SEVERITY_NUMBER_INFO} }
func warning() level { return level{"WARN", logspb.SeverityNumber_SEVERITY_NUMBER_WARN} }
func failure() level { return level{"ERROR", logspb.SeverityNumber_SEVERITY_NUMBER_ERROR} }

// entry is one log record before it has a time.
type entry struct {
	level       level
	body        string
	attributes  []*commonpb.KeyValue
	trace, span []byte
}

// service writes lines in its own style.
type service struct {
	name, namespace string
	weight          int
	pods            []*pod
	write           func(*shop, time.Time) entry
}

// pod is one running instance of a service.
type pod struct {
	service    *service
	name, node string
}

// shop is the state of the little world: who shops, and what is being ordered.
type shop struct {
	random   *rand.Rand
	services []*service
	weight   int
	traces   [][16]byte
}

func newShop(seed uint64) *shop {
	g := &shop{random: newRandom(seed)}
	g.services = []*service{
		{name: "gateway", namespace: "edge", weight: 30, write: writeGateway},
		{name: "frontend", namespace: "shop", weight: 20, write: writeFrontend},
		{name: "checkout", namespace: "shop", weight: 14, write: writeCheckout},
		{name: "cart", namespace: "shop", weight: 14, write: writeCart},
		{name: "payment", namespace: "shop", weight: 8, write: writePayment},
		{name: "inventory", namespace: "shop", weight: 8, write: writeInventory},
		{name: "postgres", namespace: "data", weight: 6, write: writePostgres},
	}
	for i, s := range g.services {
		g.weight += s.weight
		g.addPods(s, i)
	}
	for range 32 {
		g.traces = append(g.traces, g.newTrace())
	}
	return g
}

func (g *shop) addPods(s *service, index int) {
	set := g.hex(9)
	for i := range 1 + s.weight/10 {
		s.pods = append(s.pods, &pod{
			service: s,
			name:    fmt.Sprintf("%s-%s-%s", s.name, set, g.hex(5)),
			node:    fmt.Sprintf("node-%d.demo.internal", (index+i)%4),
		})
	}
}

func (g *shop) pickService() *service {
	n := g.random.IntN(g.weight)
	for _, s := range g.services {
		if n -= s.weight; n < 0 {
			return s
		}
	}
	return g.services[0]
}

// inTrace gives an entry the ids of a request under way; some requests end with it.
func (g *shop) inTrace(e entry) entry {
	i := g.random.IntN(len(g.traces))
	if g.random.IntN(8) == 0 {
		g.traces[i] = g.newTrace()
	}
	trace := g.traces[i]
	e.trace = trace[:]
	e.span = binary.BigEndian.AppendUint64(nil, g.random.Uint64()|1)
	return e
}

func (g *shop) newTrace() (t [16]byte) {
	binary.BigEndian.PutUint64(t[:8], g.random.Uint64()|1)
	binary.BigEndian.PutUint64(t[8:], g.random.Uint64())
	return t
}

func (g *shop) hex(digits int) string {
	b := make([]byte, (digits+1)/2)
	for i := range b {
		b[i] = byte(g.random.UintN(256))
	}
	return hex.EncodeToString(b)[:digits]
}

func (g *shop) ip() string {
	return fmt.Sprintf("198.51.%d.%d", g.random.IntN(8), 1+g.random.IntN(254))
}

// customer is skewed: few customers buy much.
func (g *shop) customer() string {
	return fmt.Sprintf("cus_%05d", int(math.Pow(g.random.Float64(), 3)*2000))
}

func (g *shop) product() string {
	return fmt.Sprintf("SKU-%04d", int(math.Pow(g.random.Float64(), 2)*400))
}

// millis is a log-normal duration around a median.
func (g *shop) millis(median float64) float64 {
	return math.Round(median*math.Exp(0.7*g.random.NormFloat64())*100) / 100
}

func (g *shop) oneOf(words ...string) string { return words[g.random.IntN(len(words))] }

func (g *shop) chance(percent float64) bool { return g.random.Float64()*100 < percent }
