// SPDX-License-Identifier: AGPL-3.0-only

package promhttp

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"net/http"
	"slices"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

const (
	// maxReadRequest bounds a remote read request, decompressed.
	maxReadRequest = 32 << 20
	// chunkSamples is how many samples a streamed chunk has, as Prometheus' have.
	chunkSamples = 120
	// frameBytes is about how large a streamed frame becomes.
	frameBytes = 1 << 20
)

// read answers remote read: whole, or streamed as XOR chunks for who accepts that. See the remote read specification of Prometheus.
func (a *API) read(w http.ResponseWriter, r *http.Request) {
	request, err := readRequest(r.Body)
	if err != nil {
		writeError(w, err)
		return
	}
	accepted := request.AcceptedResponseTypes
	if at := slices.IndexFunc(accepted, answerable); at >= 0 && accepted[at] == prompb.ReadRequest_STREAMED_XOR_CHUNKS {
		a.readChunks(w, r, request)
		return
	}
	a.readSamples(w, r, request)
}

func answerable(t prompb.ReadRequest_ResponseType) bool {
	return t == prompb.ReadRequest_STREAMED_XOR_CHUNKS || t == prompb.ReadRequest_SAMPLES
}

func readRequest(body io.Reader) (*prompb.ReadRequest, error) {
	compressed, err := io.ReadAll(io.LimitReader(body, maxReadRequest+1))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	size, err := snappy.DecodedLen(compressed)
	if err != nil || size > maxReadRequest || len(compressed) > maxReadRequest {
		return nil, fault.New(fault.Invalid, "a remote read request is a snappy block of at most %d bytes", maxReadRequest)
	}
	raw, err := snappy.Decode(nil, compressed)
	if err != nil {
		return nil, fault.New(fault.Invalid, "remote read request: %w", err)
	}
	var request prompb.ReadRequest
	if err := request.Unmarshal(raw); err != nil {
		return nil, fault.New(fault.Invalid, "remote read request: %w", err)
	}
	return &request, nil
}

// each calls f with the series of one query of a request.
func (a *API) each(ctx context.Context, q *prompb.Query, f func(query.RawSeries) error) error {
	asked := query.SamplesRequest{Start: q.StartTimestampMs, End: q.EndTimestampMs}
	for _, m := range q.Matchers {
		matcher, err := matcherOf(m)
		if err != nil {
			return err
		}
		asked.Matchers = append(asked.Matchers, matcher)
	}
	_, err := a.frontend.ReadSamples(ctx, asked, f)
	return err
}

func matcherOf(m *prompb.LabelMatcher) (*labels.Matcher, error) {
	types := map[prompb.LabelMatcher_Type]labels.MatchType{
		prompb.LabelMatcher_EQ: labels.MatchEqual, prompb.LabelMatcher_NEQ: labels.MatchNotEqual,
		prompb.LabelMatcher_RE: labels.MatchRegexp, prompb.LabelMatcher_NRE: labels.MatchNotRegexp,
	}
	kind, known := types[m.Type]
	if !known {
		return nil, fault.New(fault.Invalid, "unknown matcher type %d", m.Type)
	}
	matcher, err := labels.NewMatcher(kind, m.Name, m.Value)
	if err != nil {
		return nil, fault.New(fault.Invalid, "matcher of %s: %w", m.Name, err)
	}
	return matcher, nil
}

func (a *API) readSamples(w http.ResponseWriter, r *http.Request, request *prompb.ReadRequest) {
	response := prompb.ReadResponse{Results: make([]*prompb.QueryResult, len(request.Queries))}
	for i, q := range request.Queries {
		result := &prompb.QueryResult{}
		response.Results[i] = result
		err := a.each(r.Context(), q, func(s query.RawSeries) error {
			result.Timeseries = append(result.Timeseries, timeseries(&s))
			return nil
		})
		if err != nil {
			writeError(w, err)
			return
		}
	}
	raw, err := response.Marshal()
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Header().Set("Content-Encoding", "snappy")
	_, _ = w.Write(snappy.Encode(nil, raw)) // a client that went away reads nothing
}

func timeseries(s *query.RawSeries) *prompb.TimeSeries {
	out := &prompb.TimeSeries{Labels: prompb.FromLabels(s.Labels, nil)}
	for i, t := range s.Times {
		out.Samples = append(out.Samples, prompb.Sample{Timestamp: t, Value: s.Values[i]})
	}
	for i, t := range s.HistogramTimes {
		out.Histograms = append(out.Histograms, prompb.FromFloatHistogram(t, s.Histograms[i]))
	}
	return out
}

