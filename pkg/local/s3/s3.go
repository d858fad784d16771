// SPDX-License-Identifier: AGPL-3.0-only

// Package s3 runs a real S3 server inside this process, for a laptop and for tests: Versity's gateway over a directory, with
// signatures, conditional puts, multipart uploads and events by webhook. It listens on the loopback interface only.
//
// What a caller must know:
//
//   - One server at a time a process. The gateway keeps state in its packages, so Start fails while another server runs. Tests
//     of one package share the server of package s3test.
//   - While it runs, the process's working directory is the server's: the gateway's posix backend works on relative paths.
//     Start changes it and Stop changes it back. Whoever has a relative path makes it absolute before Start.
//   - Events come soon, in no order, and can be lost: they wait in memory for a webhook that is away, for half a minute at most
//     and until Stop. Start sends a test event first; deletes of many objects by one request send none.
//   - Objects are files below Dir/buckets, their metadata is in extended attributes or, where the file system has none, below
//     Dir/metadata. Stop and Start on the same Dir go on with what is there.
//
// It is not for production: one machine, one account.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
	"github.com/versity/versitygw/s3api"
)

const (
	defaultListen    = "127.0.0.1:0"
	defaultAccessKey = "lakerunner"
	defaultSecretKey = "lakerunner-local"
	defaultRegion    = "us-east-1"

	maxParts       = 10_000
	maxCopy        = 5 << 30
	maxConnections = 4096
	startPatience  = 20 * time.Second
	// startTries bounds the race for a free port: the gateway cannot tell which one it took, so one is chosen for it.
	startTries = 5
)

// Options say how to run a server.
type Options struct {
	// Dir holds buckets and metadata; it is made if need be.
	Dir string
	// Listen is a loopback address and a port; port 0 is a free one. Empty: 127.0.0.1:0.
	Listen string
	// AccessKey and SecretKey are the one account's. Empty: "lakerunner" and "lakerunner-local".
	AccessKey string
	SecretKey string
	Region    string // empty: us-east-1
	// WebhookURL gets an event for every object that is put or deleted. It need not listen yet. Empty: no events.
	WebhookURL string
	// OnEvent gets the events, if set, instead of WebhookURL; an error asks for the event again.
	OnEvent func(ctx context.Context, event []byte) error
}

// Server is a running S3 server.
type Server struct {
	options  Options
	endpoint string
	previous string // the working directory to go back to
	cancel   context.CancelFunc
	ended    chan struct{} // closed when the gateway has returned
	result   error         // the gateway's, once ended
	client   *s3.Client
	events   *events // nil: none
	// gate is held for reading by each request, and by Stop for ever.
	gate sync.RWMutex
}

// current is the server of this process: the gateway's packages and the working directory are there but once.
var current atomic.Pointer[Server]

// Start runs a server and returns when it answers. It lives until Stop; ctx bounds the start only.
func Start(ctx context.Context, o Options) (*Server, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("start S3 server: %w", err)
	}
	s := &Server{options: o}
	if err := s.becomeCurrent(ctx); err != nil {
		return nil, fmt.Errorf("start S3 server: %w", err)
	}
	if err := s.start(ctx); err != nil {
		current.Store(nil)
		return nil, fmt.Errorf("start S3 server: %w", err)
	}
	return s, nil
}

// Endpoint is the server's URL.
func (s *Server) Endpoint() string { return s.endpoint }

// AccessKey is the account's name.
func (s *Server) AccessKey() string { return s.options.AccessKey }

// SecretKey is the account's secret.
func (s *Server) SecretKey() string { return s.options.SecretKey }

// Region is the server's region.
func (s *Server) Region() string { return s.options.Region }

// CreateBucket makes a bucket; one that exists already is no error.
func (s *Server) CreateBucket(ctx context.Context, name string) error {
	_, err := s.client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name})
	var owned *types.BucketAlreadyOwnedByYou
	if err == nil || errors.As(err, &owned) {
		return nil
	}
	return fmt.Errorf("create bucket %s: %w", name, err)
}

// Client is an S3 client of the server, for what package objects does not do.
func (s *Server) Client() *s3.Client { return s.client }

// Stop ends the server once the requests at work are done, and delivers the events that wait, as far as ctx lets it. Clients that
// hold connections open do not delay it: the gateway waits for them behind its back.
func (s *Server) Stop(ctx context.Context) error {
	closed := make(chan struct{})
	go func() {
		s.gate.Lock()
		close(closed)
	}()
	select {
	case <-closed:
	case <-ctx.Done():
		return fmt.Errorf("stop S3 server: %w", ctx.Err())
	}
	s.cancel()
	s.stopEvents(ctx)
	if err := os.Chdir(s.previous); err != nil {
		return fmt.Errorf("stop S3 server: %w", err)
	}
	return nil
}

// LostEvents counts the events that were given up.
func (s *Server) LostEvents() int64 {
	if s.events == nil {
		return 0
	}
	return s.events.lost.Load()
}

