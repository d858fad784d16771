// SPDX-License-Identifier: AGPL-3.0-only

// Package postgres runs a PostgreSQL server on this machine for one process: for `lakerunner up` and for tests.
//
// Invariants:
//
//  1. The server listens on the loopback interface alone, and asks for a password that only its directory holds.
//  2. It ends with the process that started it, however that one ends.
//  3. A directory serves again after any end, a kill included; two processes never serve one directory.
//  4. PostgreSQL never runs as root: the server drops to another user, and its directory is made reachable for that one.
//
// It does not tune, upgrade or replicate: a directory of another major version is refused with both versions named.
package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// superuser is the name of the role that owns everything in the server.
const superuser = "lakerunner"

// Options say where and how a server runs.
type Options struct {
	// Dir holds the server's data, log and password. It is created, and serves again when it exists.
	Dir string
	// Port on 127.0.0.1. Zero: a free one.
	Port int
	// Log hears of installations, which take a while. Nil: nobody does.
	Log *slog.Logger
	// NoSync trades durability for speed: a crash of the machine loses the data. For tests.
	NoSync bool
	// Search says where the binaries are found. Nil: DefaultSearch().
	Search *Search
	// Settings are further server settings, such as shared_buffers.
	Settings map[string]string
}

// Server is a running PostgreSQL server.
type Server struct {
	options  Options
	binaries Binaries
	account  *account
	lock     *os.File
	port     int
	password string
	cmd      *exec.Cmd
	exited   chan struct{} // closed when the server's process has ended
}

// Start runs a server on a directory and returns when it answers.
func Start(ctx context.Context, options Options) (*Server, error) {
	s, err := prepare(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL in %s: %w", options.Dir, err)
	}
	if err := s.startOnFreePort(ctx); err != nil {
		s.unlock()
		return nil, fmt.Errorf("start PostgreSQL in %s: %w", options.Dir, err)
	}
	return s, nil
}

