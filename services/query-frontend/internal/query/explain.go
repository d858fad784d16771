// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/plan"
)

// What a scan with cold caches is expected to take: a worker fetches a segment in a few ranged reads beside its sidecar, and
// gets through so many bytes of it a second.
const (
	requestsPerSegment = 3
	secondsPerRequest  = 0.03
	scanBytesPerSecond = 150e6
)

// Explanation says what a query would read and cost.
type Explanation struct {
	Segments     int64
	Bytes        int64
	Rows         int64
	Requests     int64
	Seconds      float64
	PriceUSD     float64
	Plan         string
	Completeness index.Completeness
}

// Explain plans a query and prices it. Nothing is read but the index.
func (f *Frontend) Explain(ctx context.Context, req Request) (Explanation, error) {
	run, err := f.begin(ctx, req)
	if err != nil {
		return Explanation{}, err
	}
	run.kind = "explain"
	defer func() { run.end(nil) }()
	e := f.price(run.found.Segments)
	e.Completeness = run.found.Completeness
	e.Plan = describe(run, req)
	return e, nil
}

// price says what reading segments costs.
func (f *Frontend) price(segments []lake.Segment) Explanation {
	var e Explanation
	snapshot := f.config.Current()
	for i := range segments {
		s := &segments[i]
		e.Segments++
		e.Bytes += s.Bytes + s.SidecarBytes
		e.Rows += s.Rows
		e.Requests += requestsPerSegment
		if profile, ok := snapshot.Profile(s.Bucket); ok {
			e.PriceUSD += requestsPerSegment * profile.Prices.Requests[objects.RequestGet] / 1000
			e.PriceUSD += float64(s.Bytes+s.SidecarBytes) / 1e9 * profile.Prices.Transfer
		}
	}
	parallel := float64(max(1, f.fan.Workers()))
	e.Seconds = math.Ceil(float64(e.Requests)/float64(f.fan.Parallel()))*secondsPerRequest + float64(e.Bytes)/scanBytesPerSecond/parallel
	return e
}

// ExplainMetrics is Explain of a PromQL query.
func (f *Frontend) ExplainMetrics(ctx context.Context, req MetricRequest) (Explanation, error) {
	r, err := f.beginMetrics(ctx, req)
	if err != nil {
		return Explanation{}, err
	}
	r.kind = "explain"
	defer func() { r.end(nil) }()
	levels, segments, err := r.session.Explain(r.plan)
	if err != nil {
		return Explanation{}, err
	}
	e := f.price(segments)
	e.Completeness = r.complete
	e.Plan = r.plan.String() + levels + fmt.Sprintf("workers: %d\n", f.fan.Workers())
	return e, nil
}

func describe(r *run, req Request) string {
	var out strings.Builder
	out.WriteString(r.plan.String())
	if r.plan.Kind == plan.KindConstant {
		return out.String()
	}
	from, to := r.plan.Span(req.Start, req.End)
	fmt.Fprintf(&out, "segments of [%s, %s): %d", from.UTC().Format("2006-01-02T15:04:05.999Z"), to.UTC().Format("2006-01-02T15:04:05.999Z"), len(r.found.Segments))
	fmt.Fprintf(&out, ", workers: %d\n", r.frontend.fan.Workers())
	return out.String()
}
