// SPDX-License-Identifier: AGPL-3.0-only

package postgres_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/lakerunner/lakerunner/pkg/local/postgres"
)

// childDir names the directory that a copy of this test binary is to serve until it is killed.
const childDir = "LAKERUNNER_POSTGRES_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		serveUntilKilled(dir)
	}
	os.Exit(m.Run())
}

func serveUntilKilled(dir string) {
	s, err := postgres.Start(context.Background(), postgres.Options{Dir: dir})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println("ready", s.PID())
	<-s.Exited()
	os.Exit(1)
}

func start(t *testing.T, options postgres.Options) *postgres.Server {
	t.Helper()
	options.NoSync = true
	s, err := postgres.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func exec1(t *testing.T, s *postgres.Server, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func TestServer(t *testing.T) {
	t.Parallel()

	t.Run("keeps its data over a stop", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		first := start(t, postgres.Options{Dir: dir})
		exec1(t, first, "CREATE TABLE kept (n int)")
		if err := first.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		exec1(t, start(t, postgres.Options{Dir: dir}), "INSERT INTO kept VALUES (1)")
	})

	t.Run("keeps its data over a kill of the server", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		first, err := postgres.Start(t.Context(), postgres.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		exec1(t, first, "CREATE TABLE kept (n int)")
		if err := syscall.Kill(first.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-first.Exited()
		if err := first.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		exec1(t, start(t, postgres.Options{Dir: dir}), "INSERT INTO kept VALUES (1)")
	})

	t.Run("refuses a directory that is being served", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		start(t, postgres.Options{Dir: dir})
		_, err := postgres.Start(t.Context(), postgres.Options{Dir: dir})
		if !errors.Is(err, postgres.ErrInUse) {
			t.Fatalf("got %v, want ErrInUse", err)
		}
	})

	t.Run("asks for its password", func(t *testing.T) {
		t.Parallel()
		s := start(t, postgres.Options{Dir: t.TempDir()})
		config, err := pgx.ParseConfig(s.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		config.Password = "guessed"
		if _, err := pgx.ConnectConfig(t.Context(), config); err == nil {
			t.Fatal("a wrong password was accepted")
		}
	})

	t.Run("makes a database once", func(t *testing.T) {
		t.Parallel()
		s := start(t, postgres.Options{Dir: t.TempDir()})
		for range 2 {
			if err := s.CreateDatabase(t.Context(), "Lake db"); err != nil {
				t.Fatal(err)
			}
		}
		conn, err := pgx.Connect(t.Context(), s.URL("Lake%20db"))
		if err == nil {
			conn.Close(t.Context())
			t.Fatal("an escaped name was unescaped twice")
		}
		conn, err = pgx.Connect(t.Context(), s.URL("Lake db"))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close(t.Context())
	})
}

func TestServerEndsWithTheProcessThatStartedIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready ") {
		t.Fatalf("the child said %q, %v", line, err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed

	// No signal of ours: the start waits for the orphan's end, or ends it where the kernel does not.
	exec1(t, start(t, postgres.Options{Dir: dir}), "SELECT 1")
}

func TestServerIsInstalledWhereThereIsNone(t *testing.T) {
	t.Parallel()
	cache := filepath.Join(t.TempDir(), "cache")
	search := &postgres.Search{Cache: cache, Installers: []postgres.Installer{postgres.NPM{Cache: cache}, postgres.APT{}}}
	s := start(t, postgres.Options{Dir: t.TempDir(), Search: search})
	exec1(t, s, "SELECT 1")

	// The cache serves the next start without an installer.
	search.Installers = nil
	if _, err := os.Stat(filepath.Join(cache, "npm-17.9.0-beta.17")); err == nil {
		exec1(t, start(t, postgres.Options{Dir: t.TempDir(), Search: search}), "SELECT 1")
	}
}

// script writes an executable shell script.
func script(t *testing.T, dir, name, body string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()

	t.Run("passes over versions that are too old", func(t *testing.T) {
		t.Parallel()
		old := t.TempDir()
		script(t, old, "postgres", `echo "postgres (PostgreSQL) 9.6.1"`)
		script(t, old, "initdb", "exit 1")
		search := &postgres.Search{Path: old}
		_, err := postgres.Start(t.Context(), postgres.Options{Dir: t.TempDir(), Search: search})
		if err == nil || !strings.Contains(err.Error(), "apt-get install postgresql") {
			t.Fatalf("got %v, want an error with its remedy", err)
		}
	})

	t.Run("names both versions when the data is another one's", func(t *testing.T) {
		t.Parallel()
		dir, other := t.TempDir(), t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "data"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte("14\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		script(t, other, "postgres", `echo "postgres (PostgreSQL) 99.1"`)
		script(t, other, "initdb", "exit 1")
		_, err := postgres.Start(t.Context(), postgres.Options{Dir: dir, Search: &postgres.Search{Candidates: []string{other}}})
		if err == nil || !strings.Contains(err.Error(), "PostgreSQL 14") || !strings.Contains(err.Error(), "99 in ") {
			t.Fatalf("got %v, want an error with both versions", err)
		}
	})

	t.Run("tries installers in turn and says what each said", func(t *testing.T) {
		t.Parallel()
		search := &postgres.Search{Installers: []postgres.Installer{broken("first"), broken("second")}}
		_, err := postgres.Start(t.Context(), postgres.Options{Dir: t.TempDir(), Search: search})
		if err == nil || !strings.Contains(err.Error(), "install by first: broken") || !strings.Contains(err.Error(), "install by second: broken") {
			t.Fatalf("got %v, want both installers' errors", err)
		}
	})
}

type broken string

func (b broken) Name() string { return string(b) }

func (broken) Install(context.Context) ([]string, error) { return nil, fmt.Errorf("broken") }

func TestAPTUpdatesItsListsWhenAPackageIsMissing(t *testing.T) {
	if os.Geteuid() != 0 {
		if _, err := (postgres.APT{}).Install(t.Context()); err == nil {
			t.Fatal("installed without being root")
		}
		return
	}
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	script(t, dir, "apt-get", `echo "$1" >>`+calls+`; [ "$(wc -l <`+calls+`)" != 1 ]`)
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := (postgres.APT{}).Install(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("install\nupdate\ninstall\n", string(got)); diff != "" {
		t.Error(diff)
	}
}
