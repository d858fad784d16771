// SPDX-License-Identifier: AGPL-3.0-only

package indextest

import (
	"context"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/local/postgres"
)

func TestAGivenServerIsUsed(t *testing.T) {
	t.Parallel()
	p, err := postgres.Start(t.Context(), postgres.Options{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s, err := givenServer(p.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.create(t.Context(), "test_given"); err != nil {
		t.Fatal(err)
	}
	x, err := index.Open(t.Context(), index.Config{URL: s.url("test_given")})
	if err != nil {
		t.Fatal(err)
	}
	x.Close()
}
