// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"cmp"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Config are the settings of a process, whatever services live in it. The zero value is good.
type Config struct {
	Log       LogConfig       `yaml:"log"`
	GRPC      ListenConfig    `yaml:"grpc"`
	HTTP      ListenConfig    `yaml:"http"`
	TLS       TLSConfig       `yaml:"tls"`
	Client    ClientConfig    `yaml:"client"`
	Telemetry TelemetryConfig `yaml:"telemetry"`
	LRDB      DatabaseConfig  `yaml:"lrdb"`
	ConfigDB  ConfigDBConfig  `yaml:"configdb"`
	Shutdown  ShutdownConfig  `yaml:"shutdown"`
	Runtime   RuntimeConfig   `yaml:"runtime"`
	// InternalToken is the secret that services show one another; the same in every process. Empty: a random one, which is right
	// where all services live in one process.
	InternalToken string `yaml:"internal_token"`
}

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn or error; empty: info
	Format string `yaml:"format"` // json or text; empty: json
}

// ListenConfig is the address of a listener.
type ListenConfig struct {
	Listen string `yaml:"listen"` // host:port; port 0: a free one
}

// TLSConfig is what servers show. Both files are read again when they change.
type TLSConfig struct {
	CertFile     string `yaml:"cert_file"`      // empty: no TLS
	KeyFile      string `yaml:"key_file"`       //
	ClientCAFile string `yaml:"client_ca_file"` // not empty: clients must show a certificate of these authorities
}

// ClientConfig is how services of other processes are called.
type ClientConfig struct {
	TLS        bool   `yaml:"tls"`
	CAFile     string `yaml:"ca_file"`   // empty: the system's authorities
	CertFile   string `yaml:"cert_file"` // shown to servers that ask for one
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"` // empty: the name that was dialled
}

// TelemetryConfig says where traces go. Metrics are always served on /metrics.
type TelemetryConfig struct {
	OTLPEndpoint string   `yaml:"otlp_endpoint"` // URL of an OTLP gRPC receiver; empty: as OTEL_EXPORTER_OTLP_ENDPOINT says, else none
	SampleRatio  *float64 `yaml:"sample_ratio"`  // of traces that begin here, 0 to 1; empty: 1
}

// DatabaseConfig is lrdb's.
type DatabaseConfig struct {
	URL      string `yaml:"url"` // LRDB_URL says it too
	MaxConns int    `yaml:"max_conns"`
}

// ConfigDBConfig is configdb's.
type ConfigDBConfig struct {
	URL string `yaml:"url"` // CONFIGDB_URL says it too; empty: there is none
}

// ShutdownConfig holds the deadlines of the phases of a shutdown.
type ShutdownConfig struct {
	Delay time.Duration `yaml:"delay"` // not ready any more, still serving: for load balancers to notice
	Drain time.Duration `yaml:"drain"` // servers finish what they have begun; zero: 10 s
	Loops time.Duration `yaml:"loops"` // services finish or give back their work; zero: 40 s
	Close time.Duration `yaml:"close"` // connections close, telemetry is sent; zero: 5 s
}

// RuntimeConfig bounds the Go runtime.
type RuntimeConfig struct {
	MemoryRatio float64 `yaml:"memory_ratio"` // share of the container's memory that GOMEMLIMIT gets; zero: as the process says, else 0.9
}

func (c Config) withDefaults() Config {
	c.Log.Level = cmp.Or(c.Log.Level, "info")
	c.Log.Format = cmp.Or(c.Log.Format, "json")
	c.GRPC.Listen = cmp.Or(c.GRPC.Listen, ":9090")
	c.HTTP.Listen = cmp.Or(c.HTTP.Listen, ":8080")
	c.Shutdown.Drain = cmp.Or(c.Shutdown.Drain, 10*time.Second)
	c.Shutdown.Loops = cmp.Or(c.Shutdown.Loops, 40*time.Second)
	c.Shutdown.Close = cmp.Or(c.Shutdown.Close, 5*time.Second)
	return c
}

func (c Config) validate() error {
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		return fault.New(fault.Invalid, "tls: cert_file and key_file belong together; give both")
	}
	if c.TLS.ClientCAFile != "" && c.TLS.CertFile == "" {
		return fault.New(fault.Invalid, "tls: client_ca_file needs cert_file and key_file too")
	}
	if (c.Client.CertFile == "") != (c.Client.KeyFile == "") {
		return fault.New(fault.Invalid, "client: cert_file and key_file belong together; give both")
	}
	if ratio := c.Telemetry.SampleRatio; ratio != nil && (*ratio < 0 || *ratio > 1) {
		return fault.New(fault.Invalid, "telemetry.sample_ratio is %v; want 0 to 1", *ratio)
	}
	if c.Runtime.MemoryRatio < 0 || c.Runtime.MemoryRatio > 1 {
		return fault.New(fault.Invalid, "runtime.memory_ratio is %v; want 0 to 1", c.Runtime.MemoryRatio)
	}
	if t := c.InternalToken; t != "" && len(t) < 16 {
		return fault.New(fault.Invalid, "internal_token has fewer than 16 characters; make one with: openssl rand -hex 32")
	}
	return nil
}
