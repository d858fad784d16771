// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// AuditEntry says who did what, and is chained to the entry before it of the same organization.
type AuditEntry struct {
	ID           int64     // rises in the order of the entries; filled by Audit
	At           time.Time // the database's; filled by Audit
	Actor        string
	Organization lake.Organization // may be empty: what concerns no organization
	Action       string
	Subject      string // what was acted on
	Detail       string // a text, or a JSON document
	PreviousHash string // of the organization's entry before, in hexadecimal; empty: it is the first
	Hash         string // of this entry, PreviousHash included
}

// hashed is what the hash of an entry is made of, in a form that never changes.
type hashed struct {
	Previous     string `json:"previous"`
	ID           int64  `json:"id"`
	At           string `json:"at"`
	Actor        string `json:"actor"`
	Organization string `json:"organization"`
	Action       string `json:"action"`
	Subject      string `json:"subject"`
	Detail       string `json:"detail"`
}

// hashOf computes the hash of an entry from all of its other fields.
func (e AuditEntry) hashOf() (string, error) {
	b, err := json.Marshal(hashed{
		Previous: e.PreviousHash, ID: e.ID, At: e.At.UTC().Format(time.RFC3339Nano), Actor: e.Actor, Organization: string(e.Organization),
		Action: e.Action, Subject: e.Subject, Detail: e.Detail,
	})
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// Audit writes an entry into the audit log and returns it as it stands there. Entries are written one at a time.
func (x *Index) Audit(ctx context.Context, entry AuditEntry) (written AuditEntry, err error) {
	defer x.observe("audit", &err)()
	if !storable(entry.Actor) || !storable(entry.Action) || !storable(entry.Subject) || !storable(entry.Detail) {
		return written, fault.New(fault.Invalid, "an entry of the audit log is no text: action %q", entry.Action)
	}
	err = x.inTx(ctx, func(q *db.Queries) error {
		written, err = audit(ctx, q, entry)
		return err
	})
	return written, failed("write into the audit log", err)
}

func audit(ctx context.Context, q *db.Queries, entry AuditEntry) (AuditEntry, error) {
	now, err := q.LockAudit(ctx)
	if err != nil {
		return entry, err
	}
	if entry.ID, err = q.NextAuditID(ctx); err != nil {
		return entry, err
	}
	last, err := q.LastAuditEntry(ctx, string(entry.Organization))
	if err != nil {
		return entry, err
	}
	entry.At, entry.PreviousHash = now.UTC(), ""
	if len(last) > 0 {
		entry.PreviousHash = last[0]
	}
	if entry.Hash, err = entry.hashOf(); err != nil {
		return entry, err
	}
	err = q.InsertAuditEntry(ctx, db.InsertAuditEntryParams{
		ID: entry.ID, At: entry.At, Actor: entry.Actor, Organization: string(entry.Organization), Action: entry.Action, Subject: entry.Subject,
		Detail: entry.Detail, PreviousHash: entry.PreviousHash, Hash: entry.Hash,
	})
	if err != nil || entry.Organization == "" {
		return entry, err
	}
	return entry, q.InsertAuditRecord(ctx, db.InsertAuditRecordParams{Organization: string(entry.Organization), ID: entry.ID})
}

// AuditLog returns a page of entries, newest first, and the token of the next page; empty: this was the last. An empty organization: the
// entries of all.
func (x *Index) AuditLog(ctx context.Context, org lake.Organization, size int, token string) (entries []AuditEntry, next string, err error) {
	defer x.observe("audit_log", &err)()
	size, before, err := page(size, token)
	if err != nil {
		return nil, "", err
	}
	var rows []db.AuditLog
	if org == "" {
		all, failure := x.queries.WholeAuditPageDescending(ctx, db.WholeAuditPageDescendingParams{Before: before, PageSize: int32(size + 1)})
		for _, r := range all {
			rows = append(rows, r.AuditLog)
		}
		err = failure
	} else {
		own, failure := x.queries.AuditPage(ctx, db.AuditPageParams{Organization: string(org), Before: before, PageSize: int32(size + 1)})
		for _, r := range own {
			rows = append(rows, r.AuditLog)
		}
		err = failure
	}
	if err != nil {
		return nil, "", failed("read the audit log", err)
	}
	for _, r := range rows {
		entries = append(entries, entryOf(r))
	}
	if len(entries) > size {
		entries = entries[:size]
		next = strconv.FormatInt(entries[size-1].ID, 10)
	}
	return entries, next, nil
}

// AuditEntriesOf returns the entries of an action on a subject, oldest first, up to 1,000.
func (x *Index) AuditEntriesOf(ctx context.Context, action, subject string) (entries []AuditEntry, err error) {
	defer x.observe("audit_entries_of", &err)()
	rows, err := x.queries.AuditOfSubject(ctx, db.AuditOfSubjectParams{Action: action, Subject: subject})
	if err != nil {
		return nil, failed("read the audit log", err)
	}
	for _, r := range rows {
		entries = append(entries, entryOf(r.AuditLog))
	}
	return entries, nil
}

func entryOf(r db.AuditLog) AuditEntry {
	return AuditEntry{
		ID: r.ID, At: r.At.UTC(), Actor: r.Actor, Organization: lake.Organization(r.Organization), Action: r.Action, Subject: r.Subject,
		Detail: r.Detail, PreviousHash: r.PreviousHash, Hash: r.Hash,
	}
}

// VerifyAudit computes all chains anew. It returns how many entries there are, the number of the first one that was changed, or that does
// not follow the one before it (zero: none), and a hash over the heads of all chains: who keeps it can tell later whether the newest
// entries were cut off.
func (x *Index) VerifyAudit(ctx context.Context) (entries, broken int64, head string, err error) {
	defer x.observe("verify_audit", &err)()
	heads := make(map[lake.Organization]string)
	for after := int64(0); ; {
		rows, err := x.queries.WholeAuditPage(ctx, db.WholeAuditPageParams{After: after, PageSize: maxPage})
		if err != nil {
			return entries, broken, "", failed("read the audit log", err)
		}
		for _, r := range rows {
			e := entryOf(r.AuditLog)
			want, err := e.hashOf()
			if err != nil {
				return entries, broken, "", err
			}
			if broken == 0 && (want != e.Hash || e.PreviousHash != heads[e.Organization]) {
				broken = e.ID
			}
			heads[e.Organization], after = e.Hash, e.ID
			entries++
		}
		if len(rows) < maxPage {
			return entries, broken, headOf(heads), nil
		}
	}
}

func headOf(heads map[lake.Organization]string) string {
	if len(heads) == 0 {
		return ""
	}
	sum := sha256.New()
	for _, org := range slices.SortedFunc(maps.Keys(heads), cmp.Compare[lake.Organization]) {
		sum.Write([]byte(string(org) + "\x00" + heads[org] + "\n"))
	}
	return hex.EncodeToString(sum.Sum(nil))
}
