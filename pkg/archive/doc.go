// SPDX-License-Identifier: AGPL-3.0-only

// Package archive is what the bucket holds of the index, so that the index can be made again from the bucket alone: files of commit
// records, and snapshots.
//
// The layout, below db/{organization}/:
//
//	records/{day}/{last record}-{hash}.ndjson.gz   commit records, one JSON document a line; day is that of the newest one
//	snapshots/{id}/{table}-{n}.ndjson.gz           rows of the index, one JSON document a line
//	snapshots/{id}/manifest.json                   written last: a snapshot without it is not one
//
// Invariants:
//
//  1. Nothing is ever written over: names are made of content, so that writing the same records again is harmless.
//  2. All records of a day and later ones stand in folders of that day and later ones.
//  3. A snapshot is complete or does not exist: its manifest lists every part with its hash, and is written after all of them.
//
// It does not know what records and rows say: package index does.
package archive
