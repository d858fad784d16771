// SPDX-License-Identifier: AGPL-3.0-only

package up

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Where things are unless told otherwise.
const (
	DefaultData     = ".lakerunner"
	DefaultHTTP     = "127.0.0.1:7480"
	DefaultGRPC     = "127.0.0.1:7481"
	DefaultS3       = "127.0.0.1:7482"
	DefaultPostgres = 7483
)

// Options are what a user may choose.
type Options struct {
	Data     string // directory of all state; empty: DefaultData
	HTTP     string // Grafana, REST, webhook; empty: DefaultHTTP
	GRPC     string // empty: DefaultGRPC
	S3       string // of the embedded S3 server; empty: DefaultS3
	Postgres int    // port of the local PostgreSQL; 0: DefaultPostgres, negative: any free port
	Program  string // how the user calls this program, for what is printed
	NoSample bool   // load no sample telemetry
	Trickle  bool   // go on making sample telemetry
	Environ  []string
	Getenv   func(string) string
	Out      io.Writer
	Log      *slog.Logger
	Now      func() time.Time
	// named: the data directory is one that commands do not find by themselves.
	named bool
	// Ready is called when queries can be asked; nil: nobody wants to know.
	Ready func(Access)
}

func (o Options) withDefaults() (Options, error) {
	o.named = o.Data != "" && o.Data != DefaultData && (o.Getenv == nil || o.Data != o.Getenv("LAKERUNNER_DATA"))
	o.Data = orDefault(o.Data, DefaultData)
	o.HTTP = orDefault(o.HTTP, DefaultHTTP)
	o.GRPC = orDefault(o.GRPC, DefaultGRPC)
	o.S3 = orDefault(o.S3, DefaultS3)
	if o.Postgres == 0 {
		o.Postgres = DefaultPostgres
	}
	o.Postgres = max(o.Postgres, 0)
	if o.Ready == nil {
		o.Ready = func(Access) {}
	}
	var err error
	// The S3 server changes the working directory, so no relative path may be left.
	if o.Data, err = filepath.Abs(o.Data); err != nil {
		return o, fmt.Errorf("data directory: %w", err)
	}
	return o, o.checkLoopback()
}

// say tells the user what takes a moment.
func (o Options) say(format string, args ...any) { fmt.Fprintf(o.Out, format+" ...\n", args...) }

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}

// checkLoopback refuses addresses that others could reach: this is a machine of one user, without TLS.
func (o Options) checkLoopback() error {
	for _, a := range []struct{ flag, address string }{{"--http", o.HTTP}, {"--grpc", o.GRPC}, {"--s3", o.S3}} {
		host, _, err := net.SplitHostPort(a.address)
		if err != nil {
			return fmt.Errorf("%s %q: want an address such as 127.0.0.1:7480", a.flag, a.address)
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("%s %s: `lakerunner up` listens on the loopback interface only; to serve others run the services by themselves, with TLS", a.flag, a.address)
		}
	}
	return nil
}

// checkPort reports a port that is taken, and what to do about it.
func checkPort(flag, what, address string) error {
	listener, err := net.Listen("tcp", address)
	if err == nil {
		return listener.Close()
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s cannot listen on %s: another program has that port; stop it, or choose another port with %s", what, address, flag)
	}
	return fmt.Errorf("%s cannot listen on %s: %w; choose another address with %s", what, address, err, flag)
}

func postgresAddress(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// lock takes the data directory for this process.
func lock(data string) (release func(), err error) {
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w; choose another with --data", err)
	}
	file, err := os.OpenFile(filepath.Join(data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w; choose another with --data", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("%s is in use by another `lakerunner up`; stop that one, or choose another directory with --data", data)
	}
	return func() { _ = file.Close() }, nil
}
