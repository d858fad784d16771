// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

// openFile is a segment's file, opened when a point of it is first needed, and then for all goroutines of a scan.
type openFile struct {
	// needed are bytes that chosen rows have, so far as they are known when the file is opened.
	needed atomic.Int64

	once  sync.Once
	bytes io.ReaderAt
	close []func()
	err   error
}

// reader returns a new reader of a segment.
func (s *Scan) reader(segment int, c *metricfile.Catalogue) (*metricfile.Reader, error) {
	o, object := &s.open[segment], s.segments[segment].File
	o.once.Do(func() { o.err = s.fetch(o, object) })
	if o.err != nil {
		return nil, o.err
	}
	r, err := metricfile.Open(o.bytes, object.Bytes, c)
	if err != nil {
		return nil, fmt.Errorf("open segment %s: %w", object.Key, err)
	}
	return r, nil
}

// fetch opens a file: all of it, or of a large one of which little is needed as it is read.
func (s *Scan) fetch(o *openFile, object cache.Object) error {
	s.Statistics.Read.Add(1)
	needed := o.needed.Load()
	if object.Bytes >= s.scanner.options.RangedFrom && needed*4 <= object.Bytes && !s.scanner.files.Has(object) {
		s.Statistics.BytesRead.Add(needed)
		partial, err := s.scanner.files.Partial(s.life, object, &s.Statistics.Cache)
		if err != nil {
			return err
		}
		o.bytes, o.close = partial, append(o.close, partial.Release)
		return nil
	}
	s.Statistics.BytesRead.Add(object.Bytes)
	pinned, err := s.scanner.files.File(s.life, object, &s.Statistics.Cache)
	if err != nil {
		return err
	}
	o.close = append(o.close, pinned.Release)
	file, err := os.Open(pinned.Path)
	if err != nil {
		return fmt.Errorf("open cached %s: %w", object.Key, err)
	}
	o.bytes, o.close = file, append(o.close, func() { _ = file.Close() })
	return nil
}
