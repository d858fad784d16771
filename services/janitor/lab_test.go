// SPDX-License-Identifier: AGPL-3.0-only

package janitor_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/local/s3/s3test"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	"github.com/lakerunner/lakerunner/services/janitor"
)

const (
	acme lake.Organization = "acme"
	day                    = 24 * time.Hour
)

// lab is a janitor over a real index and a real bucket, with an ingest that does what it promises.
type lab struct {
	*testing.T
	index  *index.Index
	url    string
	bucket *s3test.Bucket
	source config.Source
	api    janitorv1.JanitorServiceServer
	ctx    context.Context   //nolint:containedctx // of the caller of the API
	crash  string            // checkpoint at which the next step ends
	during map[string]func() // what others do meanwhile, by checkpoint, once
	put    int
}

// settings are what a test wants to be otherwise.
type settings struct {
	organization string // more of the organization's configuration, as a YAML flow mapping without braces
	profile      string // the same of the storage profile
	config       janitor.Config
}

func setup(t *testing.T, s settings) *lab {
	t.Helper()
	l := &lab{T: t, url: indextest.URL(t), bucket: s3test.New(t)}
	x, err := index.Open(t.Context(), index.Config{URL: l.url, MaxConns: 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	l.index = x
	at := l.bucket.Location
	l.source, err = config.Static(fmt.Sprintf(`
organizations: [{id: acme, limits: {query_timeout: 1ms}%s}]
storage_profiles:
  - {name: main, bucket: %s, organization: acme, endpoint: %q, region: %s, access_key: %q, secret_key: %q, path_style: true%s}
`, s.organization, at.Name, at.Endpoint, at.Region, at.AccessKey, at.SecretKey, s.profile))
	if err != nil {
		t.Fatal(err)
	}
	l.ctx = config.WithIdentity(t.Context(), config.Identity{KeyID: "test", Organization: acme, Scopes: []config.Scope{config.ScopeAdmin}})
	service := l.service(s.config)
	service.RegisterGRPC(l)
	return l
}

func (l *lab) service(c janitor.Config) *janitor.Service {
	l.Helper()
	service, err := janitor.New(c, janitor.Deps{
		Index: l.index, Config: l.source, Objects: config.Buckets(l.source, nil), Notifier: notifier{l.index}, Checkpoint: l.checkpoint,
	})
	if err != nil {
		l.Fatal(err)
	}
	return service
}

// RegisterService takes the API out of the service.
func (l *lab) RegisterService(_ *grpc.ServiceDesc, implementation any) {
	l.api = implementation.(janitorv1.JanitorServiceServer)
}

// checkpoint ends the step under way as a crash would: nothing after it is done.
func (l *lab) checkpoint(name string) {
	if others := l.during[name]; others != nil {
		delete(l.during, name)
		others()
	}
	if name != "" && name == l.crash {
		l.crash = ""
		panic("crash at " + name)
	}
}

// notifier takes notice as the notifier does.
type notifier struct{ index *index.Index }

func (n notifier) Invoke(ctx context.Context, method string, args, _ any, _ ...grpc.CallOption) error {
	request, ok := args.(*notifierv1.NotifyObjectsRequest)
	if !ok {
		return fault.New(fault.Internal, "the notifier was asked for %s", method)
	}
	var notices []index.Notice
	for _, o := range request.GetObjects() {
		notices = append(notices, index.Notice{
			Object:       lake.Object{Bucket: o.GetBucket(), Key: o.GetKey(), Tag: o.GetTag(), Size: o.GetSize(), LastModified: o.GetLastModified().AsTime()},
			Organization: acme, Signal: lake.SignalLogs,
		})
	}
	_, err := n.index.Receive(ctx, notices)
	return err
}

func (n notifier) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, fault.New(fault.Unsupported, "no streams")
}

// sql does to the database what only time does otherwise.
func (l *lab) sql(statement string, args ...any) {
	l.Helper()
	conn, err := pgx.Connect(l.Context(), l.url)
	if err != nil {
		l.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(l.Context()))
	if _, err := conn.Exec(l.Context(), statement, args...); err != nil {
		l.Fatal(err)
	}
}

// object puts a source object, which nobody is told of.
func (l *lab) object(key string) lake.Object {
	l.Helper()
	l.put++
	content := fmt.Sprintf("object %d of %s", l.put, key)
	a, err := l.bucket.Put(l.Context(), key, strings.NewReader(content), int64(len(content)))
	if err != nil {
		l.Fatal(err)
	}
	return lake.Object{Bucket: l.bucket.Name(), Key: key, Tag: a.Tag, Size: a.Size, LastModified: time.Now()}
}

// receive writes receipts of objects.
func (l *lab) receive(objects ...lake.Object) []lake.Receipt {
	l.Helper()
	var notices []index.Notice
	for _, o := range objects {
		notices = append(notices, index.Notice{Object: o, Organization: acme, Signal: lake.SignalLogs})
	}
	noticed, err := l.index.Receive(l.Context(), notices)
	if err != nil {
		l.Fatal(err)
	}
	var receipts []lake.Receipt
	for _, n := range noticed {
		receipts = append(receipts, n.Receipt)
	}
	return receipts
}

// claim claims the ingest of a new object, and declares the folder of its segments.
func (l *lab) claim(window lake.Window) *lake.Lease {
	l.Helper()
	receipt := l.receive(l.object(fmt.Sprintf("logs-raw/acme/%d.log", l.put)))[0]
	lease, err := l.index.Claim(l.Context(), index.Batch{Kind: lake.TaskIngest, Receipt: receipt.ID})
	if err != nil || lease == nil {
		l.Fatalf("claim: %v, %v", lease, err)
	}
	if err := l.index.Declare(l.Context(), lease.ID, []string{l.bucket.Name() + "/" + folder(lease.ID, window)}); err != nil {
		l.Fatal(err)
	}
	return lease
}

func folder(lease lake.LeaseID, window lake.Window) string {
	key := lake.SegmentKey(acme, lake.SignalLogs, window, lease, 0)
	return key[:strings.LastIndexByte(key, '/')+1]
}

// write writes a segment's two files.
func (l *lab) write(lease lake.LeaseID, window lake.Window, n int) lake.Segment {
	l.Helper()
	key := lake.SegmentKey(acme, lake.SignalLogs, window, lease, n)
	for _, name := range []string{key, lake.SidecarKey(key)} {
		if _, err := l.bucket.Put(l.Context(), name, bytes.NewReader([]byte(name)), int64(len(name))); err != nil {
			l.Fatal(err)
		}
	}
	return lake.Segment{
		Organization: acme, Signal: lake.SignalLogs, Window: window, Bucket: l.bucket.Name(), Key: key, Bytes: int64(len(key)),
		SidecarBytes: int64(len(key) + len(lake.SidecarSuffix)), Rows: 10, FirstTime: window.Start, LastTime: window.Start.Add(time.Second), FormatVersion: 2,
	}
}

// segment ingests one object into one segment of an hour so long ago.
func (l *lab) segment(ago time.Duration) lake.Segment {
	l.Helper()
	window := lake.WindowOf(time.Now().Add(-ago), time.Hour)
	lease := l.claim(window)
	segment := l.write(lease.ID, window, 0)
	l.commit(lease, segment)
	return segment
}

func (l *lab) commit(lease *lake.Lease, segments ...lake.Segment) {
	l.Helper()
	receipt := lease.Receipts[0].ID
	rows := int64(0)
	for i := range segments {
		segments[i].Sources = []lake.ReceiptID{receipt}
		rows += segments[i].Rows
	}
	edit := lake.Edit{Add: segments, Outcomes: []lake.Outcome{{Receipt: receipt, State: lake.ReceiptDone, Signal: lake.SignalLogs, RowsIn: rows, RowsOut: rows}}}
	if err := l.index.Commit(l.Context(), lease, edit); err != nil {
		l.Fatal(err)
	}
}

// live counts the live segments of all time.
func (l *lab) live() int {
	l.Helper()
	answer, err := l.index.Lookup(l.Context(), index.Query{Organization: acme, Signal: lake.SignalLogs, Start: time.Unix(0, 0), End: time.Now().Add(day)})
	if err != nil {
		l.Fatal(err)
	}
	return len(answer.Segments)
}

// files lists the keys below a prefix.
func (l *lab) files(prefix string) []string {
	l.Helper()
	var keys []string
	for a, err := range l.bucket.List(l.Context(), prefix, "") {
		if err != nil {
			l.Fatal(err)
		}
		keys = append(keys, a.Key)
	}
	return keys
}

// segmentFiles lists the files of segments.
func (l *lab) segmentFiles() []string { return l.files("db/acme/logs/") }

// age lets time pass for what was removed, and for leases that ended.
func (l *lab) age(d time.Duration) {
	l.Helper()
	l.sql("UPDATE segments SET removed_at = removed_at - $1::interval WHERE removed_at IS NOT NULL", fmt.Sprintf("%d seconds", int(d.Seconds())))
	l.sql("UPDATE leases SET ended_at = ended_at - $1::interval WHERE ended_at IS NOT NULL", fmt.Sprintf("%d seconds", int(d.Seconds())))
}

func (l *lab) ship() {
	l.Helper()
	must(l, l.api.ShipRecords)(&janitorv1.ShipRecordsRequest{})
}

func (l *lab) receipt(id lake.ReceiptID) lake.Receipt {
	l.Helper()
	r, err := l.index.Receipt(l.Context(), id)
	if err != nil {
		l.Fatal(err)
	}
	return r
}

// must makes a method of the API one that fails the test.
func must[Q, A any](l *lab, method func(context.Context, Q) (A, error)) func(Q) A {
	return func(request Q) A {
		l.Helper()
		answer, err := method(l.ctx, request)
		if err != nil {
			l.Fatal(err)
		}
		return answer
	}
}
