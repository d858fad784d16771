// SPDX-License-Identifier: AGPL-3.0-only

package archive

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/lakerunner/lakerunner/pkg/objects"
)

// compress is deterministic: no time and no name go in.
func compress(lines []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(lines); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// ReadLines calls each with every line of a compressed file. The line is valid until each returns.
func ReadLines(ctx context.Context, bucket objects.Bucket, key string, each func(line []byte) error) (err error) {
	body, _, err := bucket.Get(ctx, key, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	unzipped, err := gzip.NewReader(body)
	if err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	if err := eachLine(unzipped, each); err != nil {
		return fmt.Errorf("read %s: %w", key, err)
	}
	return nil
}

func eachLine(r io.Reader, each func(line []byte) error) error {
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if text := bytes.TrimSuffix(line, []byte("\n")); len(text) > 0 {
			if err := each(text); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
