// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// Environment variables that make this program a child of the benchmark.
const (
	roleVariable      = "LAKERUNNER_BENCH_ROLE"
	workplaceVariable = "LAKERUNNER_BENCH_WORKPLACE"
)

// workplace is where database, bucket and caches of a run are.
type workplace struct {
	Database string
	Dir      string
	APIKey   string
	Signal   lake.Signal
}

func (w workplace) config() string { return filepath.Join(w.Dir, "lakerunner.yaml") }
func (w workplace) bucket() string { return filepath.Join(w.Dir, "bucket") }
func (w workplace) cache() string  { return filepath.Join(w.Dir, "serve") }

// child prepares a process of this program in a role.
func (w workplace) child(ctx context.Context, role string) (*exec.Cmd, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, executable)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, workplaceVariable+"="+string(encoded))
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// runRole runs the role that the environment names; ok is false when it names none.
func runRole(ctx context.Context) (ok bool, err error) {
	role := os.Getenv(roleVariable)
	if role == "" {
		return false, nil
	}
	var w workplace
	if err := json.Unmarshal([]byte(os.Getenv(workplaceVariable)), &w); err != nil {
		return true, err
	}
	switch role {
	case "ingest":
		return true, ingestRole(ctx, w)
	case "rollup":
		return true, rollupRole(ctx, w)
	case "compact":
		return true, compactRole(ctx, w)
	case "serve":
		return true, serveRole(ctx, w)
	}
	return true, fmt.Errorf("no such role: %s", role)
}

// serveRole answers queries until standard input ends.
func serveRole(ctx context.Context, w workplace) error {
	services, err := stack.Start(ctx, stack.Options{
		Database: w.Database, ConfigFiles: []string{w.config()}, Dir: w.cache(), HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0",
		Roles: stack.Roles{Frontend: true, Worker: true}, Log: logger(),
	})
	if err != nil {
		return err
	}
	fmt.Println("http", services.HTTP)
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, services.Stop(ctx))
}

// server is a running serve role.
type server struct {
	cmd   *exec.Cmd
	stdin io.Closer
	url   string
}

func (w workplace) serve(ctx context.Context) (*server, error) {
	cmd, err := w.child(ctx, "serve")
	if err != nil {
		return nil, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the services: %w", err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "http "); ok {
			return &server{cmd: cmd, stdin: stdin, url: "http://" + address}, nil
		}
	}
	return nil, errors.Join(errors.New("the services ended before they were ready"), cmd.Wait())
}

func (s *server) stop() error {
	return errors.Join(s.stdin.Close(), s.cmd.Wait())
}

// usageOf is what a finished process took.
func usageOf(cmd *exec.Cmd) *syscall.Rusage {
	usage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return usage
}
