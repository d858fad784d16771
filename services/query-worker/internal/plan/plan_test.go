// SPDX-License-Identifier: AGPL-3.0-only

package plan_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

func selection(t *testing.T, pipeline string) plan.Selection {
	t.Helper()
	expr, err := plan.ParseSelector(`{a="b"} ` + pipeline)
	if err != nil {
		t.Fatal(err)
	}
	return plan.Select(expr)
}

func TestLines(t *testing.T) {
	t.Parallel()
	for pipeline, want := range map[string]plan.Lines{
		"":                                       {Exact: true},
		`|= "it's"`:                              {Where: []string{"contains(body, 'it''s')"}, Needles: []string{"it's"}, Exact: true},
		`|= ""`:                                  {Exact: true},
		`!= ""`:                                  {Where: []string{"false"}, Exact: true, None: true},
		`!= "x"`:                                 {Where: []string{"NOT contains(body, 'x')"}, Exact: true},
		`|= "a" or "b"`:                          {Where: []string{"(contains(body, 'a') OR contains(body, 'b'))"}, Either: []plan.Either{{"a", "b"}}, Exact: true},
		`!= "a" or "b"`:                          {Where: []string{"NOT contains(body, 'b')", "NOT contains(body, 'a')"}, Exact: true},
		"|~ `a|b`":                               {Where: []string{`regexp_matches(body, '[\x{61}-\x{62}]')`}, Exact: true},
		"|~ `.*foo.*`":                           {Where: []string{"contains(body, 'foo')"}, Needles: []string{"foo"}, Exact: true},
		"|~ `.*`":                                {Exact: true},
		"|~ `.+`":                                {Where: []string{"body <> ''"}, Exact: true},
		"|~ `(?i)Foo`":                           {Where: []string{"contains(lower(body), 'foo')"}},
		"!~ `(?i)foo`":                           {},
		"|~ `id=\\d+ x`":                         {Where: []string{`(contains(body, 'id=') AND regexp_matches(body, 'id\x{3D}(?:[\x{30}-\x{39}]+) x'))`}, Needles: []string{"id=", " x"}, Exact: true},
		"|~ `(cat|dog)s=\\d`":                    {Where: []string{`(contains(body, 's=') AND regexp_matches(body, '(?:(?:cat|dog))s\x{3D}[\x{30}-\x{39}]'))`}, Needles: []string{"s="}, Either: []plan.Either{{"cats=", "dogs="}}, Exact: true},
		"|~ `^a$`":                               {Where: []string{`(contains(body, 'a') AND regexp_matches(body, '(?:\A)a(?:\z)'))`}, Needles: []string{"a"}, Exact: true},
		"|> `<_>user=<_> x<_>`":                  {Where: []string{"(contains(body, 'user=') AND contains(body, ' x'))"}, Needles: []string{"user=", " x"}},
		"!> `<_>user=<_>`":                       {},
		`|= ip("10.0.0.0/8")`:                    {},
		`| json |= "a"`:                          {Where: []string{"contains(body, 'a')"}, Needles: []string{"a"}, Exact: true},
		"| line_format `x` |= `a`":               {Exact: true},
		"|= `b` | decolorize |= `a`":             {Where: []string{"contains(body, 'b')"}, Needles: []string{"b"}, Exact: true},
		"| unpack |= `a`":                        {Exact: true},
		"|= `a` |= `b` | x=`y` != `c`":           {Where: []string{"contains(body, 'b')", "contains(body, 'a')", "NOT contains(body, 'c')"}, Needles: []string{"b", "a"}, Exact: true},
		"|~ `" + strings.Repeat(`\pL`, 40) + "`": {},
	} {
		t.Run(pipeline, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(want, selection(t, pipeline).Lines); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

// text writes conditions on columns called as their labels.
func text(all []plan.Condition, and string) string {
	var parts []string
	for _, c := range all {
		switch {
		case c.Text != nil:
			sql, ok := c.Text.SQL(c.Text.Name)
			if !ok {
				sql = "?" + c.Text.Name
			}
			parts = append(parts, sql)
		case c.All != nil:
			parts = append(parts, text(c.All, " AND "))
		default:
			parts = append(parts, text(c.Any, " OR "))
		}
	}
	if len(parts) > 1 {
		return "(" + strings.Join(parts, and) + ")"
	}
	return strings.Join(parts, and)
}

func TestLabels(t *testing.T) {
	t.Parallel()
	for pipeline, want := range map[string]string{
		`| x="y"`:                    "x = 'y'",
		`| x!="y"`:                   "",
		`| x=""`:                     "",
		`| x!=""`:                    "?x",
		"| x=~`a|bc`":                "(x = 'a' OR x = 'bc')",
		"| x=~`a.*`":                 "contains(x, 'a')",
		"| x=~`a+`":                  `regexp_matches(x, '\A(?:a+)\z')`,
		"| x=~`a?`":                  "",
		`| x="y" or z="w"`:           "(x = 'y' OR z = 'w')",
		`| x="y" or z>3`:             "",
		`| x="y" and z>3`:            "x = 'y'",
		`| x="y" | json | z="w"`:     "x = 'y'",
		`| json | z="w"`:             "",
		`| drop __error__ | z="w"`:   "z = 'w'",
		`| drop z | z="w"`:           "",
		`| label_format z=x | z="w"`: "",
		`| __error__!=""`:            "",
		`| x_extracted="y"`:          "",
		"|= `line` | x=`y`":          "x = 'y'",
		"| line_format `q` | x=`y`":  "x = 'y'",
	} {
		t.Run(pipeline, func(t *testing.T) {
			t.Parallel()
			if got := text(selection(t, pipeline).Labels, " AND "); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		})
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]bool{
		`count_over_time({a="b"}[1m])`:                        true,
		`sum by (a) (rate({a="b"}[1m]))`:                      true,
		`sum by (a) (max_over_time({a="b"} | unwrap x [1m]))`: false,
		`max_over_time({a="b"} | unwrap x [1m]) by (a)`:       true,
		`sum(sum_over_time({a="b"} | unwrap x [1m]))`:         true,
		`max by (a) (count_over_time({a="b"}[1m]))`:           false,
		`avg_over_time({a="b"} | unwrap x [1m])`:              false,
		`sum(rate({a="b"}[1m])) / 2`:                          false,
		`topk(2, sum by (a) (rate({a="b"}[1m])))`:             false,
		`sum(rate_counter({a="b"} | unwrap x [1m]))`:          false,
	} {
		t.Run(expression, func(t *testing.T) {
			t.Parallel()
			expr, err := plan.ParseSample(expression)
			if err != nil {
				t.Fatal(err)
			}
			if _, got := plan.Window(expr); got != want {
				t.Fatalf("got %v", got)
			}
		})
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for expression, want := range map[string]string{
		`sum by (b) (count_over_time({a="b"} | x="y" | json [1m]))`:         "b x",
		`sum(count_over_time({a="b"}[1m]))`:                                 "",
		`sum by (c_extracted) (count_over_time({a="b"}[1m]))`:               "c_extracted c",
		`sum without (b) (count_over_time({a="b"}[1m]))`:                    "all",
		`count_over_time({a="b"}[1m])`:                                      "all",
		"sum by (b) (count_over_time({a=`b`} | line_format `{{.x}}` [1m]))": "all",
		"sum by (b) (count_over_time({a=`b`} | __error__=`` [1m]))":         "all",
		"sum by (b) (count_over_time({a=`b`} | drop __error__ [1m]))":       "b",
		"sum by (b) (sum_over_time({a=`b`} | unwrap d [1m]))":               "b d",
	} {
		t.Run(expression, func(t *testing.T) {
			t.Parallel()
			expr, err := plan.ParseSample(expression)
			if err != nil {
				t.Fatal(err)
			}
			w, ok := plan.Window(expr)
			if !ok {
				t.Fatal("not windowed")
			}
			names := plan.NamesOf(w.Range, w.Grouping)
			got := "all"
			if !names.All {
				var own []string
				for _, name := range names.List() {
					if !strings.HasPrefix(name, "__") {
						own = append(own, name)
					}
				}
				got = strings.Join(own, " ")
			}
			if got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		})
	}
}
