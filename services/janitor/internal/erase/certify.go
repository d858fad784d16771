// SPDX-License-Identifier: AGPL-3.0-only

package erase

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Certificate is the account of a delete as it is now.
func (e *Eraser) Certificate(ctx context.Context, id lake.DeleteID) (*Certificate, error) {
	d, err := e.deps.Index.Delete(ctx, id)
	if err != nil {
		return nil, err
	}
	c, err := e.account(ctx, d)
	if err != nil {
		return nil, err
	}
	entry, certified, err := e.certified(ctx, d.ID)
	if err != nil || !certified {
		return c, err
	}
	return c, c.seal(entry)
}

// seal makes a certificate the one that the audit log holds.
func (c *Certificate) seal(entry index.AuditEntry) error {
	var text certificateDocument
	if err := json.Unmarshal([]byte(entry.Detail), &text); err != nil {
		return fmt.Errorf("read entry %d of the audit log: %w", entry.ID, err)
	}
	c.Final, c.AuditEntry, c.SHA256, c.Limits = true, entry.ID, hashOf([]byte(entry.Detail)), text.Limits
	// What the index says by now is another account: of later replays, and without receipts that were trimmed.
	c.Segments, c.Objects = text.segments(), text.objects()
	return nil
}

// account gathers what a delete touched.
func (e *Eraser) account(ctx context.Context, d lake.Delete) (*Certificate, error) {
	c := &Certificate{Delete: d}
	var err error
	if c.Segments, err = e.deps.Index.DeleteSegments(ctx, d.ID); err != nil {
		return nil, err
	}
	f := facts{signal: d.Signal, policy: d.Sources}
	for after := lake.ReceiptID(0); ; {
		page, err := e.deps.Index.DeleteSources(ctx, d.ID, after, sourcePage)
		if err != nil {
			return nil, err
		}
		for _, s := range page {
			after = s.Receipt.ID
			if s.Action == actionLeft {
				f.left++
			}
		}
		c.Objects = append(c.Objects, page...)
		if len(page) < sourcePage {
			break
		}
	}
	undecoded, err := e.deps.Index.Undecoded(ctx, d.Organization, d.Signal, d.CreatedAt)
	if err != nil {
		return nil, err
	}
	f.pending, f.failed, f.buckets = undecoded.Pending, undecoded.Failed, bucketsOf(c.Segments, c.Objects)
	c.Limits = limits(f)
	return c, nil
}

// certify makes the certificate final when there is nothing left to wait for.
func (e *Eraser) certify(ctx context.Context, d lake.Delete) error {
	entry, certified, err := e.certified(ctx, d.ID)
	if err != nil {
		return err
	}
	if !certified {
		ready, err := e.ready(ctx, d)
		if err != nil || !ready {
			return err
		}
		if entry, err = e.enter(ctx, d); err != nil {
			return err
		}
	}
	if err := e.deposit(ctx, d, entry); err != nil {
		return err
	}
	return e.deps.Index.AdvanceDelete(ctx, d.ID, lake.DeleteSweeping, lake.DeleteDone)
}

// ready reports whether every file is gone and every object was dealt with. Objects that were received before the delete and are not
// decoded yet are waited for, but not for ever: then the certificate names them.
func (e *Eraser) ready(ctx context.Context, d lake.Delete) (bool, error) {
	p, err := e.deps.Index.DeleteProgress(ctx, d.ID)
	if err != nil || p.SegmentsLeft > 0 || p.FilesLeft > 0 || p.ObjectsLeft > 0 {
		return false, err
	}
	undecoded, err := e.deps.Index.Undecoded(ctx, d.Organization, d.Signal, d.CreatedAt)
	if err != nil || undecoded.Pending == 0 {
		return err == nil, err
	}
	now, err := e.deps.Index.Now(ctx)
	return err == nil && now.After(d.UpdatedAt.Add(e.deps.Patience)), err
}

// certified returns the entry of the audit log with a delete's final certificate.
func (e *Eraser) certified(ctx context.Context, id lake.DeleteID) (index.AuditEntry, bool, error) {
	entries, err := e.deps.Index.AuditEntriesOf(ctx, ActionCertified, subjectOf(id))
	if err != nil || len(entries) == 0 {
		return index.AuditEntry{}, false, err
	}
	return entries[0], true, nil
}

// enter writes the certificate into the audit log.
func (e *Eraser) enter(ctx context.Context, d lake.Delete) (index.AuditEntry, error) {
	c, err := e.account(ctx, d)
	if err != nil {
		return index.AuditEntry{}, err
	}
	now, err := e.deps.Index.Now(ctx)
	if err != nil {
		return index.AuditEntry{}, err
	}
	text, err := c.marshal(now)
	if err != nil {
		return index.AuditEntry{}, err
	}
	return e.deps.Index.Audit(ctx, index.AuditEntry{
		Actor: actor, Organization: d.Organization, Action: ActionCertified, Subject: subjectOf(d.ID), Detail: string(text),
	})
}

// CertificateKey is that of a final certificate in the bucket.
func CertificateKey(org lake.Organization, id lake.DeleteID) string {
	return fmt.Sprintf("%s%s/certificates/%d.json", lake.Prefix, org, id)
}

// deposit puts the certificate into the bucket, where it outlives the database.
func (e *Eraser) deposit(ctx context.Context, d lake.Delete, entry index.AuditEntry) error {
	var text certificateDocument
	if err := json.Unmarshal([]byte(entry.Detail), &text); err != nil {
		return fmt.Errorf("read entry %d of the audit log: %w", entry.ID, err)
	}
	name := e.home(d.Organization, text)
	if name == "" {
		return nil
	}
	bucket, err := e.deps.Objects.Bucket(ctx, name)
	if err != nil {
		return err
	}
	content := []byte(entry.Detail)
	_, err = bucket.Put(ctx, CertificateKey(d.Organization, d.ID), bytes.NewReader(content), int64(len(content)))
	return fault.Wrap(fault.KindOf(err), err)
}

// home is the bucket that a certificate goes to: that of the first file or object that it names, or else the organization's own.
func (e *Eraser) home(org lake.Organization, text certificateDocument) string {
	var named []string
	for _, s := range text.Segments {
		named = append(named, s.Bucket)
	}
	for _, o := range text.Objects {
		named = append(named, o.Bucket)
	}
	snapshot := e.deps.Config.Current()
	for _, name := range named {
		if _, ok := snapshot.Profile(name); ok {
			return name
		}
	}
	for _, p := range snapshot.Profiles() {
		if p.Organization == org {
			return p.Bucket()
		}
	}
	return ""
}
