// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import "github.com/klauspost/compress/zstd"

type filterBuilder struct{ groups int }

func (f *filterBuilder) addGroup(bodies []string, traceIDs []byte) { f.groups++ }

func (f *filterBuilder) marshal(dst []byte, z *zstd.Encoder) []byte { return dst }

type filter struct{ groups int }

func openFilter(b []byte, groups int) (*filter, error) { return &filter{groups: groups}, nil }

func (f *filter) candidates(needles []string, traceID *[16]byte) RowGroups {
	return allRowGroups(f.groups)
}
