// SPDX-License-Identifier: AGPL-3.0-only

package strictyaml

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Problem is one mistake in a document, with the remedy in its text.
type Problem struct {
	File string
	Line int // from 1; 0: not known
	Text string
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
}

// Problems are all mistakes of a document, in its order.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// Pos is where a struct was written. Decode fills every field of this type.
type Pos struct {
	File  string
	Line  int
	lines map[string]int // of the struct's fields
}

var posType = reflect.TypeFor[Pos]()

// Problem reports a mistake in one field of the struct at p; a field that was not written stands where the struct begins.
func (p Pos) Problem(field, format string, args ...any) Problem {
	line, written := p.lines[field]
	if !written {
		line = p.Line
	}
	return Problem{File: p.File, Line: line, Text: fmt.Sprintf(format, args...)}
}

func setPos(v reflect.Value, pos Pos) {
	for i := range v.NumField() {
		if v.Type().Field(i).Type == posType && v.Field(i).CanSet() {
			v.Field(i).Set(reflect.ValueOf(pos))
		}
	}
}

// Suggest says which of the names was probably meant, or lists them all.
func Suggest(got string, names []string) string {
	slices.Sort(names)
	best, distance := "", len(got)/2+1
	for _, name := range names {
		// Nobody means a name so long; a document may hold any.
		if len(got) > 2*len(name) {
			continue
		}
		if d := edits(got, name); d < distance {
			best, distance = name, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "want one of " + strings.Join(names, ", ")
}

// edits is the number of letters to insert, delete, replace or swap with their neighbour that makes b of a (optimal string alignment).
func edits(a, b string) int {
	table := make([][]int, len(a)+1)
	for i := range table {
		table[i] = make([]int, len(b)+1)
		table[i][0] = i
	}
	for j := range table[0] {
		table[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			table[i][j] = min(table[i-1][j]+1, table[i][j-1]+1, table[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				table[i][j] = min(table[i][j], table[i-2][j-2]+1)
			}
		}
	}
	return table[len(a)][len(b)]
}
