// SPDX-License-Identifier: AGPL-3.0-only

package objects_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/local/s3/s3test"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

func TestContentEncodingIsNotUndone(t *testing.T) {
	t.Parallel()
	b := s3test.New(t)
	var stored bytes.Buffer
	w := gzip.NewWriter(&stored)
	if _, err := w.Write(bytes.Repeat([]byte(`{"body":"hello"}`), 1000)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := b.Server.Client().PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String(b.Name()), Key: aws.String("k.json.gz"), Body: bytes.NewReader(stored.Bytes()),
		ContentEncoding: aws.String("gzip"), ContentType: aws.String("application/json"),
	})
	if err != nil {
		t.Fatal(err)
	}
	body, a, err := b.Get(t.Context(), "k.json.gz", "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stored.Bytes(), got); diff != "" {
		t.Error(diff)
	}
	head, err := b.Head(t.Context(), "k.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]objects.Attributes{"get": a, "head": head} {
		if a.ContentEncoding != "gzip" || a.ContentType != "application/json" || a.Size != int64(stored.Len()) {
			t.Errorf("%s: %+v", name, a)
		}
	}
	ranged, err := b.GetRange(t.Context(), "k.json.gz", 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	magic, err := io.ReadAll(ranged)
	if err = errors.Join(err, ranged.Close()); err != nil || !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		t.Errorf("range: got %x, %v", magic, err)
	}
}

func TestFailedUploadsLeaveNothing(t *testing.T) {
	t.Parallel()
	b := s3test.New(t)
	const size = 80 << 20
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body := &watchedReader{Reader: bytes.NewReader(make([]byte, size)), at: 40 << 20, do: cancel}
	if _, err := b.Put(ctx, "big", body, size); !errors.Is(err, fault.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	uploads, err := b.Server.Client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String(b.Name())})
	if err != nil {
		t.Fatal(err)
	}
	if len(uploads.Uploads) != 0 {
		t.Errorf("%d uploads are left", len(uploads.Uploads))
	}
	if _, err := b.Head(t.Context(), "big"); !errors.Is(err, fault.NotFound) {
		t.Errorf("head: got %v, want not found", err)
	}
}

// watchedReader does something when it is read at a place.
type watchedReader struct {
	*bytes.Reader
	at   int64
	do   func()
	once sync.Once
}

func (r *watchedReader) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= r.at {
		r.once.Do(r.do)
	}
	return r.Reader.ReadAt(p, offset)
}

