// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

// openFile is a segment's file, opened when a point of it is first needed, and then for all goroutines of a scan.
type openFile struct {
	once   sync.Once
	pinned *cache.Pinned
	file   *os.File
	err    error
}

func (o *openFile) close() {
	if o.file != nil {
		_ = o.file.Close()
	}
	if o.pinned != nil {
		o.pinned.Release()
	}
}

// reader returns a new reader of a segment.
func (s *Scan) reader(ctx context.Context, segment int, c *metricfile.Catalogue) (*metricfile.Reader, error) {
	o, object := &s.open[segment], s.segments[segment].File
	o.once.Do(func() { o.err = s.fetch(ctx, o, object) })
	if o.err != nil {
		return nil, o.err
	}
	r, err := metricfile.Open(o.file, object.Bytes, c)
	if err != nil {
		return nil, fmt.Errorf("open segment %s: %w", object.Key, err)
	}
	return r, nil
}

func (s *Scan) fetch(ctx context.Context, o *openFile, object cache.Object) error {
	pinned, err := s.scanner.files.File(ctx, object, &s.Statistics.Cache)
	if err != nil {
		return err
	}
	o.pinned = pinned
	s.Statistics.Read.Add(1)
	s.Statistics.BytesRead.Add(object.Bytes)
	o.file, err = os.Open(pinned.Path)
	if err != nil {
		return fmt.Errorf("open cached %s: %w", object.Key, err)
	}
	return nil
}