// URL names a database of the server.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, s.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// CreateDatabase makes a database unless it exists.
func (s *Server) CreateDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return fmt.Errorf("look for database %s: %w", name, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

// Exited is closed when the server's process has ended, by Stop or by itself.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Major is the major version of the server.
func (s *Server) Major() int { return s.binaries.Major }

// PID is the process id of the server.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Stop ends the server cleanly: clients are cut off, everything is on disk. When ctx ends first it is ended at once; its
// directory then recovers at the next start.
func (s *Server) Stop(ctx context.Context) error {
	defer s.unlock()
	s.signal(syscall.SIGINT) // "fast shutdown"
	select {
	case <-s.exited:
		return nil
	case <-ctx.Done():
	}
	s.signal(syscall.SIGQUIT) // "immediate shutdown"
	select {
	case <-s.exited:
	case <-time.After(5 * time.Second):
		s.signal(syscall.SIGKILL)
		<-s.exited
	}
	return fmt.Errorf("stop PostgreSQL in %s: %w", s.options.Dir, ctx.Err())
}

// prepare finds the binaries and makes the directory ready for a start.
func prepare(ctx context.Context, options Options) (*Server, error) {
	dir, err := filepath.Abs(options.Dir)
	if err != nil {
		return nil, err
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	if options.Search == nil {
		options.Search = DefaultSearch()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if options.Dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	s := &Server{options: options}
	if s.lock, err = lockDirectory(options.Dir); err != nil {
		return nil, err
	}
	if err := s.initialize(ctx); err != nil {
		s.unlock()
		return nil, err
	}
	return s, nil
}

func (s *Server) initialize(ctx context.Context) error {
	var err error
	if s.account, err = serverAccount(); err != nil {
		return err
	}
	if err := s.account.makeReachable(s.options.Dir); err != nil {
		return err
	}
	if s.binaries, err = s.options.Search.find(ctx, s.dataVersion(), s.options.Log); err != nil {
		return err
	}
	if err := s.account.makeReachable(s.binaries.Dir); err != nil {
		return err
	}
	if err := s.readPassword(); err != nil {
		return err
	}
	if s.dataVersion() == 0 {
		return s.createCluster(ctx)
	}
	return endOrphan(ctx, s.data())
}

func (s *Server) data() string { return filepath.Join(s.options.Dir, "data") }

func (s *Server) logFile() string { return filepath.Join(s.options.Dir, "postgres.log") }

// dataVersion is the major version that made the data; zero: there is none yet.
func (s *Server) dataVersion() int {
	b, err := os.ReadFile(filepath.Join(s.data(), "PG_VERSION"))
	if err != nil {
		return 0
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return major
}

// readPassword reads the server's password, or makes one that nobody can guess.
func (s *Server) readPassword() error {
	file := filepath.Join(s.options.Dir, "password")
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		b = []byte(rand.Text())
		err = os.WriteFile(file, b, 0o600)
	}
	s.password = string(b)
	return err
}

// createCluster runs initdb beside the place of the data and moves the result there: what stands there is whole.
func (s *Server) createCluster(ctx context.Context) error {
	unfinished := filepath.Join(s.options.Dir, "data.new")
	if err := errors.Join(os.RemoveAll(unfinished), os.RemoveAll(s.data())); err != nil {
		return err
	}
	if err := s.account.mkdir(unfinished); err != nil {
		return err
	}
	// initdb must be able to read the password as the other user, and nobody else may.
	secret, err := s.account.writeSecret(s.options.Dir, s.password)
	if err != nil {
		return err
	}
	defer os.Remove(secret)
	args := []string{"-D", unfinished, "-U", superuser, "--pwfile", secret, "-A", "password", "-E", "UTF8", "--locale=C"}
	if s.options.NoSync {
		args = append(args, "--no-sync")
	}
	cmd := s.command(exec.CommandContext(ctx, filepath.Join(s.binaries.Dir, "initdb"), args...))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, lastLines(string(out)))
	}
	return os.Rename(unfinished, s.data())
}

// startOnFreePort starts the server, and once more when somebody else took the free port in between.
func (s *Server) startOnFreePort(ctx context.Context) error {
	var err error
	for range 3 {
		if s.port, err = choosePort(s.options.Port); err != nil {
			return err
		}
		if err = s.start(ctx); err == nil || s.options.Port != 0 || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func choosePort(wanted int) (int, error) {
	if wanted != 0 {
		return wanted, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *Server) start(ctx context.Context) error {
	log, err := os.Create(s.logFile())
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = s.command(exec.Command(filepath.Join(s.binaries.Dir, "postgres"), s.arguments()...))
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.exited = make(chan struct{})
	if err := s.spawn(); err != nil {
		return err
	}
	if err := s.awaitAnswer(ctx); err != nil {
		s.signal(syscall.SIGQUIT)
		<-s.exited
		return err
	}
	return nil
}

func (s *Server) arguments() []string {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "", // a socket's path may be too long, and its permissions are one more door
		"max_connections":         "200",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
	}
	if s.options.NoSync {
		settings["fsync"] = "off"
		settings["synchronous_commit"] = "off"
		settings["full_page_writes"] = "off"
	}
	for name, value := range s.options.Settings {
		settings[name] = value
	}
	args := []string{"-D", s.data()}
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	return args
}

// command lets a command run as the server's user, and end with this process.
func (s *Server) command(cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir = s.options.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=" + s.options.Dir}
	cmd.SysProcAttr = s.account.processAttributes()
	return cmd
}

// spawn starts the server's process and waits for its end in the background. The kernel's death signal follows the thread
// that started a process, not the process of that thread: so one goroutine keeps its thread for as long as the server lives.
func (s *Server) spawn() error {
	started := make(chan error, 1)
	cmd, exited := s.cmd, s.exited
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended stands in its log
		}
		close(exited)
	}()
	return <-started
}

func (s *Server) awaitAnswer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("the server ended: %s", s.lastLog())
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w: %s", err, s.lastLog())
		case <-tick.C:
		}
	}
}

func (s *Server) ping(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func (s *Server) lastLog() string {
	b, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return lastLines(string(b))
}

func (s *Server) signal(sig syscall.Signal) { _ = s.cmd.Process.Signal(sig) } // it may have ended already

func (s *Server) unlock() { _ = s.lock.Close() }

// lastLines cuts a log to what fits into an error.
func lastLines(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "; ")
}
