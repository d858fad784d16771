// SPDX-License-Identifier: AGPL-3.0-only

package indextest_test

import (
	"testing"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

func TestEachIndexStandsAlone(t *testing.T) {
	t.Parallel()
	one, other := indextest.New(t), indextest.New(t)
	notice := index.Notice{Object: lake.Object{Bucket: "b", Key: "k", Tag: "t"}, Organization: "acme"}
	if _, err := one.Receive(t.Context(), []index.Notice{notice}); err != nil {
		t.Fatal(err)
	}
	known, err := other.Known(t.Context(), "b", []lake.Object{notice.Object})
	if err != nil {
		t.Fatal(err)
	}
	if known[0] {
		t.Error("one test's receipt shows in another one's index")
	}
}

func TestMigrateTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	if err := index.Migrate(t.Context(), indextest.URL(t)); err != nil {
		t.Fatal(err)
	}
}
