// SPDX-License-Identifier: AGPL-3.0-only

package erase

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// certificateVersion is that of the certificate's JSON.
const certificateVersion = 1

// Certificate is the account of a delete: every segment and object that it touched, and what it cannot make forgotten.
type Certificate struct {
	Delete   lake.Delete
	Final    bool // nothing will be added
	Segments []index.DeletedSegment
	Objects  []index.DeletedSource
	Limits   []string
	// AuditEntry is the number of the audit log's entry that holds the final certificate, and SHA256 that of its text there.
	AuditEntry int64
	SHA256     string
}

// certificateDocument is a certificate as the audit log and the bucket hold it. The order of its fields is part of its hash.
type certificateDocument struct {
	Version      int                `json:"version"`
	Delete       string             `json:"delete"`
	Organization lake.Organization  `json:"organization"`
	Signal       string             `json:"signal"`
	Selector     string             `json:"selector"`
	Start        time.Time          `json:"start"`
	End          time.Time          `json:"end"`
	Sources      lake.SourcePolicy  `json:"sources"`
	Reason       string             `json:"reason"`
	Actor        string             `json:"actor"`
	CreatedAt    time.Time          `json:"created_at"`
	CertifiedAt  time.Time          `json:"certified_at"`
	Rows         int64              `json:"rows"`
	Segments     []certifiedSegment `json:"segments"`
	Objects      []certifiedObject  `json:"objects"`
	Limits       []string           `json:"limits"`
}

type certifiedSegment struct {
	Segment   string    `json:"segment"`
	Bucket    string    `json:"bucket"`
	Key       string    `json:"key"`
	Rows      int64     `json:"rows"`
	RemovedAt time.Time `json:"removed_at"`
	GoneAt    time.Time `json:"gone_at"`
}

type certifiedObject struct {
	Receipt string    `json:"receipt"`
	Bucket  string    `json:"bucket"`
	Key     string    `json:"key"`
	Tag     string    `json:"tag"`
	Bytes   int64     `json:"bytes"`
	Rows    int64     `json:"rows"`
	Action  string    `json:"action"`
	DoneAt  time.Time `json:"done_at"`
}

// marshal gives the certificate's text. Times are to the microsecond, as the database has them.
func (c *Certificate) marshal(now time.Time) ([]byte, error) {
	d := c.Delete
	document := certificateDocument{
		Version: certificateVersion, Delete: strconv.FormatInt(int64(d.ID), 10), Organization: d.Organization, Signal: d.Signal.String(),
		Selector: d.Selector, Start: instant(d.Start), End: instant(d.End), Sources: d.Sources, Reason: d.Reason, Actor: d.Actor,
		CreatedAt: instant(d.CreatedAt), CertifiedAt: instant(now),
		Segments: []certifiedSegment{}, Objects: []certifiedObject{}, Limits: c.Limits,
	}
	for _, s := range c.Segments {
		document.Segments = append(document.Segments, certifiedSegment{
			Segment: strconv.FormatInt(int64(s.Segment), 10), Bucket: s.Bucket, Key: s.Key, Rows: s.Rows, RemovedAt: instant(s.RemovedAt), GoneAt: instant(s.GoneAt),
		})
	}
	for _, o := range c.Objects {
		document.Rows += o.Rows
		object := o.Receipt.Object
		document.Objects = append(document.Objects, certifiedObject{
			Receipt: strconv.FormatInt(int64(o.Receipt.ID), 10), Bucket: object.Bucket, Key: object.Key, Tag: object.Tag, Bytes: object.Size,
			Rows: o.Rows, Action: o.Action, DoneAt: instant(o.DoneAt),
		})
	}
	return json.Marshal(document)
}

// segments and objects are those that the document names.
func (d *certificateDocument) segments() []index.DeletedSegment {
	var segments []index.DeletedSegment
	for _, s := range d.Segments {
		segments = append(segments, index.DeletedSegment{
			Segment: lake.SegmentID(numberOf(s.Segment)), Bucket: s.Bucket, Key: s.Key, Rows: s.Rows, RemovedAt: s.RemovedAt, GoneAt: s.GoneAt,
		})
	}
	return segments
}

