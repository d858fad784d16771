// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// ObservedTimeSQL is the DuckDB expression for a row's observed time in ns since 1970, 0 if there is none: the file has how much later than its time a
// row was observed.
const ObservedTimeSQL = "COALESCE(time + observed_delay, 0)"

// SelectSQL returns DuckDB SQL that reads a segment file: the named fixed columns, the attributes, and extra expressions over them, if any. An
// attribute comes as column ColumnName(name, kind), wherever the segment keeps it, and as NULL where it has none; so the statements of several segments
// can be joined by UNION ALL.
func (c *Catalogue) SelectSQL(path string, fixed []string, attributes []columns.Key, extra ...string) string {
	var b strings.Builder
	b.WriteString("SELECT ")
	expressions := slices.Clone(fixed)
	for _, key := range attributes {
		expressions = append(expressions, c.AttributeSQL(key)+" AS "+ColumnName(key.Name, key.Kind))
	}
	b.WriteString(strings.Join(append(expressions, extra...), ", "))
	b.WriteString(" FROM read_parquet(")
	b.WriteString(quote(path))
	b.WriteString(")")
	return b.String()
}

// AttributeSQL returns the DuckDB expression for an attribute's value in a row of this segment: of type VARCHAR (strings, and arrays and maps as JSON
// text), BIGINT, DOUBLE, BOOLEAN or BLOB.
func (c *Catalogue) AttributeSQL(key columns.Key) string {
	i := slices.IndexFunc(c.Attributes, func(a AttributeEntry) bool { return a.Name == key.Name && a.Kind == key.Kind })
	switch {
	case i < 0:
		return "NULL::" + sqlType(key.Kind)
	case c.Attributes[i].Column != "":
		return c.Attributes[i].Column
	}
	return restSQL(key)
}

// restSQL takes an attribute out of the column `attributes`.
func restSQL(key columns.Key) string {
	pointer := "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key.Name) + "/" + kindLetters[key.Kind:key.Kind+1]
	text := "json_extract_string(attributes, " + quote(pointer) + ")"
	switch key.Kind {
	case columns.KindInt, columns.KindBool:
		return text + "::" + sqlType(key.Kind)
	case columns.KindDouble:
		return "split_part(" + text + ", ':', 1)::DOUBLE"
	case columns.KindBytes:
		return "from_base64(" + text + ")"
	}
	return text
}

func sqlType(kind columns.ValueKind) string {
	switch kind {
	case columns.KindInt:
		return "BIGINT"
	case columns.KindDouble:
		return "DOUBLE"
	case columns.KindBool:
		return "BOOLEAN"
	case columns.KindBytes:
		return "BLOB"
	}
	return "VARCHAR"
}

// RowRange is a range of the `row` column, both ends inclusive.
type RowRange struct{ First, Last int64 }

// SQL returns the condition that holds for the rows of the range. DuckDB skips the row groups outside of it.
func (r RowRange) SQL() string { return fmt.Sprintf("row BETWEEN %d AND %d", r.First, r.Last) }

// RowRanges returns the rows of a set of row groups, neighbours as one range.
func (c *Catalogue) RowRanges(groups RowGroups) []RowRange {
	var ranges []RowRange
	for i, g := range c.RowGroups {
		if !groups.Has(i) {
			continue
		}
		last := g.FirstRow + g.Rows - 1
		if n := len(ranges); n > 0 && ranges[n-1].Last == g.FirstRow-1 {
			ranges[n-1].Last = last
		} else {
			ranges = append(ranges, RowRange{First: g.FirstRow, Last: last})
		}
	}
	return ranges
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
