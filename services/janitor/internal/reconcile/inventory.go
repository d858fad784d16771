// SPDX-License-Identifier: AGPL-3.0-only

package reconcile

import (
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// manifest is what S3 Inventory writes beside its data files.
type manifest struct {
	SourceBucket string `json:"sourceBucket"`
	FileFormat   string `json:"fileFormat"`
	FileSchema   string `json:"fileSchema"`
	Files        []struct {
		Key  string `json:"key"`
		Size int64  `json:"size"`
	} `json:"files"`
}

const maxManifest = 64 << 20

// inventory compares the objects that an S3 Inventory names: one or two days old, at a price far below that of listing. Figures are not
// kept: an inventory is not sorted over its files, and is old.
func (c *comparison) inventory(ctx context.Context) error {
	if c.request.Bucket == "" {
		return fault.New(fault.Invalid, "an inventory wants the bucket that it is in")
	}
	bucket, err := c.deps.Objects.Bucket(ctx, c.request.Bucket)
	if err != nil {
		return err
	}
	m, err := readManifest(ctx, bucket, c.request.Inventory)
	if err != nil {
		return err
	}
	b := c.batch(m.SourceBucket)
	each := func(o lake.Object) error {
		if !strings.HasPrefix(o.Key, c.request.Prefix) {
			return nil
		}
		o.Bucket = m.SourceBucket
		return b.add(ctx, o)
	}
	for _, file := range m.Files {
		if err := m.read(ctx, bucket, file.Key, each); err != nil {
			return fmt.Errorf("inventory file %s: %w", file.Key, err)
		}
	}
	return b.compare(ctx)
}

func readManifest(ctx context.Context, bucket objects.Bucket, key string) (manifest, error) {
	var m manifest
	body, _, err := bucket.Get(ctx, key, "")
	if err != nil {
		return m, err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxManifest))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fault.New(fault.Invalid, "%s is no manifest of an inventory: %w", key, err)
	}
	if m.SourceBucket == "" || len(m.Files) == 0 && m.FileFormat == "" {
		return m, fault.New(fault.Invalid, "%s is no manifest of an inventory: it names no source bucket or no files", key)
	}
	return m, nil
}

func (m *manifest) read(ctx context.Context, bucket objects.Bucket, key string, each func(lake.Object) error) error {
	switch strings.ToUpper(m.FileFormat) {
	case "CSV":
		return m.readCSV(ctx, bucket, key, each)
	case "PARQUET":
		return readParquet(ctx, bucket, key, each)
	}
	return fault.New(fault.Unsupported, "inventories in %s are not read: configure it for CSV or Parquet", m.FileFormat)
}

func (m *manifest) readCSV(ctx context.Context, bucket objects.Bucket, key string, each func(lake.Object) error) error {
	columns, err := m.columns()
	if err != nil {
		return err
	}
	body, _, err := bucket.Get(ctx, key, "")
	if err != nil {
		return err
	}
	defer body.Close()
	unzipped, err := gzip.NewReader(body)
	if err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	rows := csv.NewReader(unzipped)
	rows.ReuseRecord = true
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.Wrap(fault.Invalid, err)
		}
		o, stands, err := columns.object(row)
		if err != nil {
			return err
		}
		if stands {
			if err := each(o); err != nil {
				return err
			}
		}
	}
}

// columns are the places of an inventory's fields; -1: it has none of that name.
type columns struct{ key, size, modified, tag, latest, marker int }

func (m *manifest) columns() (columns, error) {
	c := columns{-1, -1, -1, -1, -1, -1}
	for i, name := range strings.Split(m.FileSchema, ",") {
		switch strings.TrimSpace(name) {
		case "Key":
			c.key = i
		case "Size":
			c.size = i
		case "LastModifiedDate":
			c.modified = i
		case "ETag":
			c.tag = i
		case "IsLatest":
			c.latest = i
		case "IsDeleteMarker":
			c.marker = i
		}
	}
	if c.key < 0 || c.size < 0 || c.modified < 0 || c.tag < 0 {
		return c, fault.New(fault.Invalid, "the inventory has the fields %s: Key, Size, LastModifiedDate and ETag are wanted", m.FileSchema)
	}
	return c, nil
}

// object reads one row; stands is false for what is no object now: an older version, or the mark of a delete.
func (c columns) object(row []string) (o lake.Object, stands bool, err error) {
	if max(c.key, c.size, c.modified, c.tag, c.latest, c.marker) >= len(row) {
		return o, false, fault.New(fault.Invalid, "a row has %d fields", len(row))
	}
	if c.latest >= 0 && row[c.latest] != "true" || c.marker >= 0 && row[c.marker] == "true" {
		return o, false, nil
	}
	if o.Key, err = url.QueryUnescape(row[c.key]); err != nil {
		return o, false, fault.New(fault.Invalid, "key %q: %w", row[c.key], err)
	}
	if o.Size, err = strconv.ParseInt(row[c.size], 10, 64); err != nil {
		return o, false, fault.New(fault.Invalid, "size of %s: %w", o.Key, err)
	}
	if o.LastModified, err = time.Parse(time.RFC3339, row[c.modified]); err != nil {
		return o, false, fault.New(fault.Invalid, "time of %s: %w", o.Key, err)
	}
	o.Tag = strings.Trim(row[c.tag], `"`)
	return o, true, nil
}

// inventoryRow is a row of a Parquet inventory.
type inventoryRow struct {
	Key            string    `parquet:"key"`
	Size           int64     `parquet:"size,optional"`
	LastModified   time.Time `parquet:"last_modified_date,optional,timestamp(millisecond)"`
	Tag            string    `parquet:"e_tag,optional"`
	IsLatest       *bool     `parquet:"is_latest,optional"`
	IsDeleteMarker *bool     `parquet:"is_delete_marker,optional"`
}

func readParquet(ctx context.Context, bucket objects.Bucket, key string, each func(lake.Object) error) error {
	file, err := download(ctx, bucket, key)
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(file.Close(), os.Remove(file.Name())) }()
	rows := parquet.NewGenericReader[inventoryRow](file)
	defer rows.Close()
	page := make([]inventoryRow, page)
	for {
		n, err := rows.Read(page)
		for _, row := range page[:n] {
			if row.IsLatest != nil && !*row.IsLatest || row.IsDeleteMarker != nil && *row.IsDeleteMarker {
				continue
			}
			o := lake.Object{Key: row.Key, Size: row.Size, LastModified: row.LastModified, Tag: strings.Trim(row.Tag, `"`)}
			if err := each(o); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.Wrap(fault.Invalid, err)
		}
	}
}

// download brings a Parquet file, which is read from its end, onto the disk.
func download(ctx context.Context, bucket objects.Bucket, key string) (*os.File, error) {
	body, _, err := bucket.Get(ctx, key, "")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	file, err := os.CreateTemp("", "inventory-*.parquet")
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err)
	}
	if _, err := io.Copy(file, body); err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	return file, nil
}