func (d *certificateDocument) objects() []index.DeletedSource {
	var objects []index.DeletedSource
	for _, o := range d.Objects {
		receipt := lake.Receipt{
			ID: lake.ReceiptID(numberOf(o.Receipt)), Organization: d.Organization,
			Object: lake.Object{Bucket: o.Bucket, Key: o.Key, Tag: o.Tag, Size: o.Bytes},
		}
		objects = append(objects, index.DeletedSource{Receipt: receipt, Rows: o.Rows, Action: o.Action, DoneAt: o.DoneAt})
	}
	return objects
}

// numberOf reads a number that marshal wrote.
func numberOf(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

func hashOf(text []byte) string {
	h := sha256.Sum256(text)
	return hex.EncodeToString(h[:])
}

func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// facts are what a certificate's limits are made of.
type facts struct {
	signal  lake.Signal
	policy  lake.SourcePolicy
	buckets []string // that hold touched files or objects
	pending int64    // objects received before the delete that wait to be decoded
	failed  int64    // those that could not be
	left    int64    // touched objects that stayed whole
}

// limits names what a delete cannot make forgotten.
func limits(f facts) []string {
	var out []string
	if len(f.buckets) > 0 {
		out = append(out, fmt.Sprintf("A bucket that keeps versions, replicas or backups keeps deleted files and objects until its own rules remove them: %s.", strings.Join(f.buckets, ", ")))
	}
	if f.pending > 0 {
		out = append(out, fmt.Sprintf("%s received before the delete had not been decoded when this was written. Their rows are left out when they are, but the objects themselves stay.", counted(f.pending, "object")))
	}
	if f.failed > 0 {
		out = append(out, fmt.Sprintf("%s received before the delete could not be decoded, and nobody knows what they hold; they stay as they are (list them with: lakerunner receipts --state failed).", counted(f.failed, "object")))
	}
	switch {
	case f.policy == lake.SourceLeave && f.left > 0:
		out = append(out, fmt.Sprintf("%s that deleted rows came from stay whole, as was asked for.", counted(f.left, "source object")))
	case f.left > 0:
		out = append(out, fmt.Sprintf("%s stay whole: not all of their other rows are in the lake any more (expired, or doubles of other objects' rows), so that a copy without the deleted ones would have lost them; a delete with --sources erase removes them.", counted(f.left, "source object")))
	}
	out = append(out,
		"Source objects whose rows had left the lake by retention before the delete were not searched.",
		rolledLimit(f.signal),
		"Rows that were rejected at ingest were never decoded: those of objects that were not touched stay below db/{organization}/rejects/.",
		"Query workers may hold files of replaced segments in their local caches until those are evicted; answers given before the delete are out of reach.",
		"Backups of the database hold no rows, but keys of files and the text of this delete until they age out.",
		"Copies that other organizations received, and what the producers of the telemetry kept, are out of reach.",
	)
	return out
}

// rolledLimit says what is left in rollups whose rows are gone.
func rolledLimit(signal lake.Signal) string {
	if signal == lake.SignalMetrics {
		return "Rollups of rows that had left by retention lost whole buckets of the series; other points at the edges of the range went with them."
	}
	return "Counts of lines by service, level and template, of lines that had left by retention, still count those that only other labels or a pipeline tell from the rest."
}

func counted(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// bucketsOf lists the buckets that a certificate names, in the order of naming.
func bucketsOf(segments []index.DeletedSegment, objects []index.DeletedSource) []string {
	var out []string
	seen := map[string]bool{}
	add := func(name string) {
		if name != "" && !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	for _, s := range segments {
		add(s.Bucket)
	}
	for _, o := range objects {
		add(o.Receipt.Object.Bucket)
	}
	return out
}
