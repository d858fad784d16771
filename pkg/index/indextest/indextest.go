// SPDX-License-Identifier: AGPL-3.0-only

// Package indextest gives each test an index of its own on a real PostgreSQL: one server a test process, one database a test.
//
// The server is found or installed by pkg/local/postgres and ends with the process. LAKERUNNER_TEST_POSTGRES_URL, a URL of a
// role that may create databases, names another one. No database is a failure of the test, never a reason to pass over it.
package indextest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/local/postgres"
)

// Environment names the variable that holds the URL of a server to use.
const Environment = "LAKERUNNER_TEST_POSTGRES_URL"

const (
	template = "lakerunner_template"
	prefix   = "test_"
	remedy   = "install PostgreSQL (apt-get install postgresql) or npm, or set " + Environment
)

// New opens the index of a database of the test's own.
func New(t testing.TB) *index.Index {
	t.Helper()
	x, err := index.Open(t.Context(), index.Config{URL: URL(t), MaxConns: 10})
	if err != nil {
		t.Fatalf("open the test's index: %v", err)
	}
	t.Cleanup(x.Close)
	return x
}

// URL names a migrated database of the test's own, which is dropped at its end.
func URL(t testing.TB) string {
	t.Helper()
	s, err := shared()
	if err != nil {
		t.Fatalf("PostgreSQL for tests: %v; %s", err, remedy)
	}
	name := prefix + strings.ToLower(rand.Text())
	if err := s.create(t.Context(), name); err != nil {
		t.Fatalf("make the test's database: %v", err)
	}
	t.Cleanup(func() {
		if err := s.exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return s.url(name)
}

// server is where the tests' databases are made.
type server struct {
	url func(database string) string
	// template is a migrated database that others are copied from. Empty: each is migrated by itself.
	template string
	// strategy of the copies: files, which is the fastest way, where the server knows others (from version 15).
	strategy string
	// copying keeps copies of the template from getting into each other's way.
	copying sync.Mutex
}

// shared is the process's server. It is a variable of the package because what it holds belongs to the process.
var shared = sync.OnceValues(func() (*server, error) {
	if given := os.Getenv(Environment); given != "" {
		return givenServer(given)
	}
	return start(context.Background())
})

func givenServer(given string) (*server, error) {
	u, err := url.Parse(given)
	if err != nil {
		return nil, fmt.Errorf("%s is not a URL", Environment)
	}
	return &server{url: func(database string) string {
		named := *u
		named.Path = "/" + database
		return named.String()
	}}, nil
}

// start runs a server on a directory that no other process of this user tests with. Directories are used again, so there are no
// more of them than processes that ever tested at the same time.
func start(ctx context.Context) (*server, error) {
	for n := 0; ; n++ {
		dir := filepath.Join(os.TempDir(), fmt.Sprintf("lakerunner-postgres-%d-%d", os.Getuid(), n))
		p, err := startIn(ctx, dir)
		if errors.Is(err, postgres.ErrInUse) && n < 1000 {
			continue
		}
		if err != nil {
			return nil, err
		}
		return newServer(ctx, p)
	}
}

// startIn starts on a directory, and anew when what is left in it does not start: nothing there is of value.
func startIn(ctx context.Context, dir string) (*postgres.Server, error) {
	options := postgres.Options{Dir: dir, NoSync: true, Settings: map[string]string{
		"max_connections": "400",
		"shared_buffers":  "64MB",
		"jit":             "off",
	}}
	p, err := postgres.Start(ctx, options)
	if err == nil || errors.Is(err, postgres.ErrInUse) {
		return p, err
	}
	if err := os.RemoveAll(filepath.Join(dir, "data")); err != nil {
		return nil, err
	}
	return postgres.Start(ctx, options)
}

// newServer makes the template, and drops what killed tests left behind.
func newServer(ctx context.Context, p *postgres.Server) (*server, error) {
	s := &server{url: p.URL, template: template}
	if p.Major() >= 15 {
		s.strategy = " STRATEGY file_copy"
	}
	if err := s.dropAll(ctx); err != nil {
		return nil, err
	}
	if err := p.CreateDatabase(ctx, template); err != nil {
		return nil, err
	}
	return s, index.Migrate(ctx, p.URL(template))
}

func (s *server) dropAll(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT datname FROM pg_database WHERE starts_with(datname, $1) OR datname = $2", prefix, template)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := conn.Exec(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)"); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) create(ctx context.Context, name string) error {
	if s.template == "" {
		if err := s.exec(ctx, "CREATE DATABASE "+name); err != nil {
			return err
		}
		return index.Migrate(ctx, s.url(name))
	}
	s.copying.Lock()
	defer s.copying.Unlock()
	return s.exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+s.template+s.strategy)
}

func (s *server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}
