// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/regexp"
	"github.com/grafana/regexp/syntax"
)

// maxPattern is the longest RE2 text that DuckDB is given: a longer one may exceed the memory RE2 allows itself.
const maxPattern = 2000

// literal is a leaf of a regular expression that Loki simplifies to literals. It records itself instead of matching.
type literal struct {
	log.Filterer
	text  string
	fold  bool
	equal bool
}

// Matches implements log.Matcher.
func (l *literal) Matches(c log.Checker) bool {
	if r, ok := c.(*recorder); ok {
		r.leaves = append(r.leaves, l)
	}
	return false
}

// recorder collects the leaves of a filter that is a disjunction.
type recorder struct{ leaves []*literal }

// Test implements log.Checker; literals do not call it.
func (*recorder) Test([]byte, bool, bool) bool { return true }

// TestRegex implements log.Checker.
func (*recorder) TestRegex(*regexp.Regexp) bool { return true }

// regexpTest makes a test of a regular expression, as Loki evaluates it: unanchored and simplified for lines, anchored for labels.
func regexpTest(expression, operand string, label bool) test {
	re, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return unknown
	}
	re = re.Simplify()
	contains := func(match []byte, fold bool) log.MatcherFilterer { return &literal{text: string(match), fold: fold} }
	equals := func(match []byte, fold bool) log.MatcherFilterer {
		return &literal{text: string(match), fold: fold, equal: true}
	}
	if simple, ok := log.NewRegexSimplifier(contains, equals).Simplify(re, label); ok {
		return simplified(simple, operand)
	}
	return re2Test(expression, operand, label)
}

// simplified makes a test of what Loki's simplifier returns: everything, anything, or a disjunction of literals.
func simplified(filter log.Filterer, operand string) test {
	switch filter {
	case log.TrueFilter:
		return always
	case log.ExistsFilter:
		return test{sql: operand + " <> ''", exact: true}
	}
	matcher, ok := filter.(log.Matcher)
	if !ok {
		return unknown
	}
	var r recorder
	if matcher.Matches(&r) || len(r.leaves) == 0 {
		return unknown
	}
	var tests []test
	for _, leaf := range r.leaves {
		tests = append(tests, leaf.test(operand))
	}
	return anyOf(tests)
}

func (l *literal) test(operand string) test {
	switch {
	case l.text == "" && !l.equal:
		return always
	case l.fold:
		return l.foldTest(operand)
	case l.equal:
		return equalTest(l.text, operand)
	}
	return containsTest(l.text, operand)
}

// foldTest compares without case. Loki and DuckDB agree on ASCII but for oddities such as the Kelvin sign, so it is no exact test.
func (l *literal) foldTest(operand string) test {
	lower := strings.ToLower(l.text)
	quoted, ok := Quote(lower)
	if !ok || strings.IndexFunc(lower, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0 {
		return unknown
	}
	return test{sql: "contains(lower(" + operand + "), " + quoted + ")"}
}

func equalTest(text, operand string) test {
	quoted, ok := Quote(text)
	if !ok {
		return unknown
	}
	return test{sql: operand + " = " + quoted, exact: true}
}

func containsTest(text, operand string) test {
	quoted, ok := Quote(text)
	if !ok {
		return unknown
	}
	return test{sql: "contains(" + operand + ", " + quoted + ")", exact: true, needles: []string{text}}
}

// re2Test writes a regular expression for RE2, whose syntax is nearly Go's: what differs is written in a form that both have.
func re2Test(expression, operand string, label bool) test {
	// The simplifier changes the tree it is given.
	re, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return unknown
	}
	re = re.Simplify()
	var w re2
	w.write(re)
	pattern := w.String()
	if w.odd || len(pattern) > maxPattern {
		return unknown
	}
	if label {
		pattern = `\A(?:` + pattern + `)\z`
	}
	quoted, ok := Quote(pattern)
	if !ok {
		return unknown
	}
	t := test{sql: "regexp_matches(" + operand + ", " + quoted + ")", exact: !w.folds}
	if label {
		return t
	}
	t.needles, t.either = required(re), alternatives(re)
	// To look for a text is cheaper than to match, and most lines have not even that.
	if first := containsTest(longest(t.needles), operand); len(t.needles) > 0 && !first.is(unknown) {
		t.sql = "(" + first.sql + " AND " + t.sql + ")"
	}
	return t
}

func longest(texts []string) string {
	var best string
	for _, text := range texts {
		if len(text) > len(best) {
			best = text
		}
	}
	return best
}

// re2 writes a parsed expression as RE2 text.
type re2 struct {
	strings.Builder
	odd   bool // something that RE2 may understand otherwise
	folds bool // case is folded beyond ASCII, where the two may know different editions of Unicode
}

