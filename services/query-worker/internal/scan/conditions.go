// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// condition is what is known of the rows of one segment that the pipeline lets through, for DuckDB and for reading without it.
type condition struct {
	// sql is empty when nothing is known, and falseSQL when there are no such rows.
	sql string
	row rowTest
}

const falseSQL = "false"

var (
	unknown = condition{}
	never   = condition{sql: falseSQL}
)

func (c condition) is(constant condition) bool { return c.sql == constant.sql }

// rowTest returns what tests the rows of a row group.
type rowTest func(d *direct, group int) (func(i int32) bool, error)

func (k *cut) chooseLabels(conditions []plan.Condition) bool {
	for _, c := range conditions {
		switch found := k.condition(c); {
		case found.is(unknown):
		case found.is(never):
			return false
		default:
			k.where = append(k.where, found.sql)
			k.tests = append(k.tests, found.row)
		}
	}
	return true
}

// condition says for this segment what is known.
func (k *cut) condition(c plan.Condition) condition {
	switch {
	case c.Text != nil:
		return k.textCondition(c.Text)
	case c.All != nil:
		return k.allConditions(c.All)
	}
	return k.anyConditions(c.Any)
}

func (k *cut) allConditions(all []plan.Condition) condition {
	var parts []condition
	for _, c := range all {
		switch part := k.condition(c); {
		case part.is(never):
			return never
		case !part.is(unknown):
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return unknown
	}
	return combined(parts, " AND ", false)
}

func (k *cut) anyConditions(some []plan.Condition) condition {
	var parts []condition
	for _, c := range some {
		part := k.condition(c)
		if part.is(unknown) {
			return unknown
		}
		parts = append(parts, part)
	}
	return disjunction(parts)
}

func disjunction(parts []condition) condition {
	parts = slices.DeleteFunc(parts, func(c condition) bool { return c.is(never) })
	if len(parts) == 0 {
		return never
	}
	return combined(parts, " OR ", true)
}

// combined joins conditions of which the first that is decisive decides.
func combined(parts []condition, operator string, decisive bool) condition {
	var sql []string
	for _, part := range parts {
		sql = append(sql, part.sql)
	}
	return condition{"(" + strings.Join(sql, operator) + ")", func(d *direct, group int) (func(int32) bool, error) {
		var tests []func(int32) bool
		for _, part := range parts {
			test, err := part.row(d, group)
			if err != nil {
				return nil, err
			}
			tests = append(tests, test)
		}
		return func(i int32) bool {
			for _, test := range tests {
				if test(i) == decisive {
					return decisive
				}
			}
			return !decisive
		}, nil
	}}
}

// onColumn is a condition on the values of one column.
func onColumn(column, sql string, ok func(v *segfile.Vector, i int) bool) condition {
	return condition{sql, func(d *direct, group int) (func(int32) bool, error) {
		v, err := d.column(group, column)
		if err != nil {
			return nil, err
		}
		return func(i int32) bool { return ok(v, int(i)) }, nil
	}}
}

func present(v *segfile.Vector, i int) bool { return !v.IsNull(i) }

// oneOf asks for some numbers.
func oneOf(column string, ids []uint32, of int) condition {
	wanted := make([]bool, of)
	for _, id := range ids {
		wanted[id] = true
	}
	return onColumn(column, "("+idCondition(column, ids)+")", func(v *segfile.Vector, i int) bool {
		id := v.Number(i)
		return id >= 0 && int(id) < len(wanted) && wanted[id]
	})
}

// textCondition asks for rows in which anything that LogQL may show under the name has an accepted value: which of them it shows is for
// the pipeline to say.
func (k *cut) textCondition(t *plan.Text) condition {
	var parts []condition
	streams := k.streamsAccepted(t)
	switch {
	case len(streams) == len(k.streams):
		return unknown
	case len(streams) > 0:
		parts = append(parts, oneOf("stream", streams, len(k.contents.streams)))
	}
	if k.allStreamsHave(t.Name) {
		return disjunction(parts) // metadata of that name is shown under another
	}
	var origins []uint32
	for i, metadata := range k.contents.origins {
		if slices.ContainsFunc(metadata, func(l columns.Label) bool { return l.Name == t.Name && t.Accepts(l.Value) }) {
			origins = append(origins, uint32(i))
		}
	}
	if len(origins) > 0 {
		parts = append(parts, oneOf("origin", origins, len(k.contents.origins)))
	}
	if field := fieldCondition(t); !field.is(unknown) {
		parts = append(parts, field)
	}
	for i := range k.contents.attributes {
		if a := &k.contents.attributes[i]; a.mayShow(t.Name) {
			parts = append(parts, a.condition(t))
		}
	}
	return disjunction(parts)
}

func (k *cut) streamsAccepted(t *plan.Text) []uint32 {
	var accepted []uint32
	for _, id := range k.streams {
		if value := k.contents.streams[id].labels.Get(t.Name); value != "" && t.Accepts(value) {
			accepted = append(accepted, id)
		}
	}
	return accepted
}

func (k *cut) allStreamsHave(name string) bool {
	for _, id := range k.streams {
		if !k.contents.streams[id].labels.Has(name) {
			return false
		}
	}
	return true
}

// fieldCondition is for names that fixed fields have; unknown for others.
func fieldCondition(t *plan.Text) condition {
	notZero := func(v *segfile.Vector, i int) bool { return v.Number(i) != 0 }
	switch t.Name {
	case columns.MetadataDetectedLevel, columns.MetadataSeverityText:
		sql, ok := t.SQL(t.Name)
		if !ok {
			sql = t.Name + " <> ''"
		}
		return onColumn(t.Name, sql, accepting(t))
	case columns.MetadataTraceID:
		return idColumn("trace_id", 16, t)
	case columns.MetadataSpanID:
		return idColumn("span_id", 8, t)
	case columns.MetadataSeverityNumber:
		if t.Equal == "" {
			return onColumn(t.Name, t.Name+" <> 0", notZero)
		}
		return integerEquals(t.Name, t.Equal)
	case columns.MetadataObservedTimestamp:
		return onColumn(delayColumn, delayColumn+" IS NOT NULL", present)
	case columns.MetadataFlags:
		return onColumn("flags", "flags <> 0", notZero) // the column may not have the number's sign
	case columns.MetadataDroppedAttributes:
		return onColumn("dropped_attributes", "dropped_attributes <> 0", notZero)
	}
	return unknown
}

// accepting tests text. The same one often follows itself.
func accepting(t *plan.Text) func(v *segfile.Vector, i int) bool {
	if t.Equal != "" {
		return func(v *segfile.Vector, i int) bool { return v.Text(i) == t.Equal }
	}
	return func(v *segfile.Vector, i int) bool {
		text := v.Text(i)
		return text != "" && t.Accepts(text)
	}
}

// idColumn compares a column of bytes with their hexadecimal text.
func idColumn(column string, size int, t *plan.Text) condition {
	if t.Equal != "" {
		raw, ok := parseID(t.Equal, size)
		if !ok {
			return never
		}
		wanted := string(raw)
		return onColumn(column, column+" = "+blob(raw), func(v *segfile.Vector, i int) bool { return v.Text(i) == wanted })
	}
	sql, ok := t.SQL("lower(hex(" + column + "))")
	if !ok {
		sql = column + " IS NOT NULL"
	}
	return onColumn(column, sql, func(v *segfile.Vector, i int) bool {
		return !v.IsNull(i) && t.Accepts(hex.EncodeToString([]byte(v.Text(i))))
	})
}

// parseID reads an id as LogQL shows it: in lower case.
func parseID(text string, size int) ([]byte, bool) {
	raw, err := hex.DecodeString(text)
	return raw, err == nil && len(raw) == size && hex.EncodeToString(raw) == text
}

func blob(raw []byte) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, c := range raw {
		fmt.Fprintf(&b, `\x%02X`, c)
	}
	b.WriteString("'::BLOB")
	return b.String()
}

