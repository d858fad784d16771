// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/segfile"
)

// Contents is a segment's sidecar, prepared for queries. It is immutable, but that it learns where the columns of the segment's file are.
type Contents struct {
	*segfile.Catalogue
	sidecar    *segfile.Sidecar
	streams    []stream
	origins    [][]columns.Label // structured metadata of each origin, stream labels included
	originHas  map[string]bool   // names in origins
	attributes []attribute
	chunks     atomic.Pointer[segfile.Chunks]
}

// places says where the columns are. The footer is read once.
func (c *Contents) places(file io.ReaderAt, size int64) (*segfile.Chunks, error) {
	if known := c.chunks.Load(); known != nil {
		return known, nil
	}
	chunks, err := segfile.ReadChunks(file, size)
	if err != nil {
		return nil, err
	}
	if chunks.Groups() != len(c.RowGroups) {
		return nil, fmt.Errorf("a file of %d row groups has a sidecar of %d", chunks.Groups(), len(c.RowGroups))
	}
	c.chunks.Store(chunks)
	return chunks, nil
}

type stream struct {
	segfile.StreamEntry
	labels labels.Labels
	text   string
	hash   uint64
}

// attribute is an attribute entry with the name, or the beginning of the names, that LogQL knows it by.
type attribute struct {
	segfile.AttributeEntry
	name   string
	prefix bool // it is a map, whose entries have names that begin so
}

// ParseContents reads a sidecar.
func ParseContents(b []byte) (*Contents, error) {
	sidecar, err := segfile.OpenSidecar(b)
	if err != nil {
		return nil, err
	}
	c := &Contents{Catalogue: sidecar.Catalogue(), sidecar: sidecar, originHas: map[string]bool{}}
	for _, entry := range c.Streams {
		ls := labelsOf(entry.Labels)
		c.streams = append(c.streams, stream{StreamEntry: entry, labels: ls, text: ls.String(), hash: labels.StableHash(ls)})
	}
	for _, origin := range c.Origins {
		metadata := columns.NewMetadata(origin, nil).Append(nil, &columns.LogRow{})
		for _, l := range metadata {
			c.originHas[l.Name] = true
		}
		c.origins = append(c.origins, metadata)
	}
	for _, entry := range c.Attributes {
		a := attribute{AttributeEntry: entry, name: columns.LogQLName(entry.Name)}
		if entry.Kind == columns.KindMap {
			// The name is translated once more with a key behind it, so an underscore at its end may vanish.
			a.name, a.prefix = strings.TrimRight(a.name, "_"), true
		}
		c.attributes = append(c.attributes, a)
	}
	return c, nil
}

// mayShow reports whether the attribute may be what LogQL calls name.
func (a *attribute) mayShow(name string) bool {
	if a.prefix {
		return strings.HasPrefix(name, a.name)
	}
	return a.name == name
}

func labelsOf(ls []columns.Label) labels.Labels {
	b := labels.NewScratchBuilder(len(ls))
	for _, l := range ls {
		b.Add(l.Name, l.Value)
	}
	b.Sort()
	return b.Labels()
}
