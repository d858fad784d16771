// SPDX-License-Identifier: AGPL-3.0-only

package selector_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/selector"
)

func parse(t *testing.T, text string) *selector.Selector {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func checkout() []columns.Label {
	return []columns.Label{{Name: "env", Value: "prod"}, {Name: "service_name", Value: "checkout"}}
}

func origin() columns.Origin {
	return columns.Origin{
		Resource:  []columns.Attribute{{Name: "k8s.pod.name", Value: columns.Value{Str: "pod-1"}}},
		ScopeName: "lib",
	}
}

func row() *columns.LogRow {
	return &columns.LogRow{
		Time: 1_700_000_000_000_000_000, Body: `{"user":"eve","code":7}`, DetectedLevel: "error", TraceID: [16]byte{1},
		Attributes: []columns.Attribute{
			{Name: "user.id", Value: columns.Value{Str: "u-1"}},
			{Name: "size", Value: columns.Value{Kind: columns.KindInt, Num: 12}},
		},
	}
}

func TestRow(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`{service_name="checkout"}`:                                           true,
		`{service_name="cart"}`:                                               false,
		`{service_name=~"check.*", env!="dev"}`:                               true,
		`{service_name="checkout", region=""}`:                                true,
		`{service_name="checkout", region!=""}`:                               false,
		`{service_name="checkout"} |= "eve"`:                                  true,
		`{service_name="checkout"} |= "bob"`:                                  false,
		`{service_name="checkout"} | user_id = "u-1"`:                         true,
		`{service_name="checkout"} | size > 11`:                               true,
		`{service_name="checkout"} | size > 12`:                               false,
		`{service_name="checkout"} | k8s_pod_name = "pod-1"`:                  true,
		`{service_name="checkout"} | scope_name = "lib"`:                      true,
		`{service_name="checkout"} | detected_level = "error"`:                true,
		`{service_name="checkout"} | json | user = "eve" | code = 7`:          true,
		`{service_name="checkout"} | json | user = "bob"`:                     false,
		`{service_name="cart"} | json | user = "eve"`:                         false,
		`{service_name="checkout"} | trace_id =~ "01.*"`:                      true,
		`{service_name="checkout"} | line_format "{{.user_id}}" |= "u-1"`:     true,
		`{service_name="checkout"} | label_format who=user_id | who = "u-1" `: true,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			s := parse(t, text)
			m := s.NewMatcher()
			for range 2 { // the second time from memory
				if got := m.Row(checkout(), origin(), row()); got != want {
					t.Errorf("got %t, want %t", got, want)
				}
			}
			if want && !s.Stream(checkout()) {
				t.Error("a row is let through whose stream is not")
			}
			if simple := !strings.Contains(text, "|"); s.Simple() != simple {
				t.Errorf("Simple = %t", s.Simple())
			}
			if s.String() != text {
				t.Errorf("String = %s", s)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for text, place := range map[string]string{
		``:                              "",
		`{`:                             "line 1, col 2",
		`{}`:                            "",
		`{a=~".*"}`:                     "",
		`{a="b"} | json | `:             "line 1, col",
		`{a="b"} |~ "("`:                "",
		`rate({a="b"}[5m])`:             "selector",
		"{a=\"b\"}\n| unwrap\n":         "",
		`{a="b"} | line_format "{{.x"`:  "",
		`{a="b"} | label_format a="{{"`: "",
	} {
		_, err := selector.Parse(text)
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), place) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

// TestMatcherKeepsNothing gives it memory that is written over afterwards.
func TestMatcherKeepsNothing(t *testing.T) {
	t.Parallel()
	m := parse(t, `{service_name=~"s.*"} | k8s_pod_name = "pod-7"`).NewMatcher()
	labels := []columns.Label{{Name: "service_name"}}
	resource := []columns.Attribute{{Name: "k8s.pod.name"}}
	for round := range 3 {
		for i := range 10_000 { // more than it remembers
			labels[0].Value = fmt.Sprint("s", i%5000)
			resource[0].Value.Str = fmt.Sprint("pod-", i%9)
			if got, want := m.Row(labels, columns.Origin{Resource: resource}, row()), i%9 == 7; got != want {
				t.Fatalf("round %d, row %d: got %t", round, i, got)
			}
		}
	}
}

func BenchmarkMatcher(b *testing.B) {
	s, err := selector.Parse(`{service_name="checkout"} | user_id = "u-1"`)
	if err != nil {
		b.Fatal(err)
	}
	m, labels, o, r := s.NewMatcher(), checkout(), origin(), row()
	b.ReportAllocs()
	for b.Loop() {
		m.Row(labels, o, r)
	}
}
