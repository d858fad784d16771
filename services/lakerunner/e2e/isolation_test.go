// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

// TestTwoOrganizations lets each organization knock at every door, and see its own rows alone.
func TestTwoOrganizations(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{organizations: []string{"red", "blue"}})
	end := lately()
	start := end.Add(-time.Hour)
	made := map[string][]sample.Object{
		"red":  makeSample(t, sample.Options{Seed: 11, Organization: "red", End: end, Lines: 300, Objects: 2}),
		"blue": makeSample(t, sample.Options{Seed: 12, Organization: "blue", End: end, Lines: 500, Objects: 3}),
	}
	for organization, objects := range made {
		for _, o := range objects {
			l.put(o.Key, o.Body)
		}
		l.awaitReceipts(organization, "otel-raw/"+organization, len(objects))
	}

	for organization, objects := range made {
		t.Run(organization+" sees all of its own rows and no others", func(t *testing.T) {
			t.Parallel()
			if got, want := hashOf(l.lines(organization, everything, start, end)), hashOfSample(objects...); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if got, want := l.count(organization, "sum(count_over_time("+everything+"[1h]))", end), int64(sample.Rows(objects)); got != want {
				t.Errorf("counted %d, want %d", got, want)
			}
			for _, r := range l.receipts(organization, "") {
				if r.GetOrganization() != organization {
					t.Errorf("was shown the receipt of %s", r.GetOrganization())
				}
			}
		})
	}

	foreign := made["blue"][0].Key
	span := url.Values{"start": {nanos(start)}, "end": {nanos(end)}}

	t.Run("the Loki API keeps them apart, at each endpoint", func(t *testing.T) {
		t.Parallel()
		pod := podOf(t, l, "blue", start, end)
		for _, path := range []string{"query_range", "series", "labels", "label/k8s_pod_name/values", "index/volume", "detected_fields", "patterns", "detected_field/k8s_pod_name/values", "index/volume_range", "detected_labels"} {
			params := url.Values{"query": {everything}, "match[]": {everything}, "limit": {"5000"}, "start": span["start"], "end": span["end"]}
			if status, body := l.fetch(l.keys["red"], "/loki/api/v1/"+path, params); strings.Contains(string(body), pod) {
				t.Errorf("%s (%d) told red of %s", path, status, pod)
			}
		}
	})

	t.Run("the REST API keeps them apart", func(t *testing.T) {
		t.Parallel()
		pod := podOf(t, l, "blue", start, end)
		params := url.Values{"start": {start.Format(time.RFC3339)}, "end": {end.Format(time.RFC3339)}, "page_size": {"1000"}}
		for _, path := range []string{"/api/v1/labels/k8s_pod_name/values", "/api/v1/series", "/api/v1/receipts"} {
			status, body := l.fetch(l.keys["red"], path, params)
			if status != http.StatusOK || strings.Contains(string(body), pod) || strings.Contains(string(body), "otel-raw/blue/") {
				t.Errorf("%s told red: %d: %.300s", path, status, body)
			}
			if status, body := l.fetch(l.keys["blue"], path, params); status != http.StatusOK || !strings.Contains(string(body), "blue") && !strings.Contains(string(body), pod) {
				t.Errorf("%s told blue: %d: %.300s", path, status, body)
			}
		}
	})

	t.Run("a tenant header of the user's own counts for nothing", func(t *testing.T) {
		t.Parallel()
		params := url.Values{"query": {everything}, "start": span["start"], "end": span["end"]}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.stack.HTTP+"/loki/api/v1/query_range?"+params.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Scope-OrgID", "blue")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("without a key: %s", response.Status)
		}
	})

	t.Run("no door opens without a key", func(t *testing.T) {
		t.Parallel()
		for name, call := range calls(l, foreign, start, end) {
			for what, ctx := range map[string]context.Context{"no key": t.Context(), "a made-up key": withKey(t.Context(), "lr_made-up")} {
				if err := call(ctx); status.Code(err) != codes.Unauthenticated {
					t.Errorf("%s with %s: %v", name, what, err)
				}
			}
		}
		for _, path := range []string{"/loki/api/v1/labels", "/api/v1/labels", "/api/v1/series", "/api/v1/receipts", "/api/v1/config"} {
			if code, _ := l.fetch("", path, nil); code != http.StatusUnauthorized {
				t.Errorf("%s without a key: %d", path, code)
			}
		}
	})

	t.Run("a key of one organization cannot name the other's objects or receipts", func(t *testing.T) {
		t.Parallel()
		red := l.as("red")
		object := &lakev1.Object{Bucket: l.bucket.Name(), Key: foreign}
		if _, err := l.ingestor.PreviewObject(red, &ingestorv1.PreviewObjectRequest{Object: object}); !refused(err) {
			t.Errorf("preview: %v", err)
		}
		if _, err := l.ingestor.IngestObject(red, &ingestorv1.IngestObjectRequest{Object: object}); !refused(err) {
			t.Errorf("ingest: %v", err)
		}
		if _, err := l.ingestor.ListReceipts(red, &ingestorv1.ListReceiptsRequest{Organization: "blue"}); !refused(err) {
			t.Errorf("receipts: %v", err)
		}
		id := l.receipts("blue", foreign)[0].GetReceiptId()
		if answer, err := l.ingestor.ReplayObjects(red, &ingestorv1.ReplayObjectsRequest{ReceiptIds: []string{id}}); !refused(err) && answer.GetObjects() != 0 {
			t.Errorf("replay: %v, %v", answer, err)
		}
		if own := made["red"][0].Key; !refusedAsAdmin(l, own) {
			t.Error("a query key may change the configuration")
		}
	})
}