// integerEquals compares with an integer that is written as LogQL shows it.
func integerEquals(column, text string) condition {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != text {
		return never
	}
	return onColumn(column, fmt.Sprintf("%s = %d", column, n), func(v *segfile.Vector, i int) bool { return !v.IsNull(i) && v.Number(i) == n })
}

func (a *attribute) condition(t *plan.Text) condition {
	if a.Column == "" {
		return a.sparseCondition()
	}
	switch a.Kind {
	case columns.KindString:
		sql, ok := t.SQL(a.Column)
		if !ok {
			sql = a.Column + " IS NOT NULL"
		}
		return onColumn(a.Column, sql, accepting(t))
	case columns.KindInt:
		if t.Equal != "" {
			return integerEquals(a.Column, t.Equal)
		}
	case columns.KindBool:
		if t.Equal != "" {
			return booleanEquals(a.Column, t.Equal)
		}
	}
	return onColumn(a.Column, a.Column+" IS NOT NULL", present)
}

func booleanEquals(column, text string) condition {
	if text != "true" && text != "false" {
		return never
	}
	return onColumn(column, column+" = "+text, func(v *segfile.Vector, i int) bool { return !v.IsNull(i) && (v.Number(i) != 0) == (text == "true") })
}

// sparseCondition asks for rows that have the attribute among those without a column. The text is JSON, in which a plain name stands as it is.
func (a *attribute) sparseCondition() condition {
	const column = "attributes"
	begin := `"` + a.Name + `":{`
	quoted, ok := plan.Quote(begin)
	if !ok || strings.ContainsFunc(a.Name, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' }) {
		return onColumn(column, column+" IS NOT NULL", present)
	}
	return onColumn(column, "contains("+column+", "+quoted+")", func(v *segfile.Vector, i int) bool { return strings.Contains(v.Text(i), begin) })
}
