// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// rewrite makes the fixture of the present format version; those of earlier ones are never written again.
var rewrite = flag.Bool("rewrite", false, "write the fixture of the present format version")

// TestFixtures reads a segment of every format version there ever was.
func TestFixtures(t *testing.T) {
	t.Parallel()
	if *rewrite {
		w := write(t, fixtureLogs(FormatVersion), fixtureMeta(FormatVersion))
		for suffix, b := range map[string][]byte{"": w.parquet, lake.SidecarSuffix: w.sidecar} {
			name := filepath.Join("testdata", fmt.Sprintf("v%d.parquet%s", FormatVersion, suffix))
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for version := 1; version <= FormatVersion; version++ {
		l := fixtureLogs(version)
		order := make([]uint32, l.Len())
		for i := range order {
			order[i] = uint32(i)
		}
		l.Sort(order)
		name := filepath.Join("testdata", fmt.Sprintf("v%d.parquet", version))
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c, got := readAll(t, file)
		if c.FormatVersion != version || got.Len() != l.Len() || c.RowHash != fixtureRowHashes[version] || c.Identified != (version > 1) {
			t.Errorf("%s: version %d, %d rows, row hash %#x", name, c.FormatVersion, got.Len(), c.RowHash)
		}
		if diff := cmp.Diff(fixtureMeta(version), c.Meta); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		var sum uint64
		for i, row := range order {
			if diff := diffRows(l, int(row), got, i); diff != "" {
				t.Errorf("%s: row %d: %s", name, i, diff)
			}
			sum += got.RowHash(i)
		}
		if sum != fixtureRowHashes[version] {
			t.Errorf("%s: row hash %#x", name, sum)
		}
		checkFixtureSidecar(t, name+lake.SidecarSuffix)
	}
}

var fixtureRowHashes = []uint64{1: 0x795f9fbe05c0019f, 2: 0xba3efef97c707ef1}

// fixtureMeta never changes.
func fixtureMeta(version int) Meta {
	m := testMeta()
	if version > 1 {
		m.AppliedDelete, m.Rules = 7, []string{"drop:password", "hash:user.id"}
	}
	return m
}

func checkFixtureSidecar(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSidecar(b)
	if err != nil {
		t.Fatal(err)
	}
	for needle, want := range map[string]int{
		"card_declined": 1, "decline": 1, "10.1.2.3": 1, "550e8400-e29b-41d4-a716-446655440000": 1, "00000000000000000000000000000abc": 1,
		"nothing": 0, "10.1.2.4": 0, "650e8400-e29b-51d4-a716-446655440000": 0,
	} {
		if got := s.Candidates([]string{needle}, nil).Count(); got != want {
			t.Errorf("%s: %q has %d candidates, want %d", name, needle, got, want)
		}
	}
	if got := s.Candidates(nil, &[16]byte{14: 0x0a, 15: 0xbc}).Count(); got != 1 {
		t.Errorf("%s: the trace has %d candidates", name, got)
	}
}

// fixtureLogs never changes: the rows of version 2 have an identity.
func fixtureLogs(version int) *columns.Logs {
	identity := ""
	if version > 1 {
		identity = "dense0"
	}
	l := columns.NewLogs()
	bodies := []string{
		"order 1a2b3c4d failed: card_declined after 1234ms", "client 10.1.2.3:8080 connected", `{"id":"550e8400-e29b-41d4-a716-446655440000"}`, "",
		"trace 00000000000000000000000000000abc ünïcödé 🦊 \x00",
	}
	values := []columns.Value{
		{Str: "text"},
		{Kind: columns.KindInt, Num: math.MaxUint64},
		{Kind: columns.KindDouble, Num: math.Float64bits(0.1)},
		{Kind: columns.KindBool, Num: 1},
		{Kind: columns.KindBytes, Str: "\xff\x00"},
		{Kind: columns.KindArray, Str: `[1,"a"]`},
		{Kind: columns.KindMap, Str: `{"k":null}`},
	}
	for i := range 100 {
		service := fmt.Sprint("service-", i%3)
		row := columns.LogRow{
			Time:       testStart.UnixNano() + int64(i)*1e9,
			TimeSource: columns.TimeSource(i % 3),
			Stream:     l.Stream([]columns.Label{{Name: columns.ServiceLabel, Value: service}, {Name: "k8s_pod_name", Value: "p"}}),
			Origin: l.Origin(columns.Origin{
				Resource: []columns.Attribute{{Name: "service.name", Value: columns.Value{Str: service}}}, ResourceSchemaURL: "r",
				ScopeName: "scope", ScopeVersion: "1", Scope: []columns.Attribute{{Name: "x", Value: columns.Value{Kind: columns.KindInt, Num: 7}}}, ScopeSchemaURL: "s",
				Identity: identity,
			}),
			Fingerprint: lake.Fingerprint(i%5) << 60,
			Body:        bodies[i%5],
			Source:      lake.ReceiptID(1 + i%2),
			Attributes:  []columns.Attribute{{Name: "dense.Name", Value: values[0]}},
		}
		if i%2 == 0 {
			row.ObservedTime, row.SeverityNumber, row.SeverityText, row.DetectedLevel = row.Time+1e6, 9, "INFO", "info"
			row.Flags, row.EventName, row.DroppedAttributes, row.BodyKind = 1, "event", 3, columns.KindMap
			row.TraceID, row.SpanID = [16]byte{14: 0x0a, 15: 0xbc}, [8]byte{7: 1}
		}
		for k, v := range values {
			row.Attributes = append(row.Attributes, columns.Attribute{Name: fmt.Sprint("dense", k), Value: v})
			if i == k {
				row.Attributes = append(row.Attributes, columns.Attribute{Name: "rare", Value: v}, columns.Attribute{Name: "Rare\"\n", Value: v})
			}
		}
		l.Append(&row)
	}
	return l
}
