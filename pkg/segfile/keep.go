// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"bytes"
	"slices"
)

// Keep returns a copy of the values alone, which no Read may be asked of. Any number of goroutines may use it at once.
func (v *Vector) Keep() *Vector {
	return &Vector{
		rows: v.rows, isText: v.isText, at: slices.Clone(v.at), numbers: slices.Clone(v.numbers), offsets: slices.Clone(v.offsets), data: bytes.Clone(v.data),
	}
}

// Size is how many bytes the values hold.
func (v *Vector) Size() int64 {
	const fixed = 400
	return int64(fixed + 4*len(v.at) + 8*len(v.numbers) + 4*len(v.offsets) + len(v.data))
}
