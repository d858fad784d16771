// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// hasty makes the janitor do in seconds what it takes days for.
func hasty(s *stack.ServiceSettings) {
	s.Janitor.Grace = time.Second
	s.Janitor.Sweep, s.Janitor.Erase, s.Janitor.Ship = time.Second, time.Second, time.Second
}

// TestDelete takes deletes of data from the request to the final certificate.
func TestDelete(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{tune: hasty, settings: "    limits: {query_timeout: 2s}\n"})
	end := lately()
	start := end.Add(-time.Hour)
	objects := makeSample(t, sample.Options{Seed: 91, End: end, Length: time.Hour, Lines: 1200, Objects: 4})
	for _, o := range objects {
		l.put(o.Key, o.Body)
	}
	l.awaitReceipts("default", "otel-raw/", len(objects))
	admin := withKey(t.Context(), l.adminKey)
	janitor := janitorv1.NewJanitorServiceClient(l.conn)

	kept := func(o sample.Object) sample.Object {
		var rows []sample.Row
		for _, r := range o.Rows {
			if r.Service != "checkout" || !strings.Contains(r.Line, deletedLine) {
				rows = append(rows, r)
			}
		}
		o.Rows = rows
		return o
	}
	var left []sample.Object
	for _, o := range objects {
		left = append(left, kept(o))
	}
	if sample.Rows(left) == sample.Rows(objects) {
		t.Fatal("the sample has no row to delete")
	}
	wantLeft := func(what string, more ...sample.Object) {
		t.Helper()
		all := append(append([]sample.Object{}, left...), more...)
		if got, want := hashOf(l.lines("default", everything, start, end)), hashOfSample(all...); got != want {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
		if got, want := l.count("default", "sum(count_over_time("+everything+"[2h]))", end), int64(sample.Rows(all)); got != want {
			t.Errorf("%s: counted %d, want %d", what, got, want)
		}
	}

	selector := `{service_name="checkout"} |= "` + deletedLine + `"`
	arguments := []string{"delete", "create", selector, "--organization", "default", "--sources", "redact", "--reason", "a test"}
	code, planned, stderr := l.command(t.Context(), l.adminKey, "", append(arguments, "--dry-run")...)
	if code != 0 || !strings.Contains(planned, "segment") {
		t.Fatalf("exit code %d: %s%s", code, planned, stderr)
	}
	code, stdout, stderr := l.command(t.Context(), l.adminKey, "y\n", arguments...)
	if code != 0 || !strings.Contains(stdout, "delete 1 is made") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	wantLeft("at once")

	// What comes later keeps its rows.
	later := makeSample(t, sample.Options{Seed: 92, Collector: "later", End: end, Length: time.Hour, Lines: 300, Objects: 1})[0]
	l.put(later.Key, later.Body)
	l.awaitReceipts("default", "otel-raw/", len(objects)+1)
	wantLeft("with a later object", later)

	certificate := l.awaitCertificate(admin, janitor, "1")
	wantLeft("at the end", later)
	var rows int64
	for _, o := range certificate.GetObjects() {
		rows += o.GetRows()
		if o.GetAction() != "redacted" {
			t.Errorf("%s was %q", o.GetObject().GetKey(), o.GetAction())
		}
		l.wantGone(o.GetObject().GetKey())
		l.wantCopy(fmt.Sprintf("db/default/redacted/1/%s.ndjson.gz", o.GetReceiptId()), left, o.GetObject().GetKey())
	}
	if want := int64(sample.Rows(objects) - sample.Rows(left)); rows != want {
		t.Errorf("the certificate has %d rows, want %d", rows, want)
	}
	for _, s := range certificate.GetSegments() {
		if s.GetGoneAt() == nil {
			t.Errorf("segment %s is not gone", s.GetSegmentId())
		}
		l.wantGone(s.GetKey())
	}
	if len(certificate.GetLimits()) == 0 || certificate.GetSha256() == "" || certificate.GetAuditEntry() == "" {
		t.Errorf("%+v", certificate)
	}
	for _, args := range [][]string{{"audit", "verify"}, {"delete", "certificate", "1"}, {"delete", "show", "1"}, {"delete", "list", "--organization", "default"}, {"audit", "list", "--organization", "default"}} {
		if code, stdout, stderr := l.command(t.Context(), l.adminKey, "", args...); code != 0 || stdout == "" {
			t.Errorf("%v: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}

	// An object of before that comes again, here as its producer's second try, has the delete applied.
	for _, o := range objects {
		l.put(o.Key, o.Body)
		l.ingestNow("default", o.Key)
	}
	eventually(t, func() error {
		got, want := hashOf(l.lines("default", selector, start, end)), hashOfSample(matching(later)...)
		if got != want {
			return fmt.Errorf("after objects came again: got %+v, want %+v", got, want)
		}
		return nil
	})
}

func matching(o sample.Object) []sample.Object {
	var rows []sample.Row
	for _, r := range o.Rows {
		if r.Service == "checkout" && strings.Contains(r.Line, deletedLine) {
			rows = append(rows, r)
		}
	}
	o.Rows = rows
	return []sample.Object{o}
}

func (l *lake) awaitCertificate(ctx context.Context, janitor janitorv1.JanitorServiceClient, id string) *janitorv1.GetCertificateResponse {
	l.t.Helper()
	var certificate *janitorv1.GetCertificateResponse
	eventually(l.t, func() (err error) {
		if certificate, err = janitor.GetCertificate(ctx, &janitorv1.GetCertificateRequest{DeleteId: id}); err != nil {
			return err
		}
		if !certificate.GetFinal() {
			shown, err := janitor.GetDelete(ctx, &janitorv1.GetDeleteRequest{DeleteId: id})
			return fmt.Errorf("the certificate is not final: %v, %w", shown, err)
		}
		return nil
	})
	return certificate
}

func (l *lake) wantGone(key string) {
	l.t.Helper()
	if _, err := l.bucket.Head(l.t.Context(), key); !errors.Is(err, fault.NotFound) {
		l.t.Errorf("%s is there still: %v", key, err)
	}
}

// wantCopy counts the lines of a redacted copy.
func (l *lake) wantCopy(key string, objects []sample.Object, of string) {
	l.t.Helper()
	body, _, err := l.bucket.Get(l.t.Context(), key, "")
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = body.Close() }()
	z, err := gzip.NewReader(body)
	if err != nil {
		l.t.Fatal(err)
	}
	content, err := io.ReadAll(z)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, o := range objects {
		if got := strings.Count(string(content), "\n"); o.Key == of && got != len(o.Rows) {
			l.t.Errorf("the copy of %s has %d rows, want %d", of, got, len(o.Rows))
		}
	}
}