func TestErrorsHaveTheirKind(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status int
		code   string
		want   fault.Kind
	}{
		{503, "SlowDown", fault.Unavailable},
		{503, "ServiceUnavailable", fault.Unavailable},
		{503, "", fault.Unavailable},
		{500, "InternalError", fault.Unavailable},
		{502, "", fault.Unavailable},
		{429, "TooManyRequests", fault.Unavailable},
		{400, "RequestTimeout", fault.Unavailable},
		{403, "RequestTimeTooSkewed", fault.Unavailable},
		{409, "OperationAborted", fault.Unavailable},
		{404, "NoSuchKey", fault.NotFound},
		{404, "NoSuchBucket", fault.NotFound},
		{403, "AccessDenied", fault.Denied},
		{403, "SignatureDoesNotMatch", fault.Denied},
		{403, "InvalidAccessKeyId", fault.Denied},
		{401, "", fault.Denied},
		{412, "PreconditionFailed", fault.Conflict},
		{416, "InvalidRange", fault.Invalid},
		{400, "KeyTooLongError", fault.Invalid},
		{501, "NotImplemented", fault.Unsupported},
	} {
		t.Run(fmt.Sprint(test.status, " ", test.code), func(t *testing.T) {
			t.Parallel()
			b := pretend(t, "", func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(test.status)
				if r.Method != http.MethodHead && test.code != "" {
					_, _ = fmt.Fprintf(w, `<Error><Code>%s</Code><Message>no</Message></Error>`, test.code)
				}
			})
			_, _, err := b.Get(t.Context(), "k", "")
			if got := fault.KindOf(err); got != test.want {
				t.Errorf("got %s (%v), want %s", got, err, test.want)
			}
			if test.code == "" || test.status == 404 {
				_, err = b.Head(t.Context(), "k")
				if got := fault.KindOf(err); got != test.want {
					t.Errorf("head: got %s (%v), want %s", got, err, test.want)
				}
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(http.NotFoundHandler())
		server.Close()
		b := open(t, objects.Location{Name: "bucket", Endpoint: server.URL, AccessKey: "a", SecretKey: "b"})
		if _, err := b.Head(t.Context(), "k"); !errors.Is(err, fault.Unavailable) {
			t.Errorf("got %v, want unavailable", err)
		}
	})
	t.Run("a body that ends too soon", func(t *testing.T) {
		t.Parallel()
		b := pretend(t, "", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "short")
		})
		body, _, err := b.Get(t.Context(), "k", "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if string(got) != "short" || !errors.Is(err, fault.Unavailable) {
			t.Errorf("got %q, %v; want unavailable", got, err)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestServersWithoutBatchDelete(t *testing.T) {
	t.Parallel()
	for _, provider := range []string{objects.ProviderAWS, objects.ProviderGCP} {
		t.Run(provider, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var deleted []string
			b := pretend(t, provider, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					w.WriteHeader(http.StatusNotImplemented)
					_, _ = io.WriteString(w, `<Error><Code>NotImplemented</Code></Error>`)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				deleted = append(deleted, r.URL.Path)
				w.WriteHeader(http.StatusNoContent)
			})
			if err := b.Delete(t.Context(), "a", "b", "c"); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"/bucket/a", "/bucket/b", "/bucket/c"}, slices.Sorted(slices.Values(deleted))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestGoogle(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	got := map[string]string{}
	b := pretend(t, objects.ProviderGCP, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		signed := r.Header.Get("Authorization")
		got[r.Method+" accept"] = r.Header.Get("Accept-Encoding")
		got[r.Method+" accept is signed"] = fmt.Sprint(strings.Contains(signed, "accept-encoding"))
		got[r.Method+" region"] = strings.Split(signed, "/")[2]
		got[r.Method+" generation"] = r.Header.Get("x-goog-if-generation-match")
		got[r.Method+" generation is signed"] = fmt.Sprint(strings.Contains(signed, "x-goog-if-generation-match"))
		got[r.Method+" none match"] = r.Header.Get("If-None-Match")
		w.Header().Set("ETag", `"tag"`)
	})
	body, _, err := b.Get(t.Context(), "k", "tag")
	if err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.PutIfAbsent(t.Context(), "k", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		// Without it GCS would decompress; it changes the header on its way, so it must not be signed.
		"GET accept": "gzip", "GET accept is signed": "false", "GET region": "auto",
		"GET generation": "", "GET generation is signed": "false", "GET none match": "",
		"PUT accept": "gzip", "PUT accept is signed": "false", "PUT region": "auto",
		"PUT generation": "0", "PUT generation is signed": "true", "PUT none match": "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestKeysComeURLEncodedWhereTheServerCan(t *testing.T) {
	t.Parallel()
	b := pretend(t, "", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("encoding-type") != "url" {
			t.Errorf("asked for %s", r.URL)
		}
		_, _ = io.WriteString(w, `<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>a%01b+c%2Bd%2Fe</Key><Size>3</Size><ETag>"x"</ETag></Contents></ListBucketResult>`)
	})
	for a, err := range b.List(t.Context(), "", "") {
		if err != nil || a.Key != "a\x01b c+d/e" || a.Size != 3 || a.Tag != "x" {
			t.Errorf("got %+v, %v", a, err)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for want, l := range map[string]objects.Location{
		"has no name":                {},
		"unknown provider":           {Name: "b", Provider: "azure"},
		"access key and secret key":  {Name: "b", AccessKey: "a"},
		"want http://host":           {Name: "b", Endpoint: "localhost:9000"},
		"no directory is given":      {Name: "b", Provider: objects.ProviderFile},
		"want http://host or https:": {Name: "b", Endpoint: "ftp://x"},
	} {
		_, err := objects.Open(t.Context(), l)
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", l, err, want)
		}
	}
}

// pretend opens a bucket of a server that answers as the handler does.
func pretend(t *testing.T, provider string, handler http.HandlerFunc) objects.Bucket {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return open(t, objects.Location{Provider: provider, Name: "bucket", Endpoint: server.URL, AccessKey: "a", SecretKey: "b"})
}

func open(t *testing.T, l objects.Location) objects.Bucket {
	t.Helper()
	b, err := objects.Open(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
