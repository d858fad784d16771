// SPDX-License-Identifier: AGPL-3.0-only

package config_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// logged is a log that can be read while it is written.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("%s did not happen in time", what)
		case <-tick.C:
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, options config.Options) *config.Live {
	t.Helper()
	live, err := config.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(live.Close)
	return live
}

func has(source config.Source, organization string) bool {
	for _, o := range source.Current().Organizations() {
		if string(o.ID) == organization {
			return true
		}
	}
	return false
}

func TestFiles(t *testing.T) {
	t.Parallel()
	t.Run("a later file replaces what an earlier one says", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")
		write(t, a, "limits: {max_streams: 1, max_attributes: 2}\norganizations: [{id: x, name: one}, {id: y}]\n")
		write(t, b, "limits: {max_streams: 3}\norganizations: [{id: x, name: two}]\n")
		s := open(t, config.Options{Files: []string{a, b}}).Current()
		x, _ := s.Organization("x")
		if x.Name != "two" || x.Limits.MaxStreams != 3 || x.Limits.MaxAttributes != 2 || len(s.Organizations()) != 2 {
			t.Errorf("got %+v", x)
		}
	})
	t.Run("a change is taken while it is followed", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "c.yaml")
		write(t, file, "organizations: [{id: before}]\n")
		live := open(t, config.Options{Files: []string{file}, Poll: time.Hour})
		old := live.Current()
		write(t, file, "organizations: [{id: after}]\n")
		eventually(t, "the change", func() bool { return has(live, "after") })
		if has(live, "before") || len(old.Organizations()) != 1 || old.Organizations()[0].ID != "before" {
			t.Error("the old snapshot changed, or the new one kept what is gone")
		}
	})
	t.Run("a link that is swapped, as Kubernetes does, is a change", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for version, organization := range map[string]string{"..v1": "before", "..v2": "after"} {
			if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, version, "c.yaml"), "organizations: [{id: "+organization+"}]\n")
		}
		data, file := filepath.Join(dir, "..data"), filepath.Join(dir, "c.yaml")
		if err := errors.Join(os.Symlink("..v1", data), os.Symlink(filepath.Join("..data", "c.yaml"), file)); err != nil {
			t.Fatal(err)
		}
		live := open(t, config.Options{Files: []string{file}, Poll: time.Hour})
		if err := errors.Join(os.Symlink("..v2", data+"_tmp"), os.Rename(data+"_tmp", data)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the change", func() bool { return has(live, "after") })
	})
	t.Run("a wrong change is logged once with file and line, and the one before stays until it is mended", func(t *testing.T) {
		t.Parallel()
		file, log := filepath.Join(t.TempDir(), "c.yaml"), &logged{}
		write(t, file, "organizations: [{id: before}]\n")
		live := open(t, config.Options{Files: []string{file}, Poll: 5 * time.Millisecond, Log: slog.New(slog.NewTextHandler(log, nil))})
		write(t, file, "organizations:\n  - {idd: after}\n")
		eventually(t, "the complaint", func() bool { return strings.Contains(log.String(), file+":2: organizations[0].idd: unknown field") })
		if !has(live, "before") {
			t.Error("the configuration before is gone")
		}
		write(t, file, "organizations: [{id: after}]\n")
		eventually(t, "the change", func() bool { return has(live, "after") })
		if n := strings.Count(log.String(), "stays in force"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, log.String())
		}
	})
	t.Run("a wrong file stops the start", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "c.yaml")
		write(t, file, "limits:\n  max_stream: 1\n")
		_, err := config.Open(t.Context(), config.Options{Files: []string{file}})
		want := file + `:2: limits.max_stream: unknown field; did you mean "max_streams"?`
		if !errors.Is(err, fault.Invalid) || err.Error() != want {
			t.Errorf("want %s, got %v", want, err)
		}
	})
	t.Run("a file that is missing stops the start", func(t *testing.T) {
		t.Parallel()
		if _, err := config.Open(t.Context(), config.Options{Files: []string{filepath.Join(t.TempDir(), "no.yaml")}}); !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("keys of others are passed over, and theirs alone", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "c.yaml")
		write(t, file, "grpc: {listen: x}\n")
		open(t, config.Options{Files: []string{file}, OtherKeys: []string{"grpc"}})
		if _, err := config.Open(t.Context(), config.Options{Files: []string{file}}); err == nil {
			t.Error("want an error")
		}
	})
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	environ := func(entries ...string) config.Options { return config.Options{Environ: entries} }
	location := func(t *testing.T, options config.Options, bucket string) objects.Location {
		t.Helper()
		p, ok := open(t, options).Current().Profile(bucket)
		if !ok {
			t.Fatalf("no profile of %s", bucket)
		}
		l := p.Location
		l.Prices = nil
		return l
	}
	t.Run("S3_BUCKET alone is a storage profile", func(t *testing.T) {
		t.Parallel()
		live := open(t, environ("S3_BUCKET=b"))
		r := live.Current().Resolve("b", "otel-raw/acme/gw/logs_1.json")
		if r.SkipReason != "" || r.Organization != "acme" || r.Profile.Location.Provider != "aws" {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("LAKERUNNER_ORGANIZATION owns what names nobody", func(t *testing.T) {
		t.Parallel()
		live := open(t, environ("S3_BUCKET=b", "LAKERUNNER_ORGANIZATION=house"))
		if r := live.Current().Resolve("b", "app.log"); r.Organization != "house" {
			t.Errorf("got %+v", r)
		}
	})
	for name, entries := range map[string][]string{
		"the long names of keys": {"AWS_ACCESS_KEY_ID=k", "AWS_SECRET_ACCESS_KEY=s"}, "the short names of keys": {"AWS_ACCESS_KEY=k", "AWS_SECRET_KEY=s"},
	} {
		t.Run("tells how to reach it, with "+name, func(t *testing.T) {
			t.Parallel()
			got := location(t, environ(append(entries, "S3_BUCKET=b", "S3_PROVIDER=gcp", "S3_ENDPOINT=http://x:1", "AWS_REGION=r")...), "b")
			want := objects.Location{Provider: "gcp", Name: "b", Endpoint: "http://x:1", Region: "r", AccessKey: "k", SecretKey: "s", PathStyle: true}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("keys with a session token are left to the SDK", func(t *testing.T) {
		t.Parallel()
		got := location(t, environ("S3_BUCKET=b", "AWS_ACCESS_KEY_ID=k", "AWS_SECRET_ACCESS_KEY=s", "AWS_SESSION_TOKEN=t"), "b")
		if got.AccessKey != "" || got.SecretKey != "" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("completes profiles of its provider, and no others", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "c.yaml")
		write(t, file, "storage_profiles:\n  - {name: a, bucket: a, region: mine}\n  - {name: g, bucket: g, provider: gcp}\n  - {name: s, bucket: s, access_key: own, secret_key_env: SECRET}\n")
		options := environ("AWS_ACCESS_KEY_ID=k", "AWS_SECRET_ACCESS_KEY=s", "AWS_REGION=r", "SECRET=hidden")
		options.Files = []string{file}
		s := open(t, options).Current()
		got := map[string]string{}
		for _, p := range s.Profiles() {
			got[p.Name] = p.Location.Region + " " + p.Location.AccessKey + " " + p.Location.SecretKey
		}
		if diff := cmp.Diff(map[string]string{"a": "mine k s", "g": "  ", "s": "r own hidden"}, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("gives way to a profile of a file for its bucket", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "c.yaml")
		write(t, file, "storage_profiles: [{name: mine, bucket: b, organization: acme}]\n")
		options := environ("S3_BUCKET=b")
		options.Files = []string{file}
		if p := open(t, options).Current().Profiles(); len(p) != 1 || p[0].Name != "mine" {
			t.Errorf("got %d profiles", len(p))
		}
	})
	t.Run("LAKERUNNER_ADMIN_KEY is an admin key", func(t *testing.T) {
		t.Parallel()
		live := open(t, environ("LAKERUNNER_ADMIN_KEY=0123456789abcdef"))
		if identity, ok := live.Current().Authenticate("0123456789abcdef"); !ok || !identity.Has(config.ScopeAdmin) {
			t.Errorf("got %+v", identity)
		}
	})
	t.Run("a wrong variable stops the start and is named", func(t *testing.T) {
		t.Parallel()
		for entry, want := range map[string]string{
			"S3_PROVIDER=minio":          "environment variable S3_PROVIDER: want aws (also for every S3-compatible server, with S3_ENDPOINT) or gcp",
			"LAKERUNNER_ADMIN_KEY=short": `environment variable LAKERUNNER_ADMIN_KEY: the secret of API key "environment" has fewer than 16 characters; make one with: openssl rand -hex 32`,
		} {
			if _, err := config.Open(context.Background(), environ(entry)); err == nil || err.Error() != want {
				t.Errorf("want %s, got %v", want, err)
			}
		}
	})
}
