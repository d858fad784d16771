// SPDX-License-Identifier: AGPL-3.0-only

package lokihttp

import (
	"net/http"

	"github.com/grafana/loki/v3/pkg/loghttp"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"github.com/grafana/loki/v3/pkg/logqlmodel/stats"
	"github.com/grafana/loki/v3/pkg/util/httpreq"
	"github.com/grafana/loki/v3/pkg/util/marshal"

	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

func (a *API) instant(w http.ResponseWriter, r *http.Request) error {
	asked, err := loghttp.ParseInstantQuery(r)
	if err != nil {
		return invalid(err)
	}
	return a.evaluate(w, r, query.Request{
		Query: asked.Query, Start: asked.Ts, End: asked.Ts, Limit: int(asked.Limit), Direction: asked.Direction,
		Refusal: logqlmodel.ErrUnsupportedSyntaxForInstantQuery,
	})
}

func (a *API) rangeQuery(w http.ResponseWriter, r *http.Request) error {
	asked, err := loghttp.ParseRangeQuery(r)
	if err != nil {
		return invalid(err)
	}
	return a.evaluate(w, r, query.Request{
		Query: asked.Query, Start: asked.Start, End: asked.End, Step: asked.Step, Interval: asked.Interval,
		Limit: int(asked.Limit), Direction: asked.Direction,
	})
}

func (a *API) evaluate(w http.ResponseWriter, r *http.Request, req query.Request) error {
	answer, err := a.frontend.Evaluate(r.Context(), req)
	if err != nil {
		return err
	}
	return write(w, r, answer)
}

func write(w http.ResponseWriter, r *http.Request, answer query.Answer) error {
	describe(w, answer.Statistics)
	jsonContent(w)
	// What cannot be written has no reader any more.
	_ = marshal.WriteQueryResponseJSON(answer.Data, answer.Warnings, statsOf(answer.Statistics), w, httpreq.ExtractEncodingFlags(r))
	return nil
}

// statsOf says our figures in Loki's words: a segment is a chunk.
func statsOf(s query.Statistics) stats.Result {
	seconds := s.Duration.Seconds()
	perSecond := func(n int64) int64 {
		if seconds <= 0 {
			return 0
		}
		return int64(float64(n) / seconds)
	}
	return stats.Result{
		Summary: stats.Summary{
			BytesProcessedPerSecond: perSecond(s.LineBytes),
			LinesProcessedPerSecond: perSecond(s.RowsScanned),
			TotalBytesProcessed:     s.LineBytes,
			TotalLinesProcessed:     s.RowsScanned,
			ExecTime:                seconds,
			TotalEntriesReturned:    s.Returned,
			Shards:                  s.Segments,
		},
		Querier: stats.Querier{Store: stats.Store{
			TotalChunksRef:        s.Considered,
			TotalChunksDownloaded: s.SegmentsRead,
			Chunk: stats.Chunk{
				CompressedBytes:   s.BytesRead,
				DecompressedBytes: s.LineBytes,
				DecompressedLines: s.RowsScanned,
			},
		}},
		Caches: stats.Caches{Chunk: stats.Cache{
			EntriesFound:     int32(s.CacheHits),
			EntriesRequested: int32(s.CacheHits + s.CacheMisses),
			BytesReceived:    s.BytesRead - s.BytesFetched,
		}},
	}
}
