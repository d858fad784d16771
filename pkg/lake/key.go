// SPDX-License-Identifier: AGPL-3.0-only

package lake

import (
	"fmt"
	"strings"
)

// Prefix is where LakeRunner keeps its own files in a bucket; objects below it are never telemetry.
const Prefix = "db/"

// SidecarSuffix ends the key of a segment's sidecar: token filter and catalogue.
const SidecarSuffix = ".idx"

// SegmentKey returns the key of the n-th segment file of a lease:
// db/{organization}/{signal}/{yyyy-mm-dd of the window's start}/{lease}/{n}.parquet.
func SegmentKey(org Organization, signal Signal, w Window, lease LeaseID, n int) string {
	return fmt.Sprintf("%s%s/%s/%s/%s/%06d.parquet", Prefix, org, signal, w.Start.UTC().Format("2006-01-02"), lease, n)
}

// SidecarKey returns the key of the sidecar of a segment file.
func SidecarKey(segmentKey string) string { return segmentKey + SidecarSuffix }

// RejectsKey returns the key of the file that keeps an object's rejected rows for replay.
func RejectsKey(org Organization, lease LeaseID, receipt ReceiptID) string {
	return fmt.Sprintf("%s%s/rejects/%s/%d.ndjson.gz", Prefix, org, lease, receipt)
}

// OwnKey reports whether a key lies below Prefix.
func OwnKey(key string) bool { return strings.HasPrefix(key, Prefix) }
