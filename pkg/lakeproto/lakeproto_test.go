// SPDX-License-Identifier: AGPL-3.0-only

package lakeproto_test

import (
	"errors"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
)

func TestEnumsComeBack(t *testing.T) {
	t.Parallel()
	for n := range lakev1.Signal_name {
		s, err := lakeproto.Signal(lakev1.Signal(n))
		if err != nil || lakeproto.SignalProto(s) != lakev1.Signal(n) {
			t.Errorf("signal %d became %s, %v", n, s, err)
		}
	}
	for n := range lakev1.ReceiptState_name {
		s, err := lakeproto.State(lakev1.ReceiptState(n))
		if err != nil || lakeproto.StateProto(s) != lakev1.ReceiptState(n) {
			t.Errorf("state %d became %s, %v", n, s, err)
		}
	}
	if _, err := lakeproto.Signal(99); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
	if _, err := lakeproto.State(99); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestTimesThatAreNotKnownAreUnset(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 10, 0, 0, 1, time.UTC)
	r := lakeproto.ReceiptProto(lake.Receipt{ID: 7, CreatedAt: at})
	if !r.GetCreatedAt().AsTime().Equal(at) || r.GetUpdatedAt() != nil || r.GetObject().GetLastModified() != nil || r.GetReceiptId() != "7" {
		t.Errorf("got %v", r)
	}
}
