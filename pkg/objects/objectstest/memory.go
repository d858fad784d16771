// SPDX-License-Identifier: AGPL-3.0-only

package objectstest

import (
	"net/http/httptest"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/lakerunner/lakerunner/pkg/objects"
)

// BeyondMemory is what the server in memory cannot do: its tags of multipart uploads change, its ranges are strict,
// and what describes an object outlives it.
func BeyondMemory() []string { return []string{BigObjects, LongSuffixes, Classes} }

// Memory returns an empty bucket of an S3 server in memory, which lives as long as the test.
func Memory(t testing.TB) objects.Bucket {
	t.Helper()
	const name = "memory"
	backend := s3mem.New()
	if err := backend.CreateBucket(name); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	t.Cleanup(server.Close)
	b, err := objects.Open(t.Context(), objects.Location{Name: name, Endpoint: server.URL, AccessKey: "key", SecretKey: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
