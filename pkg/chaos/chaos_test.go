// SPDX-License-Identifier: AGPL-3.0-only

package chaos_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/chaos"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
)

type single struct{ b objects.Bucket }

func (s single) Bucket(context.Context, string) (objects.Bucket, error) { return s.b, nil }

func open(t *testing.T, in chaos.Injector) (objects.Bucket, objects.Bucket) {
	t.Helper()
	plain := objectstest.Memory(t)
	b, err := chaos.Store(single{plain}, "ingestor", in).Bucket(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	return b, plain
}

func put(ctx context.Context, b objects.Bucket, key string) error {
	_, err := b.Put(ctx, key, strings.NewReader("x"), 1)
	return err
}

func TestAFaultHappensAtItsPassageAlone(t *testing.T) {
	t.Parallel()
	var passed []string
	b, plain := open(t, &chaos.One{Point: "ingestor.bucket.put", Kind: chaos.Fail, Nth: 2, Passed: func(p string) { passed = append(passed, p) }})
	for i, want := range []error{nil, fault.Unavailable, nil} {
		if err := put(t.Context(), b, "key"+string(rune('0'+i))); !errors.Is(err, want) {
			t.Errorf("put %d: %v, want %v", i, err, want)
		}
	}
	if _, err := plain.Head(t.Context(), "key1"); !errors.Is(err, fault.NotFound) {
		t.Errorf("the step that failed has happened: %v", err)
	}
	if _, err := b.Head(t.Context(), "key0"); err != nil {
		t.Error(err)
	}
	want := []string{"ingestor.bucket.put", "ingestor.bucket.put", "ingestor.bucket.put", "ingestor.bucket.head"}
	if !slices.Equal(passed, want) {
		t.Errorf("passed %q, want %q", passed, want)
	}
}

func TestALostAnswersStepHasHappened(t *testing.T) {
	t.Parallel()
	b, plain := open(t, &chaos.One{Point: "ingestor.bucket.put", Kind: chaos.Lose})
	if err := put(t.Context(), b, "key"); !errors.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want the answer to be lost", err)
	}
	if _, err := plain.Head(t.Context(), "key"); err != nil {
		t.Errorf("the step has not happened: %v", err)
	}
	if err := put(t.Context(), b, "other"); err != nil {
		t.Errorf("a second answer is lost: %v", err)
	}
}

func TestAHangEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	b, _ := open(t, &chaos.One{Point: "ingestor.bucket.put", Kind: chaos.Hang, HangFor: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := put(ctx, b, "key"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that the caller gave up", err)
	}
}

func TestAHangHoldsEveryStepUntilItIsOver(t *testing.T) {
	t.Parallel()
	const pause = 50 * time.Millisecond
	hanging := make(chan struct{})
	b, plain := open(t, &chaos.One{Point: "ingestor.bucket.put", Kind: chaos.Hang, HangFor: pause, Struck: func() { close(hanging) }})
	began := time.Now()
	done := make(chan error, 2)
	go func() { done <- put(t.Context(), b, "key") }()
	<-hanging
	go func() { done <- b.Delete(t.Context(), "other") }()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(began); took < pause {
		t.Errorf("it was over after %s", took)
	}
	if _, err := plain.Head(t.Context(), "key"); err != nil {
		t.Errorf("the step has not happened after the hang: %v", err)
	}
}

func TestACrashComesBeforeTheStep(t *testing.T) {
	t.Parallel()
	died := false
	b, plain := open(t, &chaos.One{Point: "ingestor.bucket.delete", Kind: chaos.Crash, Die: func() { died = true }})
	if err := put(t.Context(), b, "key"); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "key"); err == nil || !died {
		t.Errorf("died: %t, error %v", died, err)
	}
	if _, err := plain.Head(t.Context(), "key"); err != nil {
		t.Errorf("the step has happened: %v", err)
	}
}

func TestWithoutAnInjectorNothingIsWrapped(t *testing.T) {
	t.Parallel()
	plain := objectstest.Memory(t)
	if s := chaos.Store(single{plain}, "ingestor", nil); s != (single{plain}) {
		t.Errorf("the store is wrapped: %T", s)
	}
}
