// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"fmt"
	"regexp"
	"strings"
)

// pattern is a compiled prefix: literal text with the placeholders {organization}, {collector} and {signal}, each at most once,
// and *, each matching one or more characters other than '/'.
type pattern struct {
	literal int    // characters that are not placeholders: the measure of "longest"
	fixed   string // what every match begins with
	expr    *regexp.Regexp
}

var placeholder = regexp.MustCompile(`\{[^}]*\}?|\*`)

func compilePattern(prefix string) (pattern, error) {
	var expr strings.Builder
	expr.WriteString(`(?s)^`)
	p := pattern{fixed: prefix}
	seen := map[string]bool{}
	at := 0
	for i, loc := range placeholder.FindAllStringIndex(prefix, -1) {
		if i == 0 {
			p.fixed = prefix[:loc[0]]
		}
		text := prefix[at:loc[0]]
		p.literal += len(text)
		expr.WriteString(regexp.QuoteMeta(text))
		group, err := groupOf(prefix[loc[0]:loc[1]], seen, loc[1] == len(prefix))
		if err != nil {
			return pattern{}, err
		}
		expr.WriteString(group)
		at = loc[1]
	}
	p.literal += len(prefix) - at
	expr.WriteString(regexp.QuoteMeta(prefix[at:]))
	compiled, err := regexp.Compile(expr.String())
	if err != nil {
		return pattern{}, fmt.Errorf("prefix %q: %w", prefix, err)
	}
	p.expr = compiled
	return p, nil
}

func groupOf(name string, seen map[string]bool, last bool) (string, error) {
	// The last placeholder takes all up to the next '/'; one with text behind it ends where that text first fits.
	some := `[^/]+?`
	if last {
		some = `[^/]+`
	}
	if name == "*" {
		return some, nil
	}
	if seen[name] {
		return "", fmt.Errorf("%s stands twice; use * for the second", name)
	}
	seen[name] = true
	switch name {
	case "{organization}":
		return `(?P<organization>` + some + `)`, nil
	case "{collector}":
		return `(?P<collector>` + some + `)`, nil
	case "{signal}":
		return `(?P<signal>logs|metrics|traces|spans)`, nil
	}
	return "", fmt.Errorf("unknown placeholder %s; want {organization}, {collector}, {signal} or *", name)
}

// match reports whether a key begins with the pattern, and what its placeholders stand for.
func (p pattern) match(key string) (values map[string]string, ok bool) {
	if !strings.HasPrefix(key, p.fixed) {
		return nil, false
	}
	m := p.expr.FindStringSubmatch(key)
	if m == nil {
		return nil, false
	}
	values = map[string]string{}
	for i, name := range p.expr.SubexpNames() {
		if name != "" {
			values[name] = m[i]
		}
	}
	return values, true
}
