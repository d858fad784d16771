// SPDX-License-Identifier: AGPL-3.0-only

package lokihttp

import (
	"net/http"
	"slices"

	"github.com/grafana/loki/v3/pkg/loghttp"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/storage/stores/index/seriesvolume"
	indexstats "github.com/grafana/loki/v3/pkg/storage/stores/index/stats"
	"github.com/grafana/loki/v3/pkg/util/marshal"

	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

// streamsOf lists the streams of a request with start, end, since and query.
func (a *API) streamsOf(r *http.Request) (query.Streams, error) {
	asked, err := loghttp.ParseLabelQuery(r)
	if err != nil {
		return query.Streams{}, invalid(err)
	}
	return a.frontend.Streams(r.Context(), []string{asked.Query}, *asked.Start, *asked.End)
}

func (a *API) labels(w http.ResponseWriter, r *http.Request) error {
	streams, err := a.streamsOf(r)
	if err != nil {
		return err
	}
	describe(w, streams.Statistics)
	jsonContent(w)
	_ = marshal.WriteLabelResponseJSON(streams.Names(), w)
	return nil
}

func (a *API) labelValues(w http.ResponseWriter, r *http.Request) error {
	streams, err := a.streamsOf(r)
	if err != nil {
		return err
	}
	describe(w, streams.Statistics)
	jsonContent(w)
	_ = marshal.WriteLabelResponseJSON(streams.Values(r.PathValue("name")), w)
	return nil
}

func (a *API) series(w http.ResponseWriter, r *http.Request) error {
	asked, err := loghttp.ParseAndValidateSeriesQuery(r)
	if err != nil {
		return invalid(err)
	}
	streams, err := a.frontend.Streams(r.Context(), asked.Groups, asked.Start, asked.End)
	if err != nil {
		return err
	}
	series := make([]logproto.SeriesIdentifier, 0, len(streams.All))
	for _, stream := range streams.All {
		series = append(series, logproto.SeriesIdentifierFromLabels(stream.Labels))
	}
	describe(w, streams.Statistics)
	jsonContent(w)
	_ = marshal.WriteSeriesResponseJSON(series, w)
	return nil
}

func (a *API) stats(w http.ResponseWriter, r *http.Request) error {
	asked, err := loghttp.ParseIndexStatsQuery(r)
	if err != nil {
		return invalid(err)
	}
	streams, err := a.frontend.Streams(r.Context(), []string{asked.Query}, asked.Start, asked.End)
	if err != nil {
		return err
	}
	out := indexstats.Stats{Streams: uint64(len(streams.All)), Chunks: uint64(streams.Segments)}
	for _, stream := range streams.All {
		out.Bytes += uint64(stream.Bytes)
		out.Entries += uint64(stream.Rows)
	}
	describe(w, streams.Statistics)
	jsonContent(w)
	_ = marshal.WriteIndexStatsResponseJSON(&out, w)
	return nil
}

func (a *API) volume(w http.ResponseWriter, r *http.Request) error {
	asked, err := loghttp.ParseVolumeInstantQuery(r)
	if err != nil {
		return invalid(err)
	}
	return a.writeVolume(w, r, query.VolumeRequest{
		Selector: asked.Query, Start: asked.Start, End: asked.End, Limit: int(asked.Limit),
		TargetLabels: asked.TargetLabels, ByLabel: asked.AggregateBy == seriesvolume.Labels,
	})
}

func (a *API) volumeRange(w http.ResponseWriter, r *http.Request) error {
	asked, err := loghttp.ParseVolumeRangeQuery(r)
	if err != nil {
		return invalid(err)
	}
	return a.writeVolume(w, r, query.VolumeRequest{
		Selector: asked.Query, Start: asked.Start, End: asked.End, Step: asked.Step, Limit: int(asked.Limit),
		TargetLabels: asked.TargetLabels, ByLabel: asked.AggregateBy == seriesvolume.Labels,
	})
}

func (a *API) writeVolume(w http.ResponseWriter, r *http.Request, req query.VolumeRequest) error {
	answer, err := a.frontend.Volume(r.Context(), req)
	if err != nil {
		return err
	}
	return write(w, r, answer)
}

func (a *API) detectedLabels(w http.ResponseWriter, r *http.Request) error {
	asked, err := loghttp.ParseDetectedLabelsQuery(r)
	if err != nil {
		return invalid(err)
	}
	streams, err := a.frontend.Streams(r.Context(), []string{asked.Query}, asked.Start, asked.End)
	if err != nil {
		return err
	}
	out := &logproto.DetectedLabelsResponse{DetectedLabels: []*logproto.DetectedLabel{}}
	for _, name := range streams.Names() {
		out.DetectedLabels = append(out.DetectedLabels, &logproto.DetectedLabel{Label: name, Cardinality: uint64(len(streams.Values(name)))})
	}
	describe(w, streams.Statistics)
	jsonContent(w)
	_ = marshal.WriteDetectedLabelsResponseJSON(out, w)
	return nil
}

func (a *API) fields(r *http.Request) ([]query.Field, query.Statistics, uint32, error) {
	asked, err := loghttp.ParseDetectedFieldsQuery(r)
	if err != nil {
		return nil, query.Statistics{}, 0, invalid(err)
	}
	limit := int(asked.Limit)
	if r.PathValue("name") != "" {
		limit = 1 << 20 // the limit is of the values of one field, which may be found late
	}
	fields, s, err := a.frontend.Fields(r.Context(), query.FieldsRequest{
		Query: asked.Query, Start: asked.Start, End: asked.End, Lines: int(asked.LineLimit), Limit: limit,
	})
	return fields, s, asked.Limit, err
}

func (a *API) detectedFields(w http.ResponseWriter, r *http.Request) error {
	fields, s, limit, err := a.fields(r)
	if err != nil {
		return err
	}
	out := &logproto.DetectedFieldsResponse{Fields: []*logproto.DetectedField{}, Limit: limit}
	for _, f := range fields {
		out.Fields = append(out.Fields, &logproto.DetectedField{
			Label: f.Name, Type: f.Type, Cardinality: uint64(len(f.Values)), Parsers: f.Parsers, JsonPath: f.JSONPath,
		})
	}
	describe(w, s)
	jsonContent(w)
	_ = marshal.WriteDetectedFieldsResponseJSON(out, w)
	return nil
}

func (a *API) detectedFieldValues(w http.ResponseWriter, r *http.Request) error {
	fields, s, limit, err := a.fields(r)
	if err != nil {
		return err
	}
	out := &logproto.DetectedFieldsResponse{Values: []string{}, Limit: limit}
	at := slices.IndexFunc(fields, func(f query.Field) bool { return f.Name == r.PathValue("name") })
	if at >= 0 {
		for _, value := range fields[at].Values[:min(len(fields[at].Values), int(limit))] {
			out.Values = append(out.Values, fields[at].Query(value))
		}
	}
	describe(w, s)
	jsonContent(w)
	_ = marshal.WriteDetectedFieldsResponseJSON(out, w)
	return nil
}
