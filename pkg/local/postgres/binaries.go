// SPDX-License-Identifier: AGPL-3.0-only

package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// oldest is the first major version that the index runs on.
const oldest = 13

// Binaries are an installation of PostgreSQL.
type Binaries struct {
	Dir   string // holds postgres and initdb
	Major int    // version
}

// Search says where an installation is looked for, in this order, and how one is made when there is none.
type Search struct {
	// Path is a list of directories as in PATH. A postgres there may be a link into the installation.
	Path string
	// Candidates are patterns of directories, as for filepath.Glob.
	Candidates []string
	// Cache is where an installation of our own is kept.
	Cache string
	// Installers are tried in turn when nothing is found.
	Installers []Installer
}

// DefaultSearch looks on PATH, in the places of the distributions and in a cache of our own, and installs there by npm, or
// as root by apt.
func DefaultSearch() *Search {
	s := &Search{
		Path:       os.Getenv("PATH"),
		Candidates: []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql@*/bin"},
		Cache:      defaultCache(),
	}
	s.Installers = []Installer{NPM{Cache: s.Cache}, APT{}}
	return s
}

// defaultCache is a directory that other users can reach where we are root, since the server will be another user.
func defaultCache() string {
	if os.Geteuid() == 0 {
		return "/var/cache/lakerunner/postgres"
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "lakerunner", "postgres")
}

// find returns the first usable installation, of the major version that is asked for if that is not zero.
func (s *Search) find(ctx context.Context, major int, log *slog.Logger) (Binaries, error) {
	found, seen := choose(ctx, s.directories(), major)
	if found.Dir != "" {
		return found, nil
	}
	if major != 0 && len(seen) > 0 {
		return Binaries{}, fmt.Errorf("the data was made by PostgreSQL %d, found only %s: install that version, or move the directory away",
			major, strings.Join(seen, ", "))
	}
	return s.install(ctx, major, log)
}

func (s *Search) install(ctx context.Context, major int, log *slog.Logger) (Binaries, error) {
	var failures []error
	for _, installer := range s.Installers {
		log.Info("PostgreSQL was not found, installing it", "by", installer.Name())
		dirs, err := installer.Install(ctx)
		if err != nil {
			failures = append(failures, fmt.Errorf("install by %s: %w", installer.Name(), err))
			continue
		}
		found, seen := choose(ctx, dirs, major)
		if found.Dir != "" {
			return found, nil
		}
		failures = append(failures, fmt.Errorf("install by %s: nothing usable: %v", installer.Name(), seen))
	}
	return Binaries{}, fmt.Errorf("PostgreSQL %d or later is not installed: install it (apt-get install postgresql), or name a server: %w",
		oldest, errors.Join(failures...))
}

// directories lists where binaries may be, without doubles. Links are followed: initdb stands beside the real postgres.
func (s *Search) directories() []string {
	var dirs []string
	add := func(dir string) {
		if dir != "" && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range filepath.SplitList(s.Path) {
		if real, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres")); err == nil {
			add(filepath.Dir(real))
			add(dir) // a wrapper, with its initdb beside it
		}
	}
	for _, pattern := range s.Candidates {
		matches, _ := filepath.Glob(pattern) // an ill-formed pattern matches nothing
		slices.Reverse(matches)              // newer versions first
		for _, dir := range matches {
			add(dir)
		}
	}
	if s.Cache != "" {
		add(NPM{Cache: s.Cache}.bin())
	}
	return dirs
}

// choose returns the first directory that holds a usable server, and says what it saw.
func choose(ctx context.Context, dirs []string, major int) (Binaries, []string) {
	var seen []string
	for _, dir := range dirs {
		v, err := version(ctx, dir)
		if err != nil {
			continue
		}
		seen = append(seen, fmt.Sprintf("%d in %s", v, dir))
		if v >= oldest && (major == 0 || v == major) {
			return Binaries{Dir: dir, Major: v}, seen
		}
	}
	return Binaries{}, seen
}

// version asks a directory's postgres for its major version, and that initdb stands beside it.
func version(ctx context.Context, dir string) (int, error) {
	if _, err := exec.LookPath(filepath.Join(dir, "initdb")); err != nil {
		return 0, err
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`\(PostgreSQL\) (\d+)`).FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("not a version of PostgreSQL: %q", out)
	}
	return strconv.Atoi(string(m[1]))
}
