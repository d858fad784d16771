// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"encoding/base32"
	"fmt"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// kindLetters tag kinds of value in column names and in the column `attributes`.
const kindLetters = "sidbyam"

var lowerHex = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// ColumnName returns the Parquet column of an attribute that has one of its own. Column names ignore case in DuckDB, so the name is
// encoded in letters and digits of one case.
func ColumnName(name string, kind columns.ValueKind) string {
	return "a_" + lowerHex.EncodeToString([]byte(name)) + "_" + kindLetters[kind:kind+1]
}

// ParseColumnName is the inverse of ColumnName.
func ParseColumnName(column string) (name string, kind columns.ValueKind, err error) {
	encoded, ok := strings.CutPrefix(column, "a_")
	at := len(encoded) - 2
	if !ok || at < 0 || encoded[at] != '_' {
		return "", 0, fmt.Errorf("column %q is not an attribute's", column)
	}
	letter := strings.IndexByte(kindLetters, encoded[at+1])
	raw, err := lowerHex.DecodeString(encoded[:at])
	if err != nil || letter < 0 {
		return "", 0, fmt.Errorf("column %q is not an attribute's", column)
	}
	return string(raw), columns.ValueKind(letter), nil
}
