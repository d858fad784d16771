// SPDX-License-Identifier: AGPL-3.0-only

// Package querytest makes log rows and LogQL queries at random from a seed, answers them with Loki's engine over the rows in
// memory, and compares answers. Differential tests hold every way of answering a query to this one.
//
// Its rows have distinct times, except for rows that are equal in every respect, so that any order among rows of one time, and
// any choice among them at a limit, is the same answer.
package querytest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Row is one log row as Loki would have it after its OTLP mapping.
type Row struct {
	Time     time.Time
	Labels   map[string]string // of the stream
	Metadata map[string]string // structured
	Line     string
}

// Rows makes n rows over the given duration from start on, in the order of their time. About one in fifty is there twice.
func Rows(seed uint64, n int, start time.Time, over time.Duration) []Row {
	g := &generator{rand.New(rand.NewPCG(seed, 1))}
	rows := make([]Row, 0, n)
	step := over / time.Duration(n)
	for i := range n {
		row := g.row(start.Add(time.Duration(i)*step + time.Duration(g.IntN(int(step)))))
		rows = append(rows, row)
		if g.IntN(50) == 0 && len(rows) < n {
			rows = append(rows, row)
		}
	}
	return rows[:n]
}

// Partition spreads rows over n parts at random, as segments do with a stream's rows. Each part keeps the order of time.
func Partition(seed uint64, rows []Row, n int) [][]Row {
	r := rand.New(rand.NewPCG(seed, 2))
	parts := make([][]Row, n)
	for _, row := range rows {
		at := r.IntN(n)
		parts[at] = append(parts[at], row)
	}
	return slices.DeleteFunc(parts, func(p []Row) bool { return len(p) == 0 })
}

type generator struct{ *rand.Rand }

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

func (g *generator) row(at time.Time) Row {
	service := pick(g, "checkout", "frontend", "payment", "search")
	labels := map[string]string{"service_name": service, "env": pick(g, "prod", "dev")}
	if g.IntN(3) > 0 {
		labels["k8s_pod_name"] = fmt.Sprintf("%s-%d", service, g.IntN(3))
	}
	metadata := map[string]string{
		"detected_level": pick(g, "info", "warn", "error", "debug"),
		"trace_id":       fmt.Sprintf("%032x", g.IntN(40)),
	}
	if g.IntN(4) == 0 {
		metadata["host_name"] = pick(g, "a.example", "b.example")
	}
	if g.IntN(10) == 0 {
		metadata["weight"] = pick(g, "1", "2.5", "heavy")
	}
	if g.IntN(20) == 0 {
		metadata["env"] = "shadowed" // meets the stream label of this name
	}
	return Row{Time: at, Labels: labels, Metadata: metadata, Line: g.line(service)}
}

func (g *generator) line(service string) string {
	switch service {
	case "checkout":
		return g.jsonLine()
	case "frontend":
		return g.logfmtLine()
	case "payment":
		return g.plainLine()
	}
	return pick(g, g.jsonLine, g.logfmtLine, g.plainLine, g.packedLine, func() string { return "" })()
}

func (g *generator) jsonLine() string {
	if g.IntN(30) == 0 {
		return `{"status":200,"broken":`
	}
	fields := map[string]any{
		"status":   pick(g, 200, 200, 201, 404, 500),
		"duration": pick(g, "12ms", "1.5s", "250us", "oops"),
		"took":     float64(g.IntN(2000)) / 8,
		"size":     pick(g, "512B", "10KB", "1.5MB", "none"),
		"user":     fmt.Sprintf("u%d", g.IntN(12)),
		"msg":      g.message(),
	}
	if g.IntN(2) == 0 {
		fields["http"] = map[string]any{"method": pick(g, "GET", "POST"), "path": g.path(), "ok": g.IntN(2) == 0}
	}
	if g.IntN(5) == 0 {
		fields["env"] = "from-json" // meets the stream label of this name
	}
	if g.IntN(6) == 0 {
		fields["tags"] = []string{"a", "b"}
	}
	text, _ := json.Marshal(fields) // of strings and numbers: cannot fail
	return string(text)
}

func (g *generator) logfmtLine() string {
	parts := []string{
		"level=" + pick(g, "info", "warn", "error"),
		fmt.Sprintf("status=%d", pick(g, 200, 204, 302, 404, 503)),
		"duration=" + pick(g, "3ms", "40ms", "2s", "bad"),
		fmt.Sprintf("took=%g", float64(g.IntN(4000))/16),
		"size=" + pick(g, "100B", "2KB", "3MB"),
		fmt.Sprintf("msg=%q", g.message()),
		"path=" + g.path(),
		fmt.Sprintf("user=u%d", g.IntN(12)),
	}
	if g.IntN(15) == 0 {
		parts = append(parts, `broken="x`)
	}
	return strings.Join(parts, " ")
}

func (g *generator) plainLine() string {
	color := ""
	if g.IntN(4) == 0 {
		color = "\x1b[31m"
	}
	return fmt.Sprintf("%s%s - %s [%s] \"%s %s\" %d %d %s", color, g.ip(), fmt.Sprintf("u%d", g.IntN(12)), pick(g, "INFO", "WARN", "ERROR"),
		pick(g, "GET", "POST", "PUT"), g.path(), pick(g, 200, 404, 500), g.IntN(5000), g.message())
}

func (g *generator) packedLine() string {
	text, _ := json.Marshal(map[string]string{"_entry": g.message(), "container": pick(g, "main", "sidecar")})
	return string(text)
}

func (g *generator) message() string {
	return pick(g, "card_declined for order", "connection reset by peer", "cache miss", "user logged in",
		"timeout after 30s", "GC pause", "payment accepted", `quoted "word" inside`, "naïve façade ☃")
}

func (g *generator) path() string {
	return pick(g, "/api/v1/cart", "/api/v1/orders/17", "/healthz", "/search?q=shoes")
}

func (g *generator) ip() string {
	return fmt.Sprintf("%s.%d.%d", pick(g, "10.0", "192.168", "172.16"), g.IntN(4), g.IntN(256))
}
