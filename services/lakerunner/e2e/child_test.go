// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// Roles of child processes.
const (
	roleWorker = "worker"
	roleIngest = "ingest"
)

// childVariable carries childOptions to a child process.
const childVariable = "LAKERUNNER_E2E_CHILD"

// childOptions say what a child process works on.
type childOptions struct {
	Database, Config, Dir string
	// KillAt names the checkpoint at which the process kills itself, at its KillNth passage (from 1). Empty: it lives.
	KillAt  string
	KillNth int
	// Fault is one to begin with.
	Fault order
}

// child is a process of the system under test.
type child struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdin  io.Writer
	lines  chan string // of its standard output
	exited chan struct{}

	mu     sync.Mutex
	stderr bytes.Buffer
}

// startChild starts this test binary in a role, on the lake.
func (l *lake) startChild(role string, o childOptions) *child {
	l.t.Helper()
	o.Database, o.Config = l.database, l.configPath()
	if o.Dir == "" {
		o.Dir = l.t.TempDir()
	}
	options, err := json.Marshal(o)
	if err != nil {
		l.t.Fatal(err)
	}
	return startProcess(l.t, role, string(options))
}

// startProcess starts this test binary in a role, with more variables in its environment.
func startProcess(t testing.TB, role, options string, environ ...string) *child {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: exec.Command(executable), lines: make(chan string, 100_000), exited: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+role, childVariable+"="+options)
	c.cmd.Env = append(c.cmd.Env, environ...)
	c.cmd.Stderr = c
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = in
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.lines <- lines.Text()
		}
		close(c.lines)
		_ = c.cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(c.kill)
	return c
}

// Write keeps what the child says on standard error, for a failing test.
func (c *child) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stderr.Write(b)
}

func (c *child) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stderr.String()
}

// ready waits for the child's line "ready ADDRESS".
func (c *child) ready() string {
	c.t.Helper()
	for line := range c.lines {
		if address, ok := strings.CutPrefix(line, "ready "); ok {
			return address
		}
	}
	c.t.Fatalf("the child ended before it was ready: %s", c.said())
	return ""
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.exited
}

// stop asks the child to end and waits for it.
func (c *child) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	<-c.exited
}

// killed reports whether the child ended by SIGKILL.
func (c *child) killed() bool {
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// childStack starts the services of a child's role.
func childStack(ctx context.Context, roles stack.Roles, change func(*stack.Options, childOptions)) error {
	var o childOptions
	if err := json.Unmarshal([]byte(os.Getenv(childVariable)), &o); err != nil {
		return err
	}
	options := stack.Options{
		Database: o.Database, ConfigFiles: []string{o.Config}, Dir: o.Dir, HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0", Roles: roles,
		InternalToken: internalToken, WebhookToken: webhookToken, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	change(&options, o)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	services, err := stack.Start(ctx, options)
	if err != nil {
		return err
	}
	fmt.Println("ready", services.GRPC)
	<-ctx.Done()
	return services.Stop(context.WithoutCancel(ctx))
}

func runWorker() error {
	return childStack(context.Background(), stack.Roles{Worker: true}, func(*stack.Options, childOptions) {})
}
