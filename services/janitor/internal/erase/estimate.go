// SPDX-License-Identifier: AGPL-3.0-only

package erase

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/pkg/selector"
)

const (
	// maxOpened is how many segments' catalogues are read for an estimate.
	maxOpened = 500
	// parallel is how many requests to the bucket a delete has under way at once.
	parallel = 8
	// shortest is the range that is not halved any more when it holds too many segments for one answer.
	shortest = time.Hour
)

// estimate counts the segments that a delete may touch; where they are few it looks which have a stream or series that the selector wants.
func (e *Eraser) estimate(ctx context.Context, d lake.Delete) (Planned, error) {
	var p Planned
	var opened []lake.Segment
	err := e.eachSegment(ctx, d.Organization, d.Signal, d.Start, d.End, func(s lake.Segment) {
		p.Segments++
		p.Bytes += s.Bytes + s.SidecarBytes
		if p.Segments <= maxOpened {
			opened = append(opened, s)
		}
	})
	if err != nil || p.Segments > maxOpened {
		return p, err
	}
	return e.countStreams(ctx, d, opened)
}

// eachSegment gives every live segment that may hold rows of a range, once, however many there are.
func (e *Eraser) eachSegment(ctx context.Context, org lake.Organization, signal lake.Signal, start, end time.Time, each func(lake.Segment)) error {
	answer, err := e.deps.Index.Lookup(ctx, index.Query{Organization: org, Signal: signal, Start: start, End: end})
	if errors.Is(err, fault.Exhausted) && end.Sub(start) > shortest {
		middle := start.Add(end.Sub(start) / 2)
		if err := e.eachSegment(ctx, org, signal, start, middle, each); err != nil {
			return err
		}
		// One that reaches over the middle was in the first half.
		return e.eachSegment(ctx, org, signal, middle, end, func(s lake.Segment) {
			if !s.FirstTime.Before(middle) {
				each(s)
			}
		})
	}
	if err != nil {
		return err
	}
	for _, s := range answer.Segments {
		each(s)
	}
	return nil
}

func (e *Eraser) countStreams(ctx context.Context, d lake.Delete, segments []lake.Segment) (Planned, error) {
	find, err := finderOf(d)
	if err != nil {
		return Planned{}, err
	}
	p := Planned{Counted: true}
	streams := map[string]bool{}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, s := range segments {
		group.Go(func() error {
			sidecar, err := e.sidecar(ctx, s)
			if err != nil {
				return err
			}
			found, err := find(sidecar)
			if err != nil || len(found) == 0 {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			p.Segments++
			p.Bytes += s.Bytes + s.SidecarBytes
			for _, stream := range found {
				streams[stream] = true
			}
			return nil
		})
	}
	err = group.Wait()
	p.Streams = int64(len(streams))
	return p, err
}

func (e *Eraser) sidecar(ctx context.Context, s lake.Segment) ([]byte, error) {
	bucket, err := e.deps.Objects.Bucket(ctx, s.Bucket)
	if err != nil {
		return nil, err
	}
	body, _, err := bucket.Get(ctx, lake.SidecarKey(s.Key), "")
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(body)
	return content, errors.Join(err, body.Close())
}

// finder names the streams, or the series of metrics, of a segment that a selector's matchers let through, by its sidecar.
type finder func(sidecar []byte) ([]string, error)

// finderOf reads the selector of a delete, whose language is that of its signal.
func finderOf(d lake.Delete) (finder, error) {
	if d.Signal == lake.SignalMetrics {
		wanted, err := selector.ParseSeries(d.Selector)
		if err != nil {
			return nil, err
		}
		start, end := d.Start.UnixNano(), d.End.UnixNano()
		return func(sidecar []byte) ([]string, error) { return seriesOf(sidecar, wanted, start, end) }, nil
	}
	wanted, err := selector.Parse(d.Selector)
	if err != nil {
		return nil, err
	}
	return func(sidecar []byte) ([]string, error) { return streamsOf(sidecar, wanted) }, nil
}

func seriesOf(sidecar []byte, wanted *selector.SeriesSelector, start, end int64) ([]string, error) {
	catalogue, err := metricfile.ReadCatalogue(sidecar)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, i := range catalogue.Select(wanted.Matchers(), lake.Shard{}) {
		if e, s := catalogue.Entry(i), catalogue.Series(i); e.First < end && e.Last >= start && wanted.Matches(s) {
			found = append(found, s.Labels.String())
		}
	}
	return found, nil
}

func streamsOf(content []byte, wanted *selector.Selector) ([]string, error) {
	sidecar, err := segfile.OpenSidecar(content)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, stream := range sidecar.Catalogue().Streams {
		if wanted.Stream(stream.Labels) {
			found = append(found, nameOf(stream.Labels))
		}
	}
	return found, nil
}

func nameOf(labels []columns.Label) string {
	var name []byte
	for _, l := range labels {
		name = append(append(append(append(name, l.Name...), 0), l.Value...), 0)
	}
	return string(name)
}