func (w *re2) write(re *syntax.Regexp) {
	switch re.Op {
	case syntax.OpNoMatch:
		w.odd = true
	case syntax.OpEmptyMatch:
		w.WriteString("(?:)")
	case syntax.OpLiteral:
		w.literal(re)
	case syntax.OpCharClass:
		w.class(re.Rune)
	case syntax.OpAnyCharNotNL:
		w.WriteString(`[^\n]`)
	case syntax.OpAnyChar:
		w.WriteString(`(?s:.)`)
	case syntax.OpBeginLine:
		w.WriteString(`(?m:^)`)
	case syntax.OpEndLine:
		w.WriteString(`(?m:$)`)
	case syntax.OpBeginText:
		w.WriteString(`\A`)
	case syntax.OpEndText:
		w.WriteString(`\z`)
	case syntax.OpWordBoundary:
		w.WriteString(`\b`)
	case syntax.OpNoWordBoundary:
		w.WriteString(`\B`)
	case syntax.OpCapture:
		w.group(re.Sub[0], "")
	case syntax.OpStar:
		w.group(re.Sub[0], "*")
	case syntax.OpPlus:
		w.group(re.Sub[0], "+")
	case syntax.OpQuest:
		w.group(re.Sub[0], "?")
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			w.group(sub, "")
		}
	case syntax.OpAlternate:
		for i, sub := range re.Sub {
			if i > 0 {
				w.WriteByte('|')
			}
			w.group(sub, "")
		}
	default:
		w.odd = true
	}
}

func (w *re2) group(re *syntax.Regexp, repeat string) {
	single := re.Op == syntax.OpCharClass || re.Op == syntax.OpAnyCharNotNL || re.Op == syntax.OpAnyChar ||
		re.Op == syntax.OpLiteral && (repeat == "" || len(re.Rune) == 1 && re.Flags&syntax.FoldCase == 0)
	if single {
		w.write(re)
	} else {
		w.WriteString("(?:")
		w.write(re)
		w.WriteByte(')')
	}
	w.WriteString(repeat)
}

func (w *re2) literal(re *syntax.Regexp) {
	fold := re.Flags&syntax.FoldCase != 0
	if fold {
		w.WriteString("(?i:")
	}
	for _, r := range re.Rune {
		w.rune(r)
		w.folds = w.folds || fold && r >= utf8.RuneSelf
	}
	if fold {
		w.WriteByte(')')
	}
}

func (w *re2) rune(r rune) {
	switch {
	case r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == ' ' || r == '_'):
		w.WriteRune(r)
	case r >= 0xD800 && r <= 0xDFFF || r == utf8.RuneError:
		w.odd = true // invalid UTF-8 is a matter of opinion
	default:
		fmt.Fprintf(w, `\x{%X}`, r)
	}
}

func (w *re2) class(ranges []rune) {
	if len(ranges) == 0 {
		w.odd = true
		return
	}
	w.WriteByte('[')
	for i := 0; i < len(ranges); i += 2 {
		fmt.Fprintf(w, `\x{%X}`, ranges[i])
		if ranges[i+1] != ranges[i] {
			fmt.Fprintf(w, `-\x{%X}`, ranges[i+1])
		}
	}
	w.WriteByte(']')
}

// required returns literals that every match of an expression contains.
func required(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			return []string{string(re.Rune)}
		}
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpConcat:
		var needles []string
		for _, sub := range re.Sub {
			needles = append(needles, required(sub)...)
		}
		return needles
	}
	return nil
}

// alternatives returns, for each choice between literals that every match of an expression contains, what is there: with the literals next to
// it, so that there are whole words.
func alternatives(re *syntax.Regexp) []Either {
	switch re.Op {
	case syntax.OpCapture, syntax.OpPlus:
		return alternatives(re.Sub[0])
	case syntax.OpAlternate:
		if texts := choice(re); texts != nil {
			return []Either{texts}
		}
	case syntax.OpConcat:
		var all []Either
		for i, sub := range re.Sub {
			texts := choice(sub)
			if texts == nil {
				all = append(all, alternatives(sub)...)
				continue
			}
			var before, after string
			if i > 0 {
				before, _ = plainLiteral(re.Sub[i-1])
			}
			if i+1 < len(re.Sub) {
				after, _ = plainLiteral(re.Sub[i+1])
			}
			for n := range texts {
				texts[n] = before + texts[n] + after
			}
			all = append(all, texts)
		}
		return all
	}
	return nil
}

// choice returns the literals of an alternation, or nil if it is anything else.
func choice(re *syntax.Regexp) Either {
	for re.Op == syntax.OpCapture {
		re = re.Sub[0]
	}
	if re.Op != syntax.OpAlternate {
		return nil
	}
	var texts Either
	for _, sub := range re.Sub {
		text, ok := plainLiteral(sub)
		if !ok {
			return nil
		}
		texts = append(texts, text)
	}
	return texts
}

func plainLiteral(re *syntax.Regexp) (string, bool) {
	if re.Op != syntax.OpLiteral || re.Flags&syntax.FoldCase != 0 {
		return "", false
	}
	return string(re.Rune), true
}
