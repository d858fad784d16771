// SPDX-License-Identifier: AGPL-3.0-only

// Package event reads the notifications that object stores send. It is pure: bytes in, objects out.
//
// It understands messages with S3 Records, as AWS, MinIO, Ceph, versitygw and collectors that imitate them post them, with all that
// they do differently:
//
//   - Event names come as ObjectCreated:Put and as s3:ObjectCreated:Put.
//   - Keys are form-urlencoded ('+' is a blank) by all but versitygw, which is known by its ARN.
//   - Tags come bare, in quotes, or not at all; sizes may be missing. What is missing is left for a HEAD.
//   - MinIO names bucket and key of a single event at the top as well, and tries its target with an empty body.
//
// Only created objects are returned. Deletes, test events and all other events are counted, and so are records that cannot be
// understood: one bad record does not take its neighbours along.
package event

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Kind is what a record tells of.
type Kind string

// The kinds of record.
const (
	Created   Kind = "created"
	Deleted   Kind = "deleted"
	Test      Kind = "test"      // sent to try the way, not because of an object
	Unknown   Kind = "unknown"   // another event, or another major version of the format
	Malformed Kind = "malformed" // without bucket, key or sense
)

// Object is an object that was created.
type Object struct {
	lake.Object
	// Complete is false where tag or size were not told; they are then zero.
	Complete bool
}

// Message is what one message told.
type Message struct {
	Objects []Object // in the message's order
	Counts  map[Kind]int
}

// The limits of S3, to which the index holds us as well.
const (
	maxBucket = 255
	maxKey    = 1024
	maxTag    = 255
)

// Parse reads a message. It fails with fault.Invalid only when the whole message is none that this package knows.
func Parse(body []byte) (Message, error) {
	m := Message{Counts: map[Kind]int{}}
	if len(bytes.TrimSpace(body)) == 0 {
		m.Counts[Test]++
		return m, nil
	}
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		return m, fault.New(fault.Invalid, "event is not JSON: %w", err)
	}
	switch {
	case e.isTest():
		m.Counts[Test]++
	case e.Records != nil:
		for _, raw := range e.Records {
			m.add(parseRecord(raw))
		}
	case e.EventName != "" && e.Key != "":
		m.add(e.summary())
	default:
		return m, fault.New(fault.Invalid, "event has no Records: want S3 notifications, as AWS, MinIO and versitygw send them")
	}
	return m, nil
}

func (m *Message) add(o Object, k Kind) {
	m.Counts[k]++
	if k == Created {
		m.Objects = append(m.Objects, o)
	}
}

type envelope struct {
	Event     string            // of AWS's test event
	EventName string            // of MinIO
	Key       string            // of MinIO: bucket/key, decoded
	Records   []json.RawMessage // of all
}

func (e envelope) isTest() bool { return strings.HasSuffix(e.Event, "TestEvent") }

// summary reads the top of a MinIO event without Records.
func (e envelope) summary() (Object, Kind) {
	bucket, key, _ := strings.Cut(e.Key, "/")
	if k := kindOf(e.EventName); k != Created {
		return Object{}, k
	}
	return checked(Object{Object: lake.Object{Bucket: bucket, Key: key}})
}

type record struct {
	EventVersion string
	EventName    string
	EventTime    string
	S3           struct {
		Bucket struct{ Name, ARN string }
		Object struct {
			Key  string
			Size *int64
			ETag *string
		}
	}
}

func parseRecord(raw json.RawMessage) (Object, Kind) {
	var r record
	if json.Unmarshal(raw, &r) != nil {
		return Object{}, Malformed
	}
	if isTest := strings.HasSuffix(r.EventName, "TestEvent"); isTest {
		return Object{}, Test
	}
	if !r.knownVersion() {
		return Object{}, Unknown
	}
	if k := kindOf(r.EventName); k != Created {
		return Object{}, k
	}
	return checked(r.object())
}

// knownVersion accepts every minor version of the format's second major one: fields are only ever added. Collectors send none.
func (r record) knownVersion() bool {
	major, _, _ := strings.Cut(r.EventVersion, ".")
	return major == "" || major == "2"
}

func kindOf(name string) Kind {
	group, _, _ := strings.Cut(strings.TrimPrefix(name, "s3:"), ":")
	switch group {
	case "ObjectCreated":
		return Created
	case "ObjectRemoved", "LifecycleExpiration":
		return Deleted
	case "":
		return Malformed
	}
	return Unknown
}

func (r record) object() Object {
	o := Object{Object: lake.Object{Bucket: r.S3.Bucket.Name, Key: r.key()}}
	if at, err := time.Parse(time.RFC3339, r.EventTime); err == nil && at.Year() > 1970 {
		o.LastModified = at.UTC()
	}
	if r.S3.Object.ETag == nil || r.S3.Object.Size == nil || *r.S3.Object.Size < 0 || r.sizeUnsaid() {
		return o
	}
	o.Tag = strings.Trim(strings.TrimPrefix(*r.S3.Object.ETag, "W/"), `"`)
	if o.Tag == "" {
		return o
	}
	o.Size, o.Complete = *r.S3.Object.Size, true
	return o
}

// sizeUnsaid tells a size of zero that says nothing: versitygw gives it for whatever was not written by one Put, multipart uploads
// above all.
func (r record) sizeUnsaid() bool {
	return *r.S3.Object.Size == 0 && !strings.HasSuffix(r.EventName, ":Put")
}

// key undoes the form-urlencoding. versitygw does not encode, and is the only one whose bucket ARN has a slash and the key in it.
func (r record) key() string {
	raw := r.S3.Object.Key
	if r.S3.Bucket.ARN == "arn:aws:s3:::/"+r.S3.Bucket.Name+"/"+raw {
		return raw
	}
	decoded, err := url.QueryUnescape(raw)
	if err != nil {
		return raw // "100%": the sender did not encode
	}
	return decoded
}

// checked refuses what cannot be an object's name.
func checked(o Object) (Object, Kind) {
	ok := o.Bucket != "" && o.Key != "" && len(o.Bucket) <= maxBucket && len(o.Key) <= maxKey && len(o.Tag) <= maxTag
	for _, s := range []string{o.Bucket, o.Key, o.Tag} {
		ok = ok && utf8.ValidString(s) && !strings.Contains(s, "\x00")
	}
	if !ok {
		return Object{}, Malformed
	}
	return o, Created
}