// becomeCurrent waits for a server that is about to end, and fails where one runs.
func (s *Server) becomeCurrent(ctx context.Context) error {
	for !current.CompareAndSwap(nil, s) {
		other := current.Load()
		if other == nil {
			continue
		}
		if other.gate.TryRLock() {
			other.gate.RUnlock()
			return errors.New("another one runs in this process")
		}
		select {
		case <-other.ended:
			current.CompareAndSwap(other, nil)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *Server) start(ctx context.Context) error {
	var err error
	if s.previous, err = os.Getwd(); err != nil {
		return err
	}
	s.startEvents(ctx)
	for try := 1; ; try++ {
		err := s.startGateway(ctx)
		if err == nil {
			return nil
		}
		if try == startTries || !errors.Is(err, syscall.EADDRINUSE) || !strings.HasSuffix(s.options.Listen, ":0") {
			s.stopEvents(ctx)
			return errors.Join(err, os.Chdir(s.previous))
		}
	}
}

func (s *Server) startEvents(ctx context.Context) {
	deliver := s.options.OnEvent
	if deliver == nil && s.options.WebhookURL != "" {
		deliver = post(s.options.WebhookURL)
	}
	if deliver != nil {
		s.events = startEvents(ctx, deliver)
	}
}

func (s *Server) stopEvents(ctx context.Context) {
	if s.events != nil {
		s.events.stop(ctx)
	}
}

func (s *Server) startGateway(ctx context.Context) error {
	address, err := freeAddress(ctx, s.options.Listen)
	if err != nil {
		return err
	}
	backend, err := s.open()
	if err != nil {
		return err
	}
	listening := make(chan struct{})
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.result = embedgw.RunVersityGW(run, backend, s.config(address, func() { close(listening) }))
	}()

	ctx, stop := context.WithTimeout(ctx, startPatience)
	defer stop()
	select {
	case <-listening:
	case <-ended:
		cancel()
		return s.result
	case <-ctx.Done():
		cancel()
		<-ended
		return ctx.Err()
	}
	s.endpoint, s.cancel, s.ended = "http://"+address, cancel, ended
	s.client = s.newClient()
	return nil
}

func (s *Server) config(address string, onListen func()) *embedgw.Config {
	account := auth.Account{Access: s.options.AccessKey, Secret: s.options.SecretKey, Role: auth.RoleAdmin}
	return &embedgw.Config{
		RootUserAccess:    s.options.AccessKey,
		RootUserSecret:    s.options.SecretKey,
		IAMService:        auth.NewIAMServiceSingle(account), // the gateway's own choice, which it would announce on standard output
		Region:            s.options.Region,
		Ports:             []string{address},
		MaxConnections:    maxConnections,
		MaxRequests:       maxConnections,
		MultipartMaxParts: maxParts,
		Quiet:             true,
		KeepAlive:         true,
		S3Options:         []s3api.Option{s3api.WithOnListen(onListen), s3api.WithMiddleware("/", s.admit)},
	}
}

// admit lets requests in until Stop: after it the working directory is another's.
func (s *Server) admit(c fiber.Ctx) error {
	if !s.gate.TryRLock() {
		return c.SendStatus(fiber.StatusServiceUnavailable)
	}
	defer s.gate.RUnlock()
	path := string(c.Request().URI().PathOriginal()) // the gateway rewrites it
	err := c.Next()
	if err == nil && s.events != nil {
		s.events.observe(c, path)
	}
	return err
}

// open makes the posix backend, which changes the working directory.
func (s *Server) open() (*posix.Posix, error) {
	dir, err := filepath.Abs(s.options.Dir)
	if err != nil {
		return nil, err
	}
	buckets, metadata := filepath.Join(dir, "buckets"), filepath.Join(dir, "metadata")
	if err := os.MkdirAll(buckets, 0o755); err != nil {
		return nil, err
	}
	store, options, err := metadataOf(buckets, metadata)
	if err != nil {
		return nil, err
	}
	options.CopyObjectThreshold = maxCopy
	return posix.New(buckets, store, options)
}

// metadataOf prefers extended attributes, and stays with what the directory was begun with.
func metadataOf(buckets, metadata string) (meta.MetadataStorer, posix.PosixOpts, error) {
	xattr := meta.XattrMeta{}
	_, err := os.Stat(metadata)
	if errors.Is(err, os.ErrNotExist) && xattr.Test(buckets) == nil {
		return xattr, posix.PosixOpts{}, nil
	}
	if err := os.MkdirAll(metadata, 0o755); err != nil {
		return nil, posix.PosixOpts{}, err
	}
	sidecar, err := meta.NewSideCar(metadata)
	return sidecar, posix.PosixOpts{SideCarDir: metadata}, err
}

func (s *Server) newClient() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint:               aws.String(s.endpoint),
		UsePathStyle:               true,
		Region:                     s.options.Region,
		Credentials:                credentials.NewStaticCredentialsProvider(s.options.AccessKey, s.options.SecretKey, ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
}

func (o Options) withDefaults() Options {
	if o.Listen == "" {
		o.Listen = defaultListen
	}
	if o.AccessKey == "" {
		o.AccessKey = defaultAccessKey
	}
	if o.SecretKey == "" {
		o.SecretKey = defaultSecretKey
	}
	if o.Region == "" {
		o.Region = defaultRegion
	}
	return o
}

func (o Options) check() error {
	if o.Dir == "" {
		return errors.New("no directory is given")
	}
	host, port, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return fmt.Errorf("listen address: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("listen address %s: only loopback addresses such as 127.0.0.1:%s", o.Listen, port)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("listen address %s: %w", o.Listen, err)
	}
	return nil
}

// freeAddress returns the address with a port that nobody listens on at this moment.
func freeAddress(ctx context.Context, listen string) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
