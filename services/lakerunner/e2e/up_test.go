// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/local/s3/s3test"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/cli"
)

// roleUp is `lakerunner up` itself: it serves S3, of which a process can have only one, so it cannot share the test's.
const roleUp = "up"

func runUp() error {
	var args []string
	if err := json.Unmarshal([]byte(os.Getenv(childVariable)), &args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if code := cli.Run(ctx, cli.Environment{Args: args, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Environ: os.Environ(), Now: time.Now}); code != 0 && code != 130 {
		return fmt.Errorf("exit code %d", code)
	}
	return nil
}

// TestUp starts everything with one command, asks, stops with Ctrl-C, and goes on with the same data.
func TestUp(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	args := []string{"up", "--data", data, "--http", freePort(t), "--grpc", freePort(t), "--s3", freePort(t), "--postgres-port", "-1"}

	first := startUp(t, args)
	welcome := first.until(t, "order ord_")
	for _, want := range []string{"API key", "datasources:", `|= "declined"`, "over 6000 rows"} {
		if !strings.Contains(welcome, want) {
			t.Errorf("%q is missing in the welcome:\n%s", want, welcome)
		}
	}
	if count := askUp(t, data); count != "6000" {
		t.Errorf("counted %s rows, want 6000", count)
	}
	metrics := first.until(t, "--promql '")
	values := first.until(t, "checkout  ")
	for _, want := range []string{"requests a second", "--data " + data} {
		if !strings.Contains(metrics, want) {
			t.Errorf("%q is missing in the welcome:\n%s", want, metrics)
		}
	}
	lines := strings.Split(strings.TrimSpace(metrics), "\n")
	if chart := runPrinted(t, lines[len(lines)-1]); !strings.Contains(chart, "┤") || !strings.Contains(chart, `{service_name="checkout"}`) {
		t.Errorf("the printed command does not draw the values\n%s\nbut\n%s", values, chart)
	}

	t.Run("a taken port is named, with a remedy", func(t *testing.T) {
		second := startUp(t, append([]string{"up", "--data", t.TempDir()}, args[3:]...))
		<-second.exited
		if said := second.said(); !strings.Contains(said, "another program has that port") || !strings.Contains(said, "--http") {
			t.Errorf("said: %s", said)
		}
	})
	t.Run("a data directory is not shared", func(t *testing.T) {
		second := startUp(t, []string{"up", "--data", data})
		<-second.exited
		if said := second.said(); !strings.Contains(said, "in use by another") {
			t.Errorf("said: %s", said)
		}
	})
	first.interrupt(t)

	again := startUp(t, args)
	again.until(t, "order ord_")
	if count := askUp(t, data); count != "6000" {
		t.Errorf("after a restart: counted %s rows, want 6000", count)
	}
	again.interrupt(t)
}

// TestUpOnWhatTheEnvironmentNames starts nothing that LRDB_URL and S3_BUCKET name already, puts the sample there, and goes on with it.
func TestUpOnWhatTheEnvironmentNames(t *testing.T) {
	t.Parallel()
	data, database, bucket := t.TempDir(), indextest.URL(t), s3test.New(t)
	environ := []string{
		"LRDB_URL=" + database, "S3_BUCKET=" + bucket.Name(), "S3_ENDPOINT=" + bucket.Location.Endpoint, "AWS_REGION=" + bucket.Location.Region,
		"AWS_ACCESS_KEY_ID=" + bucket.Location.AccessKey, "AWS_SECRET_ACCESS_KEY=" + bucket.Location.SecretKey,
	}
	args := []string{"up", "--data", data, "--http", freePort(t), "--grpc", freePort(t)}

	first := startUp(t, args, environ...)
	welcome := first.until(t, "order ord_")
	if !strings.Contains(welcome, "Bucket      "+bucket.Name()) || strings.Contains(welcome, "starting PostgreSQL") || strings.Contains(welcome, "starting the S3 server") {
		t.Errorf("said:\n%s", welcome)
	}
	if count := askUp(t, data); count != "6000" {
		t.Errorf("counted %s rows, want 6000", count)
	}
	first.interrupt(t)

	for _, own := range []string{"postgres", "s3"} {
		if _, err := os.Stat(filepath.Join(data, own)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it made a %s of its own: %v", own, err)
		}
	}
	for _, prefix := range []string{"otel-raw/default/", "db/default/"} {
		found := 0
		for _, err := range bucket.List(t.Context(), prefix, "") {
			if err != nil {
				t.Fatal(err)
			}
			found++
		}
		if found == 0 {
			t.Errorf("nothing under %s", prefix)
		}
	}

	again := startUp(t, args, environ...)
	again.until(t, "order ord_")
	if count := askUp(t, data); count != "6000" {
		t.Errorf("after a restart: counted %s rows, want 6000", count)
	}
	again.interrupt(t)
}

// askUp counts the sample's rows with the command line and no flags but the directory, as a user of the laptop would.
func askUp(t *testing.T, data string) string {
	t.Helper()
	var out, remarks strings.Builder
	code := cli.Run(t.Context(), cli.Environment{
		Args:   []string{"query", `sum(count_over_time({service_name=~".+"}[1h]))`, "-o", "raw", "--data", data},
		Stdout: &out, Stderr: &remarks, Getenv: func(string) string { return "" }, Now: time.Now,
	})
	fields := strings.Fields(out.String())
	if code != 0 || len(fields) < 2 {
		t.Fatalf("exit code %d: %s%s", code, out.String(), remarks.String())
	}
	return fields[1]
}

// runPrinted runs a command line that was printed for users to copy. It has one word in quotes.
func runPrinted(t *testing.T, line string) string {
	t.Helper()
	parts := strings.Split(strings.TrimSpace(line), "'")
	if len(parts) != 3 {
		t.Fatalf("printed: %s", line)
	}
	args := append(append(strings.Fields(parts[0])[1:], parts[1]), strings.Fields(parts[2])...)
	var out, remarks strings.Builder
	code := cli.Run(t.Context(), cli.Environment{Args: args, Stdout: &out, Stderr: &remarks, Getenv: func(string) string { return "" }, Now: time.Now})
	if code != 0 {
		t.Fatalf("%s: exit code %d: %s", line, code, remarks.String())
	}
	return out.String()
}

func startUp(t *testing.T, args []string, environ ...string) *child {
	t.Helper()
	options, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	return startProcess(t, roleUp, string(options), environ...)
}

// until reads standard output up to a line that contains the text.
func (c *child) until(t *testing.T, text string) string {
	t.Helper()
	var all strings.Builder
	for line := range c.lines {
		all.WriteString(line + "\n")
		if strings.Contains(line, text) {
			return all.String()
		}
	}
	t.Fatalf("it ended before it said %q:\n%s\n%s", text, all.String(), c.said())
	return ""
}

// interrupt is Ctrl-C: the process ends well.
func (c *child) interrupt(t *testing.T) {
	t.Helper()
	_ = c.cmd.Process.Signal(syscall.SIGINT)
	for range c.lines { // what it still says
	}
	<-c.exited
	if !c.cmd.ProcessState.Success() {
		t.Errorf("after Ctrl-C: %v: %s", c.cmd.ProcessState, c.said())
	}
}

// freePort is an address that nobody listens on at this moment.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}
