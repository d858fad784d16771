// SPDX-License-Identifier: AGPL-3.0-only

package event_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/notifier/internal/event"
)

func TestParse(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 17, 5, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		body string
		want event.Message
	}{
		"AWS, as its documentation has it": {
			`{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-west-2","eventTime":"1970-01-01T00:00:00.000Z","eventName":"ObjectCreated:Put","userIdentity":{"principalId":"P"},"requestParameters":{"sourceIPAddress":"127.0.0.1"},"responseElements":{"x-amz-request-id":"C3D1","x-amz-id-2":"Fm"},"s3":{"s3SchemaVersion":"1.0","configurationId":"testConfigRule","bucket":{"name":"amzn-s3-demo-bucket","ownerIdentity":{"principalId":"A3"},"arn":"arn:aws:s3:::amzn-s3-demo-bucket"},"object":{"key":"HappyFace.jpg","size":1024,"eTag":"d41d8cd98f00b204e9800998ecf8427e","versionId":"096f","sequencer":"0055AED6DCD90281E5"}}}]}`,
			created(whole("amzn-s3-demo-bucket", "HappyFace.jpg", "d41d8cd98f00b204e9800998ecf8427e", 1024, time.Time{})),
		},
		"MinIO: a prefix on the name, top-level names, a coded key": {
			`{"EventName":"s3:ObjectCreated:Put","Key":"b/dt=20180515/a b.json","Records":[{"eventVersion":"2.0","eventSource":"minio:s3","awsRegion":"","eventTime":"2026-11-22T17:05:00Z","eventName":"s3:ObjectCreated:Put","s3":{"bucket":{"name":"b","arn":"arn:aws:s3:::b"},"object":{"key":"dt%3D20180515%2Fa+b.json","size":7,"eTag":"c846","userMetadata":{"content-type":"application/json"},"sequencer":"16D0"}},"source":{"host":"127.0.0.1"}}]}`,
			created(whole("b", "dt=20180515/a b.json", "c846", 7, at)),
		},
		"MinIO without Records": {
			`{"EventName":"s3:ObjectCreated:Put","Key":"b/path/a+b%20c"}`,
			created(event.Object{Object: lake.Object{Bucket: "b", Key: "path/a+b%20c"}}),
		},
		"versitygw: a bare key, a quoted tag": {
			`{"Records":[{"eventVersion":"2.2","eventSource":"aws:s3","awsRegion":"us-east-1","eventTime":"2026-11-22T17:05:00Z","eventName":"s3:ObjectCreated:Put","s3":{"s3SchemaVersion":"1.0","configurationId":"webhook-global","bucket":{"name":"bucket","arn":"arn:aws:s3:::/bucket/a b+c%41.json"},"object":{"key":"a b+c%41.json","size":7,"eTag":"\"9a03\"","versionId":null,"sequencer":"1"}}}]}`,
			created(whole("bucket", "a b+c%41.json", "9a03", 7, at)),
		},
		"collectors: no tag, no version": {
			`{"Records":[{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","eventTime":"2026-11-22T17:05:00Z","s3":{"bucket":{"name":"b"},"object":{"key":"otel-raw%2Facme%2Fc1%2Flogs_1.json.gz","size":123}}}]}`,
			created(event.Object{Object: lake.Object{Bucket: "b", Key: "otel-raw/acme/c1/logs_1.json.gz", LastModified: at}}),
		},
		"a tag without a size is not enough": {
			s3("ObjectCreated:Put", `{"key":"k","eTag":"x"}`),
			created(event.Object{Object: lake.Object{Bucket: "b", Key: "k"}}),
		},
		"an empty object": {
			s3("ObjectCreated:Put", `{"key":"k","size":0,"eTag":"x"}`),
			created(whole("b", "k", "x", 0, time.Time{})),
		},
		"copied, posted, uploaded in parts": {
			`{"Records":[` + rec("ObjectCreated:Copy", `{"key":"1","size":1,"eTag":"x"}`) + `,` + rec("ObjectCreated:Post", `{"key":"2","size":1,"eTag":"x"}`) + `,` +
				rec("ObjectCreated:CompleteMultipartUpload", `{"key":"3","size":1,"eTag":"x-2"}`) + `]}`,
			created(whole("b", "1", "x", 1, time.Time{}), whole("b", "2", "x", 1, time.Time{}), whole("b", "3", "x-2", 1, time.Time{})),
		},
		"versitygw leaves the size of an upload in parts out": {
			s3("s3:ObjectCreated:CompleteMultipartUpload", `{"key":"k","size":0,"eTag":"x-2"}`),
			created(event.Object{Object: lake.Object{Bucket: "b", Key: "k"}}),
		},
		"deletes": {
			`{"Records":[` + rec("ObjectRemoved:Delete", `{"key":"1"}`) + `,` + rec("ObjectRemoved:DeleteMarkerCreated", `{"key":"2"}`) + `,` + rec("LifecycleExpiration:Delete", `{"key":"3"}`) + `]}`,
			counts(event.Deleted, 3),
		},
		"other events": {
			`{"Records":[` + rec("ObjectRestore:Completed", `{"key":"1"}`) + `,` + rec("ObjectTagging:Put", `{"key":"2"}`) + `,` +
				rec("ReducedRedundancyLostObject", `{"key":"3"}`) + `,` + rec("s3:ObjectAccessed:Get", `{"key":"4"}`) + `]}`,
			counts(event.Unknown, 4),
		},
		"a minor version to come": {
			`{"Records":[{"eventVersion":"2.99","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k","size":1,"eTag":"x"}}}]}`,
			created(whole("b", "k", "x", 1, time.Time{})),
		},
		"a major version to come": {
			`{"Records":[{"eventVersion":"3.0","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k","size":1,"eTag":"x"}}}]}`,
			counts(event.Unknown, 1),
		},
		"AWS's test event": {
			`{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2014-10-13T15:57:02.089Z","Bucket":"b","RequestId":"5582","HostId":"8cLe"}`,
			counts(event.Test, 1),
		},
		"a try with nothing in it": {" \n", counts(event.Test, 1)},
		"no records":               {`{"Records":[]}`, event.Message{Counts: map[event.Kind]int{}}},
		"two records, one bad": {
			`{"Records":[{"s3":"no"},` + rec("ObjectCreated:Put", `{"key":"k","size":1,"eTag":"x"}`) + `]}`,
			event.Message{Objects: []event.Object{whole("b", "k", "x", 1, time.Time{})}, Counts: map[event.Kind]int{event.Created: 1, event.Malformed: 1}},
		},
		"records without a bucket, a key, a name": {
			`{"Records":[{"eventName":"ObjectCreated:Put","s3":{"object":{"key":"k"}}},{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"}}},{"s3":{"bucket":{"name":"b"},"object":{"key":"k"}}},null,7]}`,
			counts(event.Malformed, 5),
		},
		"keys that cannot be": {
			`{"Records":[` + rec("ObjectCreated:Put", `{"key":"nul%00"}`) + `,` + rec("ObjectCreated:Put", `{"key":"%FF%FE"}`) + `,` + rec("ObjectCreated:Put", fmt.Sprintf(`{"key":"%01025d"}`, 1)) + `]}`,
			counts(event.Malformed, 3),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := event.Parse([]byte(test.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestKeysAreFormURLEncoded(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]string{
		"red+flower.jpg":         "red flower.jpg",
		"a%2Bb":                  "a+b",
		"%E2%82%AC":              "€",
		"€":                      "€",
		"dt%3D20180515/hour%3D1": "dt=20180515/hour=1",
		"dt=20180515/hour=14/x":  "dt=20180515/hour=14/x",
		"noog+nork":              "noog nork",
		"noog%2bnork":            "noog+nork",
		"double%2520encoded":     "double%20encoded",
		"100%":                   "100%", // not encoded at all
		"folder/":                "folder/",
	} {
		got, err := event.Parse([]byte(s3("ObjectCreated:Put", fmt.Sprintf(`{"key":%q}`, sent))))
		if err != nil || len(got.Objects) != 1 || got.Objects[0].Key != want {
			t.Errorf("%q: got %+v, %v; want %q", sent, got.Objects, err, want)
		}
	}
}

func TestParseRefusesWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"no", "[]", "7", `"x"`, "{}", `{"Type":"Notification","Message":"{}"}`, `{"Records":{}}`, `{"Records":[`} {
		if m, err := event.Parse([]byte(body)); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: got %+v, %v; want invalid", body, m, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*.json")
	if err != nil || len(seeds) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, seed := range seeds {
		body, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := event.Parse(body)
		if err != nil && !errors.Is(err, fault.Invalid) {
			t.Fatalf("got %v", err)
		}
		if len(m.Objects) != m.Counts[event.Created] {
			t.Fatalf("%d objects, %d counted", len(m.Objects), m.Counts[event.Created])
		}
		for _, o := range m.Objects {
			if o.Bucket == "" || o.Key == "" || o.Size < 0 || o.Complete && o.Tag == "" || !o.Complete && (o.Tag != "" || o.Size != 0) {
				t.Fatalf("got %+v", o)
			}
		}
	})
}

func whole(bucket, key, tag string, size int64, at time.Time) event.Object {
	return event.Object{Object: lake.Object{Bucket: bucket, Key: key, Tag: tag, Size: size, LastModified: at}, Complete: true}
}

func created(objects ...event.Object) event.Message {
	return event.Message{Objects: objects, Counts: map[event.Kind]int{event.Created: len(objects)}}
}

func counts(k event.Kind, n int) event.Message {
	return event.Message{Counts: map[event.Kind]int{k: n}}
}

func rec(name, object string) string {
	return fmt.Sprintf(`{"eventVersion":"2.1","eventName":%q,"s3":{"bucket":{"name":"b"},"object":%s}}`, name, object)
}

func s3(name, object string) string { return `{"Records":[` + rec(name, object) + `]}` }