// calls are the doors of gRPC.
func calls(l *lake, key string, start, end time.Time) map[string]func(context.Context) error {
	from, to := timestamppb.New(start), timestamppb.New(end)
	object := &lakev1.Object{Bucket: l.bucket.Name(), Key: key}
	return map[string]func(context.Context) error{
		"QueryLogs": func(ctx context.Context) error {
			stream, err := l.query.QueryLogs(ctx, &queryv1.QueryLogsRequest{Query: everything, Start: from, End: to})
			if err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		},
		"TailLogs": func(ctx context.Context) error {
			stream, err := l.query.TailLogs(ctx, &queryv1.TailLogsRequest{Query: everything, Start: from})
			if err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		},
		"QueryArrow": func(ctx context.Context) error {
			stream, err := l.query.QueryArrow(ctx, &queryv1.QueryArrowRequest{Query: everything, Start: from, End: to})
			if err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		},
		"QuerySamples": func(ctx context.Context) error {
			_, err := l.query.QuerySamples(ctx, &queryv1.QuerySamplesRequest{Query: "count_over_time(" + everything + "[1h])", End: to})
			return err
		},
		"ListLabels": func(ctx context.Context) error {
			_, err := l.query.ListLabels(ctx, &queryv1.ListLabelsRequest{Start: from, End: to})
			return err
		},
		"ListLabelValues": func(ctx context.Context) error {
			_, err := l.query.ListLabelValues(ctx, &queryv1.ListLabelValuesRequest{Label: "service_name", Start: from, End: to})
			return err
		},
		"ListSeries": func(ctx context.Context) error {
			_, err := l.query.ListSeries(ctx, &queryv1.ListSeriesRequest{Start: from, End: to})
			return err
		},
		"Explain": func(ctx context.Context) error {
			_, err := l.query.Explain(ctx, &queryv1.ExplainRequest{Query: everything, Start: from, End: to})
			return err
		},
		"ListReceipts": func(ctx context.Context) error {
			_, err := l.ingestor.ListReceipts(ctx, &ingestorv1.ListReceiptsRequest{})
			return err
		},
		"PreviewObject": func(ctx context.Context) error {
			_, err := l.ingestor.PreviewObject(ctx, &ingestorv1.PreviewObjectRequest{Object: object})
			return err
		},
		"IngestObject": func(ctx context.Context) error {
			_, err := l.ingestor.IngestObject(ctx, &ingestorv1.IngestObjectRequest{Object: object})
			return err
		},
	}
}

// refused reports an answer that tells nothing.
func refused(err error) bool {
	code := status.Code(err)
	return code == codes.PermissionDenied || code == codes.NotFound
}

func refusedAsAdmin(l *lake, document string) bool {
	return status.Code(applyConfig(l.as("red"), l, document)) == codes.PermissionDenied
}

// podOf returns a pod's name that only one organization has.
func podOf(t *testing.T, l *lake, organization string, start, end time.Time) string {
	t.Helper()
	answer, err := l.query.ListLabelValues(l.as(organization), &queryv1.ListLabelValuesRequest{Label: "k8s_pod_name", Start: timestamppb.New(start), End: timestamppb.New(end)})
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.GetValues()) == 0 {
		t.Fatal("no pods")
	}
	return answer.GetValues()[0]
}

func nanos(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }
