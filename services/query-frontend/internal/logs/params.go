// SPDX-License-Identifier: AGPL-3.0-only

package logs

import (
	"time"

	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/grafana/loki/v3/pkg/storage/chunk/cache/resultscache"
)

// params shows a request to Loki's engine. Loki's own would parse the query again, which costs more than many a query does.
type params struct{ request Request }

var _ logql.Params = params{}

// QueryString returns the query as it was asked.
func (p params) QueryString() string { return p.request.Query.Text }

// Start returns the first time, or the one of an instant query.
func (p params) Start() time.Time { return p.request.Start }

// End returns the last time.
func (p params) End() time.Time { return p.request.End }

// Step returns the step; zero: an instant query.
func (p params) Step() time.Duration { return p.request.Step }

// Interval returns the least distance of log lines.
func (p params) Interval() time.Duration { return p.request.Interval }

// Limit returns the most log lines; zero: all.
func (p params) Limit() uint32 { return uint32(max(0, p.request.Limit)) }

// Direction returns the order of log lines.
func (p params) Direction() logproto.Direction { return p.request.Direction }

// Shards returns none: rows are parted by segments.
func (p params) Shards() []string { return nil }

// GetExpression returns the query with its leaves marked.
func (p params) GetExpression() syntax.Expr { return p.request.Query.Expr }

// GetStoreChunks returns none.
func (p params) GetStoreChunks() *logproto.ChunkRefGroup { return nil }

// CachingOptions returns those of no cache.
func (p params) CachingOptions() resultscache.CachingOptions { return resultscache.CachingOptions{} }
