// SPDX-License-Identifier: AGPL-3.0-only

package objects_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

func TestDirectory(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) (string, objects.Bucket) {
		t.Helper()
		dir := t.TempDir()
		b := open(t, objects.Location{Provider: objects.ProviderFile, Name: "b", Directory: filepath.Join(dir, "made/if/need/be")})
		return filepath.Join(dir, "made/if/need/be"), b
	}
	put := func(t *testing.T, b objects.Bucket, key string) error {
		t.Helper()
		_, err := b.Put(t.Context(), key, strings.NewReader("x"), 1)
		return err
	}
	t.Run("refuses keys that it cannot hold", func(t *testing.T) {
		t.Parallel()
		_, b := setup(t)
		for _, key := range []string{"", ".", "..", "../x", "a/../../x", "a/./b", "a//b", "/a", "a/", "nul\x00", "\xff", ".lakerunner-partial/1", ".lakerunner-partial", strings.Repeat("n", 300)} {
			if err := put(t, b, key); !errors.Is(err, fault.Invalid) {
				t.Errorf("put %q: got %v, want invalid", key, err)
			}
			if err := b.Delete(t.Context(), key); !errors.Is(err, fault.Invalid) && len(key) < 256 {
				t.Errorf("delete %q: got %v, want invalid", key, err)
			}
		}
	})
	t.Run("does not hold a file and a folder of one name", func(t *testing.T) {
		t.Parallel()
		_, b := setup(t)
		if err := errors.Join(put(t, b, "a"), put(t, b, "b/c")); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"a/b", "a/b/c", "b"} {
			if err := put(t, b, key); !errors.Is(err, fault.Invalid) {
				t.Errorf("put %q: got %v, want invalid", key, err)
			}
		}
	})
	t.Run("shows files that others put there", func(t *testing.T) {
		t.Parallel()
		dir, b := setup(t)
		write(t, filepath.Join(dir, "logs/app.log"), "one\n")
		first, err := b.Head(t.Context(), "logs/app.log")
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "logs/app.log"), "two\n")
		later := time.Now().Add(time.Second)
		if err := os.Chtimes(filepath.Join(dir, "logs/app.log"), later, later); err != nil {
			t.Fatal(err)
		}
		second, err := b.Head(t.Context(), "logs/app.log")
		if err != nil {
			t.Fatal(err)
		}
		if first.Size != 4 || first.Tag == second.Tag {
			t.Errorf("before %+v, after %+v", first, second)
		}
	})
	t.Run("does not follow links out of it", func(t *testing.T) {
		t.Parallel()
		dir, b := setup(t)
		secret := filepath.Join(t.TempDir(), "secret")
		write(t, secret, "secret")
		if err := errors.Join(os.Symlink(secret, filepath.Join(dir, "link")), put(t, b, "k")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.Get(t.Context(), "link", ""); err == nil {
			t.Error("it was read")
		}
		var got []string
		for a, err := range b.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, a.Key)
		}
		if diff := cmp.Diff([]string{"k"}, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("leaves no folder behind a deleted object, and no part behind a put", func(t *testing.T) {
		t.Parallel()
		dir, b := setup(t)
		if err := errors.Join(put(t, b, "a/b/c/1"), put(t, b, "a/2"), b.Delete(t.Context(), "a/b/c/1")); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "a/b")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a/b: got %v, want none", err)
		}
		parts, err := os.ReadDir(filepath.Join(dir, ".lakerunner-partial"))
		if err != nil || len(parts) != 0 {
			t.Errorf("parts: %v, %v", parts, err)
		}
	})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}
