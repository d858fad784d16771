// SPDX-License-Identifier: AGPL-3.0-only

package erase

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

const copySuffix = ".ndjson.gz"

// copyKey is that of the copy of an object without the rows of a delete.
func copyKey(org lake.Organization, id lake.DeleteID, receipt lake.ReceiptID) string {
	return fmt.Sprintf("%s%d/%d%s", copiesPrefix(org), id, receipt, copySuffix)
}

func copiesPrefix(org lake.Organization) string  { return lake.Prefix + string(org) + "/redacted/" }
func rejectsPrefix(org lake.Organization) string { return lake.Prefix + string(org) + "/rejects/" }

// kept knows what an organization's buckets keep of source objects beside the objects themselves: rejected rows, and redacted copies of
// earlier deletes. Both are named after receipts, below folders that are not, so they are listed, once in a run.
type kept struct {
	store objects.Store
	org   lake.Organization

	mu     sync.Mutex
	listed map[string]map[lake.ReceiptID][]string // by bucket and prefix
}

func newKept(store objects.Store, org lake.Organization) *kept {
	return &kept{store: store, org: org, listed: map[string]map[lake.ReceiptID][]string{}}
}

// deleteOf deletes what is kept of a receipt's object, but for one file, and says how many copies that were.
func (k *kept) deleteOf(ctx context.Context, r lake.Receipt, except string) (copies int, err error) {
	var keys []string
	if r.Raw == lake.RawRedacted {
		found, err := k.find(ctx, r, copiesPrefix(k.org))
		if err != nil {
			return 0, err
		}
		for _, key := range found {
			if key != except {
				keys = append(keys, key)
			}
		}
		copies = len(keys)
	}
	if len(r.Rejected) > 0 {
		found, err := k.find(ctx, r, rejectsPrefix(k.org))
		if err != nil {
			return 0, err
		}
		keys = append(keys, found...)
	}
	if len(keys) == 0 {
		return 0, nil
	}
	bucket, err := k.store.Bucket(ctx, r.Object.Bucket)
	if err != nil {
		return 0, err
	}
	return copies, bucket.Delete(ctx, keys...)
}

func (k *kept) find(ctx context.Context, r lake.Receipt, prefix string) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	place := r.Object.Bucket + "/" + prefix
	if k.listed[place] == nil {
		found, err := k.list(ctx, r.Object.Bucket, prefix)
		if err != nil {
			return nil, err
		}
		k.listed[place] = found
	}
	return k.listed[place][r.ID], nil
}

func (k *kept) list(ctx context.Context, name, prefix string) (map[lake.ReceiptID][]string, error) {
	bucket, err := k.store.Bucket(ctx, name)
	if err != nil {
		return nil, err
	}
	found := map[lake.ReceiptID][]string{}
	for a, err := range bucket.List(ctx, prefix, "") {
		if err != nil {
			return nil, err
		}
		id, err := strconv.ParseInt(strings.TrimSuffix(path.Base(a.Key), copySuffix), 10, 64)
		if err == nil {
			found[lake.ReceiptID(id)] = append(found[lake.ReceiptID(id)], a.Key)
		}
	}
	return found, nil
}
