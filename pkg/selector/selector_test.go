// SPDX-License-Identifier: AGPL-3.0-only

package selector_test

import (
	"testing"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/selector"
)

func checkout() []columns.Label {
	return []columns.Label{{Name: "namespace", Value: "shop"}, {Name: "service_name", Value: "checkout"}}
}

func text(name, value string) columns.Attribute {
	return columns.Attribute{Name: name, Value: columns.Value{Kind: columns.KindString, Str: value}}
}

func TestRowsAreChosenAsAQueryWould(t *testing.T) {
	t.Parallel()
	origin := columns.Origin{Resource: []columns.Attribute{text("host.name", "h1")}, ScopeName: "shop"}
	row := columns.LogRow{
		Time: 1, Body: `{"user":"ada","took":"12ms"}`, SeverityText: "ERROR", TraceID: [16]byte{0xab},
		Attributes: []columns.Attribute{text("customer.id", "42")},
	}
	for expr, want := range map[string]bool{
		`{service_name="checkout"}`:                                               true,
		`{service_name="cart"}`:                                                   false,
		`{service_name=~".+", pod=""}`:                                            true,
		`{service_name="checkout"} |= "ada"`:                                      true,
		`{service_name="checkout"} != "ada"`:                                      false,
		`{service_name="checkout"} | customer_id="42"`:                            true,
		`{service_name="checkout"} | customer_id="43"`:                            false,
		`{service_name="checkout"} | host_name="h1"`:                              true,
		`{service_name="checkout"} | severity_text="ERROR"`:                       true,
		`{service_name="checkout"} | trace_id="ab000000000000000000000000000000"`: true,
		`{service_name="checkout"} | json | user="ada"`:                           true,
		`{service_name="checkout"} | json | took>1s`:                              false,
	} {
		s, err := selector.Parse(expr)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.NewMatcher().Row(checkout(), origin, &row); got != want {
			t.Errorf("%s: got %t, want %t", expr, got, want)
		}
	}
}

func TestAMatcherForgetsStreamsAndOriginsOfEarlierRows(t *testing.T) {
	t.Parallel()
	s, err := selector.Parse(`{service_name="checkout"} | host_name="h1" | customer_id=""`)
	if err != nil {
		t.Fatal(err)
	}
	m := s.NewMatcher()
	h1, h2 := columns.Origin{Resource: []columns.Attribute{text("host.name", "h1")}}, columns.Origin{Resource: []columns.Attribute{text("host.name", "h2")}}
	cart := []columns.Label{{Name: "service_name", Value: "cart"}}
	plain, identified := columns.LogRow{Body: "x"}, columns.LogRow{Body: "x", Attributes: []columns.Attribute{text("customer.id", "42")}}
	for i, step := range []struct {
		stream []columns.Label
		origin columns.Origin
		row    *columns.LogRow
		want   bool
	}{
		{checkout(), h1, &plain, true},
		{checkout(), h2, &plain, false},
		{checkout(), h1, &identified, false},
		{cart, h1, &plain, false},
		{checkout(), h1, &plain, true},
	} {
		if got := m.Row(step.stream, step.origin, step.row); got != step.want {
			t.Errorf("step %d: got %t, want %t", i, got, step.want)
		}
	}
}

func TestOnlyMatchersAreSimple(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]bool{`{a="b"}`: true, `{a="b"} |= "x"`: false, `{a="b"} | json`: false} {
		s, err := selector.Parse(expr)
		if err != nil {
			t.Fatal(err)
		}
		if s.Simple() != want || s.String() != expr {
			t.Errorf("%s: simple is %t, want %t", s, s.Simple(), want)
		}
	}
}

func TestWhatIsNoSelectorIsRefused(t *testing.T) {
	t.Parallel()
	for _, expr := range []string{"", "{}", `{a="b"`, `{a=~".*"}`, `rate({a="b"}[1m])`, "{a=\"b\"} |~ `(`"} {
		if _, err := selector.Parse(expr); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: got %v, want an invalid selector", expr, err)
		}
	}
}
