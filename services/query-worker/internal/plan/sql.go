// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"strings"
	"unicode/utf8"
)

// Quote makes a SQL string literal. False for text that DuckDB does not take: what is not UTF-8, and NUL.
func Quote(s string) (string, bool) {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return "", false
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'", true
}
