// SPDX-License-Identifier: AGPL-3.0-only

package plan_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
)

var rewrite = flag.Bool("rewrite", false, "write what was planned into testdata")

// TestPlans runs testdata/*.txt. A file holds cases with an empty line between them: lines of a state, "----", lines of its plan. Times of day
// are those of 2026-11-22; "age" is before "now".
func TestPlans(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replan(t, string(content))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(content), got); diff != "" && !*rewrite {
				t.Error(diff)
			}
		})
	}
}

func replan(t *testing.T, content string) string {
	var out []string
	for _, c := range strings.Split(strings.TrimSpace(content), "\n\n") {
		given, _, _ := strings.Cut(c, "----")
		given = strings.TrimSpace(given)
		p := &parser{t: t, policy: plan.Policy{Format: 2}}
		for _, line := range strings.Split(given, "\n") {
			if line != "" && !strings.HasPrefix(line, "#") {
				p.line(strings.Fields(line))
			}
		}
		made := plan.Make(p.state, p.policy)
		check(t, p.state, p.policy, made)
		out = append(out, given+"\n----\n"+describe(made))
	}
	return strings.Join(out, "\n")
}

// parser reads a state.
type parser struct {
	t      *testing.T
	state  plan.State
	policy plan.Policy
}

func (p *parser) line(fields []string) {
	switch fields[0] {
	case "hour":
		p.state.Window = lake.WindowOf(p.time(fields[1]), time.Hour)
	case "day":
		p.state.Window = lake.WindowOf(p.time(fields[1]), 24*time.Hour)
	case "now":
		p.state.Now = p.time(fields[1])
	case "asked":
		p.state.Asked = true
	case "sharded":
		p.policy.Sharded = true
	case "segments", "segment":
		p.segments(fields[1:])
	case "delete":
		id := p.number(fields[1])
		p.state.Deletes = append(p.state.Deletes, lake.Delete{ID: lake.DeleteID(id), Start: p.time(fields[2]), End: p.time(fields[3])})
		p.state.Latest = lake.DeleteID(id)
	case "rule":
		p.policy.Rules = append(p.policy.Rules, plan.Rule{Name: fields[1], After: p.duration(fields[2]), Expires: strings.HasPrefix(fields[1], "expire:")})
	default:
		p.t.Fatalf("unknown line %v", fields)
	}
}

// segments reads "1-8 level=0 bytes=4M age=2m ...". With shard=0/4, segments are of shards from that one on.
func (p *parser) segments(fields []string) {
	s := lake.Segment{
		Window: p.state.Window, Bucket: "b", FormatVersion: 2, Signal: lake.SignalLogs, Organization: "acme", Rows: 1, CreatedAt: p.state.Now,
	}
	if p.state.Window.Length > time.Hour {
		s.Window = lake.WindowOf(s.Window.Start, time.Hour)
	}
	for _, f := range fields[1:] {
		p.set(&s, f)
	}
	if s.FirstTime.IsZero() {
		s.FirstTime, s.LastTime = s.Window.Start, s.Window.End().Add(-1)
	}
	first, last, many := strings.Cut(fields[0], "-")
	if !many {
		last = first
	}
	for id := p.number(first); id <= p.number(last); id++ {
		s.ID = lake.SegmentID(id)
		p.state.Segments = append(p.state.Segments, s)
		s.Shard.Index++
	}
}

func (p *parser) set(s *lake.Segment, field string) {
	name, value, _ := strings.Cut(field, "=")
	switch name {
	case "level":
		s.Level = int(p.number(value))
	case "bytes":
		s.Bytes = p.bytes(value)
	case "age":
		s.CreatedAt = p.state.Now.Add(-p.duration(value))
	case "applied":
		s.AppliedDelete = lake.DeleteID(p.number(value))
	case "rules":
		s.Rules = strings.Split(value, ",")
	case "masked":
		s.MaskedSources = []lake.ReceiptID{lake.ReceiptID(p.number(value))}
	case "format":
		s.FormatVersion = int(p.number(value))
	case "bucket":
		s.Bucket = value
	case "identified":
		s.Identified = true
		s.Lease = lake.LeaseID(value)
	case "shard":
		index, count, _ := strings.Cut(value, "/")
		s.Shard = lake.Shard{Index: uint32(p.number(index)), Count: uint32(p.number(count))}
	case "resolution":
		s.Resolution = p.duration(value)
	case "hour":
		s.Window = lake.WindowOf(p.time(value), time.Hour)
	case "day":
		s.Window = lake.WindowOf(s.Window.Start, 24*time.Hour)
	case "rows":
		from, to, _ := strings.Cut(value, "..")
		s.FirstTime, s.LastTime = p.time(from), p.time(to)
	default:
		p.t.Fatalf("unknown field %s", field)
	}
}

func (p *parser) time(text string) time.Time {
	text, plus, later := strings.Cut(text, "+")
	at, err := time.Parse("2006-01-02 15:04", "2026-11-22 "+text)
	if err != nil {
		p.t.Fatal(err)
	}
	if later {
		at = at.Add(p.duration(plus))
	}
	return at
}

func (p *parser) duration(text string) time.Duration {
	days := time.Duration(0)
	if number, ok := strings.CutSuffix(text, "d"); ok {
		return time.Duration(p.number(number)) * 24 * time.Hour
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		p.t.Fatal(err)
	}
	return days + d
}

func (p *parser) number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

func (p *parser) bytes(text string) int64 {
	for suffix, unit := range map[string]int64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30} {
		if number, ok := strings.CutSuffix(text, suffix); ok {
			return p.number(number) * unit
		}
	}
	return p.number(text)
}

func describe(p plan.Plan) string {
	var b strings.Builder
	for _, m := range p.Merges {
		fmt.Fprintf(&b, "merge %s: %s of %d KiB -> level %d, ", m.Reason, idsOf(m.Inputs), m.Bytes()>>10, m.Level)
		switch {
		case m.Shards > 1:
			fmt.Fprintf(&b, "%d shards", m.Shards)
		case m.Shards == 1:
			b.WriteString("whole")
		default:
			fmt.Fprintf(&b, "%d KiB each", m.Target>>10)
		}
		if m.Window.Length > time.Hour {
			b.WriteString(", of the day")
		}
		if len(m.Rules) > 0 {
			fmt.Fprintf(&b, ", rules %s", strings.Join(m.Rules, ","))
		}
		if m.Doubtful {
			b.WriteString(", if it finds anything")
		}
		b.WriteString("\n")
	}
	if p.More {
		b.WriteString("more\n")
	}
	if !p.Again.IsZero() {
		fmt.Fprintf(&b, "again %s\n", p.Again.Format("02 15:04:05"))
	}
	if !p.Day.IsZero() {
		fmt.Fprintf(&b, "day %s\n", p.Day.Format("02 15:04:05"))
	}
	fmt.Fprintf(&b, "%s\n", p.Reason)
	return b.String()
}

// idsOf writes runs of ids as ranges.
func idsOf(segments []lake.Segment) string {
	var ids []int64
	for _, s := range segments {
		ids = append(ids, int64(s.ID))
	}
	slices.Sort(ids)
	var parts []string
	for i := 0; i < len(ids); {
		j := i
		for j+1 < len(ids) && ids[j+1] == ids[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, fmt.Sprint(ids[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", ids[i], ids[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}
