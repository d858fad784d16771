// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Declare notes the folders ("bucket/db/organization/signal/day/lease/") into which a worker is about to put files, so that they can
// be swept should the lease end without a commit. fault.Conflict: the lease has ended, and nothing may be put.
func (x *Index) Declare(ctx context.Context, lease lake.LeaseID, folders []string) (err error) {
	defer x.observe("declare", &err)()
	for _, folder := range folders {
		if err := checkFolder(lease, folder); err != nil {
			return err
		}
	}
	n, err := x.queries.DeclareFolders(ctx, db.DeclareFoldersParams{ID: string(lease), Folders: folders})
	if err != nil {
		return failed("declare folders", err)
	}
	if n == 0 {
		return fault.New(fault.Conflict, "lease %s has ended", lease)
	}
	return nil
}

// checkFolder refuses folders that are not of the lease's key space: what is declared may be deleted.
func checkFolder(lease lake.LeaseID, folder string) error {
	_, key, found := strings.Cut(folder, "/")
	if !found || lease == "" || !ownedBy(lease, key) || !strings.HasSuffix(key, "/"+string(lease)+"/") {
		return fault.New(fault.Invalid, "folder %q is not one of lease %s", folder, lease)
	}
	return nil
}
