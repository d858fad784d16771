// SPDX-License-Identifier: AGPL-3.0-only

package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

const (
	recordsFolder = "records/"
	dayLayout     = "2006-01-02"
	linesSuffix   = ".ndjson.gz"
)

// File is one object of the archive.
type File struct {
	Key          string
	Bytes        int64
	LastModified time.Time
}

// Batch is what one file of commit records holds.
type Batch struct {
	// Last is the number of the newest record, and At when that was committed.
	Last int64
	At   time.Time
	// Lines are the records, a line each.
	Lines []byte
}

// WriteRecords writes a batch of commit records, or finds that it stands there already.
func WriteRecords(ctx context.Context, bucket objects.Bucket, org lake.Organization, b Batch) (File, error) {
	sum := sha256.Sum256(b.Lines)
	key := fmt.Sprintf("%s%s/%016d-%s%s", recordsPrefix(org), b.At.UTC().Format(dayLayout), b.Last, hex.EncodeToString(sum[:8]), linesSuffix)
	size, err := putLines(ctx, bucket, key, b.Lines)
	if err != nil {
		return File{}, fmt.Errorf("write commit records: %w", err)
	}
	return File{Key: key, Bytes: size}, nil
}

// RecordFiles lists the files that hold all records committed since a time, and some older ones, in the order of their days.
func RecordFiles(ctx context.Context, bucket objects.Bucket, org lake.Organization, since time.Time) iter.Seq2[File, error] {
	prefix := recordsPrefix(org)
	return files(ctx, bucket, prefix, prefix+since.UTC().Format(dayLayout))
}

// OldRecordFiles lists the files that hold no record committed since a time.
func OldRecordFiles(ctx context.Context, bucket objects.Bucket, org lake.Organization, since time.Time) iter.Seq2[File, error] {
	prefix := recordsPrefix(org)
	end := prefix + since.UTC().Format(dayLayout)
	return func(yield func(File, error) bool) {
		for f, err := range files(ctx, bucket, prefix, "") {
			if err == nil && f.Key >= end {
				return
			}
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

// Organizations lists whose files a bucket holds.
func Organizations(ctx context.Context, bucket objects.Bucket) ([]lake.Organization, error) {
	var found []lake.Organization
	for after := ""; ; {
		key, err := firstKey(ctx, bucket, lake.Prefix, after)
		if err != nil || key == "" {
			return found, err
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(key, lake.Prefix), "/")
		if org := lake.Organization(name); org.Valid() == nil {
			found = append(found, org)
		}
		// '0' follows '/': the next key is that of another organization.
		after = lake.Prefix + name + "0"
		if !strings.HasPrefix(key, lake.Prefix+name+"/") {
			after = key
		}
	}
}

func firstKey(ctx context.Context, bucket objects.Bucket, prefix, after string) (string, error) {
	for a, err := range bucket.List(ctx, prefix, after) {
		if err != nil {
			return "", fmt.Errorf("list bucket %s: %w", bucket.Name(), err)
		}
		return a.Key, nil
	}
	return "", nil
}

func files(ctx context.Context, bucket objects.Bucket, prefix, after string) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		for a, err := range bucket.List(ctx, prefix, after) {
			if err != nil {
				yield(File{}, fmt.Errorf("list %s in bucket %s: %w", prefix, bucket.Name(), err))
				return
			}
			if !yield(File{Key: a.Key, Bytes: a.Size, LastModified: a.LastModified}, nil) {
				return
			}
		}
	}
}

func recordsPrefix(org lake.Organization) string {
	return lake.Prefix + string(org) + "/" + recordsFolder
}

// putLines compresses and writes lines; that the key exists is no error, since its name is made of the content.
func putLines(ctx context.Context, bucket objects.Bucket, key string, lines []byte) (int64, error) {
	compressed, err := compress(lines)
	if err != nil {
		return 0, err
	}
	_, err = bucket.PutIfAbsent(ctx, key, bytes.NewReader(compressed), int64(len(compressed)))
	if err != nil && !errors.Is(err, fault.Conflict) {
		return 0, err
	}
	return int64(len(compressed)), nil
}
