// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"strings"
	"unicode/utf8"

	"github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/loki/v3/pkg/logql/log/pattern"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
)

// Body is the column that line filters test.
const Body = "body"

// test is a condition on one column. Its zero value is unknown: nothing can be said.
type test struct {
	sql   string
	exact bool
	// needles are texts that the column contains wherever the test holds.
	needles []string
	// either are such texts of which it contains one.
	either []Either
}

// Either are texts of which one is there.
type Either []string

var (
	unknown = test{}
	always  = test{sql: "true", exact: true}
	never   = test{sql: "false", exact: true}
)

// is reports whether t is one of the constant tests.
func (t test) is(constant test) bool { return t.sql == constant.sql }

// anyOf is a disjunction, as Loki makes it: of several tests those that always hold are dropped, which is not what "or" means, but is what
// Loki answers.
func anyOf(tests []test) test {
	var some []test
	for _, t := range tests {
		if t.is(unknown) {
			return unknown
		}
		if !t.is(always) {
			some = append(some, t)
		}
	}
	switch len(some) {
	case 0:
		return always
	case 1:
		return some[0]
	}
	either := test{exact: true}
	var parts []string
	for _, t := range some {
		parts = append(parts, t.sql)
		either.exact = either.exact && t.exact
	}
	either.either = eitherOf(some)
	either.sql = "(" + strings.Join(parts, " OR ") + ")"
	return either
}

// eitherOf takes one needle of each test: nothing if one has none.
func eitherOf(tests []test) []Either {
	var texts Either
	for _, t := range tests {
		needle := longest(t.needles)
		if needle == "" {
			return nil
		}
		texts = append(texts, needle)
	}
	return []Either{texts}
}

// not negates; only what is exact can be negated.
func not(t test) test {
	switch {
	case !t.exact:
		return unknown
	case t.is(always):
		return never
	case t.is(never):
		return always
	}
	return test{sql: "NOT " + t.sql, exact: true}
}

// Lines are the line filters of a pipeline that see the line as it is stored.
type Lines struct {
	// Where are conditions on the column Body, all of which hold for every row that the filters let through.
	Where []string
	// Needles are texts that each such row's body contains.
	Needles []string
	// Either are texts of which, each time, each such row's body contains one.
	Either []Either
	// Exact is whether Where is all that the filters say.
	Exact bool
	// None is whether the filters let nothing through.
	None bool
}

// linesOf plans the line filters that stand before any stage that rewrites the line. The rest of the stages is returned without them.
func linesOf(stages syntax.MultiStageExpr) (Lines, syntax.MultiStageExpr) {
	lines := Lines{Exact: true}
	var rest syntax.MultiStageExpr
	rewritten := false
	for _, stage := range stages {
		filter, ok := stage.(*syntax.LineFilterExpr)
		if !ok || rewritten {
			rest = append(rest, stage)
			rewritten = rewritten || rewritesLine(stage)
			continue
		}
		for link := filter; link != nil; link = link.Left {
			lines.add(lineTest(link))
		}
	}
	return lines, rest
}

func (l *Lines) add(t test) {
	l.Exact = l.Exact && t.exact
	l.None = l.None || t.is(never)
	l.Needles = append(l.Needles, t.needles...)
	l.Either = append(l.Either, t.either...)
	if !t.is(unknown) && !t.is(always) {
		l.Where = append(l.Where, t.sql)
	}
}

func rewritesLine(stage syntax.StageExpr) bool {
	switch s := stage.(type) {
	case *syntax.LineFmtExpr, *syntax.DecolorizeExpr:
		return true
	case *syntax.LineParserExpr:
		return s.Op == syntax.OpParserTypeUnpack
	}
	return false
}

// lineTest plans one filter with what hangs on it by "or".
func lineTest(filter *syntax.LineFilterExpr) test {
	var tests []test
	for link := filter; link != nil; link = link.Or {
		if link.Op != "" {
			return unknown
		}
		tests = append(tests, simpleLineTest(link.Ty, link.Match))
	}
	return anyOf(tests)
}

func simpleLineTest(kind log.LineMatchType, match string) test {
	switch kind {
	case log.LineMatchEqual:
		return (&literal{text: match}).test(Body)
	case log.LineMatchNotEqual:
		return not((&literal{text: match}).test(Body))
	case log.LineMatchRegexp:
		return regexpTest(match, Body, false)
	case log.LineMatchNotRegexp:
		return not(regexpTest(match, Body, false))
	case log.LineMatchPattern:
		return patternTest(match)
	}
	return unknown
}

// patternTest asks for the literals of a line pattern (|>), which its captures stand between.
func patternTest(match string) test {
	literals, err := pattern.ParseLiterals(match)
	if err != nil {
		return unknown
	}
	var t test
	var parts []string
	for _, l := range literals {
		contained := containsTest(string(l), Body)
		if len(l) == 0 || contained.is(unknown) || !utf8.Valid(l) {
			continue
		}
		parts = append(parts, contained.sql)
		t.needles = append(t.needles, string(l))
	}
	if len(parts) > 0 {
		t.sql = "(" + strings.Join(parts, " AND ") + ")"
	}
	return t
}
