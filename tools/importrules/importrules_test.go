// SPDX-License-Identifier: AGPL-3.0-only

package importrules

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const root = "github.com/lakerunner/lakerunner/"

// edge is one import of one file, both by their folder in the repository.
type edge struct {
	file string // from the repository's root
	from string // folder of the file
	to   string // import path
}

func TestNoFileBreaksTheImportRules(t *testing.T) {
	t.Parallel()
	edges := imports(t, filepath.Join("..", ".."))
	if len(edges) == 0 {
		t.Fatal("no import found: the test reads the wrong folder")
	}
	for _, e := range edges {
		if why := broken(e); why != "" {
			t.Errorf("%s imports %s: %s", e.file, e.to, why)
		}
	}
}

func TestEachRuleNamesTheEdgeThatBreaksIt(t *testing.T) {
	t.Parallel()
	for _, e := range []edge{
		{from: "proto", to: root + "pkg/lake"},
		{from: "pkg/index", to: root + "services/ingestor"},
		{from: "services/ingestor", to: root + "services/notifier"},
		{from: "services/lakerunner/internal/up", to: root + "services/notifier/internal/server"},
		{from: "pkg/lake", to: "github.com/google/uuid"},
		{from: "services/query-worker/internal/scan", to: "github.com/duckdb/duckdb-go/v2"},
		{from: "services/query-frontend", to: root + "pkg/engine"},
	} {
		if broken(e) == "" {
			t.Errorf("%s imports %s: want it refused", e.from, e.to)
		}
	}
}

// broken returns the rule that an import breaks, or nothing.
func broken(e edge) string {
	to, ours := strings.CutPrefix(e.to, root)
	switch {
	case under(e.from, "pkg/lake") && to != "pkg/lake" && strings.Contains(strings.SplitN(e.to, "/", 2)[0], "."):
		return "pkg/lake imports the standard library alone"
	case strings.Contains(e.to, "/duckdb") && !under(e.from, "pkg/engine"):
		return "only pkg/engine imports DuckDB"
	case !ours:
		return ""
	case under(e.from, "proto") && !under(to, "proto"):
		return "proto imports nothing of LakeRunner"
	case under(e.from, "pkg") && under(to, "services"):
		return "pkg imports no service"
	case to == "pkg/engine" && !mayUseEngine(e.from):
		return "only the query worker runs DuckDB; the other services stay free of cgo"
	case under(to, "services") && service(e.from) == "lakerunner" && service(to) != "lakerunner" && strings.Contains(to, "/internal"):
		return "services/lakerunner sees the public packages of the services alone"
	case under(to, "services") && service(e.from) != "lakerunner" && service(e.from) != service(to):
		return "no service imports another"
	}
	return ""
}

func mayUseEngine(from string) bool {
	return under(from, "pkg/engine") || under(from, "pkg/segfile") || under(from, "pkg/metricfile") || service(from) == "query-worker" || service(from) == "lakerunner"
}

// service returns the name of the service that a folder belongs to.
func service(folder string) string {
	rest, ok := strings.CutPrefix(folder, "services/")
	if !ok {
		return ""
	}
	return strings.SplitN(rest, "/", 2)[0]
}

func under(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}

func imports(t *testing.T, repository string) []edge {
	t.Helper()
	var edges []edge
	err := filepath.WalkDir(repository, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != repository && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "bin" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		found, err := importsOf(repository, path)
		edges = append(edges, found...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return edges
}

func importsOf(repository, path string) ([]edge, error) {
	file, err := filepath.Rel(repository, path)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", file, err)
	}
	edges := make([]edge, 0, len(parsed.Imports))
	for _, spec := range parsed.Imports {
		to, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("import in %s: %w", file, err)
		}
		edges = append(edges, edge{file: filepath.ToSlash(file), from: filepath.ToSlash(filepath.Dir(file)), to: to})
	}
	return edges, nil
}