// readChunks streams frames of one series each, or a part of one.
func (a *API) readChunks(w http.ResponseWriter, r *http.Request, request *prompb.ReadRequest) {
	stream := &frames{to: w}
	for i, q := range request.Queries {
		err := a.each(r.Context(), q, func(s query.RawSeries) error {
			chunks, err := chunksOf(&s)
			if err != nil {
				return err
			}
			return stream.series(int64(i), s.Labels, chunks)
		})
		switch {
		case err == nil:
		case !stream.begun:
			writeError(w, err)
			return
		default:
			// The status is sent: only a broken connection tells the client that something is missing.
			panic(http.ErrAbortHandler)
		}
	}
	stream.begin()
}

// frames writes the framing of streamed remote read: length as a varint, CRC-32 (Castagnoli) in big endian, message.
type frames struct {
	to    http.ResponseWriter
	begun bool
}

func (f *frames) begin() {
	if f.begun {
		return
	}
	f.begun = true
	f.to.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
	f.to.WriteHeader(http.StatusOK)
}

func (f *frames) series(number int64, ls labels.Labels, chunks []prompb.Chunk) error {
	for len(chunks) > 0 {
		n, size := 0, 0
		for n < len(chunks) && (n == 0 || size+len(chunks[n].Data) <= frameBytes) {
			size += len(chunks[n].Data)
			n++
		}
		message := prompb.ChunkedReadResponse{
			QueryIndex: number, ChunkedSeries: []*prompb.ChunkedSeries{{Labels: prompb.FromLabels(ls, nil), Chunks: chunks[:n]}},
		}
		if err := f.frame(&message); err != nil {
			return err
		}
		chunks = chunks[n:]
	}
	return nil
}

func (f *frames) frame(message *prompb.ChunkedReadResponse) error {
	raw, err := message.Marshal()
	if err != nil {
		return err
	}
	f.begin()
	head := binary.AppendUvarint(nil, uint64(len(raw)))
	head = binary.BigEndian.AppendUint32(head, crc32.Checksum(raw, crc32.MakeTable(crc32.Castagnoli)))
	for _, part := range [][]byte{head, raw} {
		if _, err := f.to.Write(part); err != nil {
			return fault.Wrap(fault.Canceled, err)
		}
	}
	_ = http.NewResponseController(f.to).Flush() // it is sent later then
	return nil
}

// chunksOf encodes samples as Prometheus' chunks, floats before histograms.
func chunksOf(s *query.RawSeries) ([]prompb.Chunk, error) {
	var out []prompb.Chunk
	for from := 0; from < len(s.Times); from += chunkSamples {
		to := min(from+chunkSamples, len(s.Times))
		chunk := chunkenc.NewXORChunk()
		appender, err := chunk.Appender()
		if err != nil {
			return nil, err
		}
		for i := from; i < to; i++ {
			appender.Append(0, s.Times[i], s.Values[i])
		}
		out = append(out, chunkOf(prompb.Chunk_XOR, s.Times[from], s.Times[to-1], chunk.Bytes()))
	}
	histograms, err := histogramChunks(s.HistogramTimes, s.Histograms)
	return append(out, histograms...), err
}

// histogramChunks begins a new chunk whenever the one before does not take the next histogram as it is.
func histogramChunks(times []int64, histograms []*histogram.FloatHistogram) ([]prompb.Chunk, error) {
	var out []prompb.Chunk
	var chunk *chunkenc.FloatHistogramChunk
	var appender chunkenc.Appender
	first, last := int64(0), int64(0)
	end := func() {
		if chunk != nil {
			out = append(out, chunkOf(prompb.Chunk_FLOAT_HISTOGRAM, first, last, chunk.Bytes()))
			chunk = nil
		}
	}
	for i, h := range histograms {
		if chunk != nil && chunk.NumSamples() < chunkSamples {
			if next, _, _, err := appender.AppendFloatHistogram(nil, 0, times[i], h.Copy(), true); err == nil && next == nil {
				last = times[i]
				continue
			}
		}
		end()
		chunk = chunkenc.NewFloatHistogramChunk()
		fresh, err := chunk.Appender()
		if err != nil {
			return nil, err
		}
		if _, _, appender, err = fresh.AppendFloatHistogram(nil, 0, times[i], h.Copy(), true); err != nil {
			return nil, err
		}
		first, last = times[i], times[i]
	}
	end()
	return out, nil
}

func chunkOf(kind prompb.Chunk_Encoding, first, last int64, data []byte) prompb.Chunk {
	return prompb.Chunk{Type: kind, MinTimeMs: first, MaxTimeMs: last, Data: data}
}
