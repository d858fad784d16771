// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/local/s3/s3test"
	configv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/config/v1"
	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// patience is how long anything may take before a test gives up on it.
const patience = 60 * time.Second

// lake is a whole LakeRunner of a test's own: database, bucket, services.
type lake struct {
	t        testing.TB
	database string
	bucket   *s3test.Bucket
	dir      string // of the configuration
	work     string // of the services
	stack    *stack.Stack
	keys     map[string]string // secret by organization
	adminKey string

	conn     *grpc.ClientConn
	query    queryv1.QueryServiceClient
	ingestor ingestorv1.IngestorServiceClient
	notifier notifierv1.NotifierServiceClient
	config   configv1.ConfigServiceClient
}

// lakeOptions are what tests want different.
type lakeOptions struct {
	organizations []string                     // default: "default"
	database      string                       // a URL; empty: one of the test's own
	endpoint      string                       // of the bucket as the services reach it; empty: its own
	settings      string                       // of each organization, as further lines of YAML
	onRewrite     string                       // of the storage profile
	streamLabels  []string                     // of the storage profile
	workers       []string                     // addresses; none: one in process
	roles         stack.Roles                  // zero: all
	deaf          bool                         // no events reach the notifier
	tune          func(*stack.ServiceSettings) // change services' settings
}

// newLake starts a lake; it ends with the test.
func newLake(t testing.TB, o lakeOptions) *lake {
	t.Helper()
	if len(o.organizations) == 0 {
		o.organizations = []string{"default"}
	}
	if o.database == "" {
		o.database = indextest.URL(t)
	}
	l := &lake{t: t, database: o.database, bucket: s3test.New(t), dir: t.TempDir(), work: t.TempDir(), keys: map[string]string{}}
	l.writeConfig(o)
	l.start(o)
	return l
}

// start runs the services. A lake that was stopped goes on with what it had.
func (l *lake) start(o lakeOptions) {
	l.t.Helper()
	options := l.options()
	options.Workers, options.Roles, options.Tune = o.workers, o.roles, o.tune
	if os.Getenv("LAKERUNNER_E2E_LOG") != "" {
		options.Log = slog.New(slog.NewTextHandler(l.t.Output(), nil))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	if l.stack, err = stack.Start(ctx, options); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(l.stop)
	if !o.deaf {
		l.bucket.OnEvent(l.t, l.deliver)
	}
	l.connect()
}

// options are what the lake's own services and those in child processes share.
func (l *lake) options() stack.Options {
	return stack.Options{
		Database: l.database, ConfigDB: l.database, ConfigFiles: []string{l.configPath()}, Dir: l.work,
		HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0", InternalToken: internalToken, WebhookToken: webhookToken, Log: slog.New(slog.DiscardHandler),
	}
}

// Tokens that the processes of a test share.
const (
	webhookToken  = "token-of-the-test-webhook"
	internalToken = "token-between-the-test-processes"
)

func (l *lake) configPath() string { return filepath.Join(l.dir, "lakerunner.yaml") }

func (l *lake) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.stack.Stop(ctx); err != nil {
		l.t.Errorf("stop: %v", err)
	}
}

func (l *lake) writeConfig(o lakeOptions) {
	l.t.Helper()
	var b strings.Builder
	fmt.Fprint(&b, "organizations:\n")
	for _, organization := range o.organizations {
		fmt.Fprintf(&b, "  - id: %s\n%s", organization, o.settings)
	}
	location := l.bucket.Location
	location.Endpoint = cmp.Or(o.endpoint, location.Endpoint)
	fmt.Fprintf(&b, "storage_profiles:\n  - name: test\n    bucket: %q\n    organization: %s\n    endpoint: %q\n    region: %q\n    access_key: %q\n    secret_key: %q\n    path_style: true\n",
		location.Name, o.organizations[0], location.Endpoint, location.Region, location.AccessKey, location.SecretKey)
	if o.onRewrite != "" {
		fmt.Fprintf(&b, "    on_rewrite: %s\n", o.onRewrite)
	}
	if len(o.streamLabels) > 0 {
		fmt.Fprintf(&b, "    stream_labels: [%s]\n", strings.Join(o.streamLabels, ", "))
	}
	fmt.Fprint(&b, "api_keys:\n")
	key := func(id, organization, scopes string) string {
		secret := config.NewSecret()
		hash := config.Hash(secret)
		fmt.Fprintf(&b, "  - id: %s\n    scopes: [%s]\n    sha256: %s\n", id, scopes, hex.EncodeToString(hash[:]))
		if organization != "" {
			fmt.Fprintf(&b, "    organization: %s\n", organization)
		}
		return secret
	}
	for _, organization := range o.organizations {
		l.keys[organization] = key("key-"+organization, organization, "query, ingest")
	}
	l.adminKey = key("admin", "", "admin")
	if err := os.WriteFile(l.configPath(), []byte(b.String()), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// deliver hands an event of the bucket to the webhook, as the S3 server would.
func (l *lake) deliver(ctx context.Context, event []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.stack.HTTP+stack.WebhookPath(webhookToken), bytes.NewReader(event))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode/100 != 2 {
		body, _ := io.ReadAll(response.Body)
		return fmt.Errorf("webhook: %s: %s", response.Status, body)
	}
	return nil
}

func (l *lake) connect() {
	l.t.Helper()
	conn, err := grpc.NewClient(l.stack.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(80<<20), grpc.MaxCallSendMsgSize(80<<20)))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = conn.Close() })
	l.conn = conn
	l.query, l.ingestor = queryv1.NewQueryServiceClient(conn), ingestorv1.NewIngestorServiceClient(conn)
	l.notifier, l.config = notifierv1.NewNotifierServiceClient(conn), configv1.NewConfigServiceClient(conn)
}

// as returns a context that acts for an organization.
func (l *lake) as(organization string) context.Context {
	return withKey(l.t.Context(), l.keys[organization])
}

func withKey(ctx context.Context, key string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
}

// put writes an object into the bucket.
func (l *lake) put(key string, body []byte) string {
	l.t.Helper()
	written, err := l.bucket.Put(l.t.Context(), key, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		l.t.Fatal(err)
	}
	return written.Tag
}

// awaitReceipts waits until so many receipts of an organization exist under a prefix and none of them is pending.
func (l *lake) awaitReceipts(organization, prefix string, want int) []*lakev1.Receipt {
	l.t.Helper()
	var got []*lakev1.Receipt
	eventually(l.t, func() error {
		got = l.receipts(organization, prefix)
		pending := 0
		for _, r := range got {
			if r.GetState() == lakev1.ReceiptState_RECEIPT_STATE_PENDING {
				pending++
			}
		}
		if len(got) != want || pending > 0 {
			return fmt.Errorf("%d receipts under %q, %d of them pending; want %d", len(got), prefix, pending, want)
		}
		return nil
	})
	return got
}

func (l *lake) receipts(organization, prefix string) []*lakev1.Receipt {
	l.t.Helper()
	var all []*lakev1.Receipt
	request := &ingestorv1.ListReceiptsRequest{KeyPrefix: prefix, PageSize: 1000}
	for {
		page, err := l.ingestor.ListReceipts(l.as(organization), request)
		if err != nil {
			l.t.Fatal(err)
		}
		all = append(all, page.GetReceipts()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return all
		}
	}
}

// eventually waits until check has nothing to say.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.After(patience)
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("still not after %s: %v", patience, err)
		}
	}
}
