// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

const (
	// multipartFrom is the size from which an object is sent in parts.
	multipartFrom = 64 << 20
	partSize      = 16 << 20
	maxParts      = 10_000
	partsAtOnce   = 4
	abortPatience = 30 * time.Second
)

func (b *s3Bucket) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) (Attributes, error) {
	return b.put(ctx, key, body, size, false)
}

func (b *s3Bucket) PutIfAbsent(ctx context.Context, key string, body io.ReadSeeker, size int64) (Attributes, error) {
	return b.put(ctx, key, body, size, true)
}

func (b *s3Bucket) put(ctx context.Context, key string, body io.ReadSeeker, size int64, ifAbsent bool) (Attributes, error) {
	content, err := contentOf(body, size)
	if err != nil {
		return Attributes{}, fault.Wrap(fault.Invalid, fmt.Errorf("put %s/%s: %w", b.name, key, err))
	}
	var tag string
	if size < multipartFrom {
		tag, err = b.putWhole(ctx, key, content, ifAbsent)
	} else {
		tag, err = b.putParts(ctx, key, content, ifAbsent)
	}
	if err != nil {
		return Attributes{}, b.fail(ctx, "put", key, err)
	}
	return Attributes{Key: key, Size: size, Tag: tag}, nil
}

func (b *s3Bucket) putWhole(ctx context.Context, key string, content *io.SectionReader, ifAbsent bool) (string, error) {
	in := &s3.PutObjectInput{Bucket: &b.name, Key: &key, Body: content, ContentLength: aws.Int64(content.Size())}
	if ifAbsent && !b.google {
		in.IfNoneMatch = aws.String("*")
	}
	out, err := b.client.PutObject(ctx, in, b.absentOption(ifAbsent))
	if err != nil {
		return "", err
	}
	return unquoteTag(aws.ToString(out.ETag)), nil
}

// putParts sends an object in parts. Whatever goes wrong, the upload is aborted, so that no parts are left to be paid for.
func (b *s3Bucket) putParts(ctx context.Context, key string, content *io.SectionReader, ifAbsent bool) (string, error) {
	upload, err := b.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &b.name, Key: &key})
	if err != nil {
		return "", err
	}
	tag, err := b.finishParts(ctx, key, upload.UploadId, content, ifAbsent)
	if err != nil {
		b.abort(ctx, key, upload.UploadId)
	}
	return tag, err
}

func (b *s3Bucket) finishParts(ctx context.Context, key string, id *string, content *io.SectionReader, ifAbsent bool) (string, error) {
	parts, err := b.sendParts(ctx, key, id, content)
	if err != nil {
		return "", err
	}
	in := &s3.CompleteMultipartUploadInput{Bucket: &b.name, Key: &key, UploadId: id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}}
	if ifAbsent && !b.google {
		in.IfNoneMatch = aws.String("*")
	}
	out, err := b.client.CompleteMultipartUpload(ctx, in, b.absentOption(ifAbsent))
	if err != nil {
		return "", err
	}
	return unquoteTag(aws.ToString(out.ETag)), nil
}

func (b *s3Bucket) sendParts(ctx context.Context, key string, id *string, content *io.SectionReader) ([]types.CompletedPart, error) {
	length := max(partSize, (content.Size()+maxParts-1)/maxParts)
	parts := make([]types.CompletedPart, (content.Size()+length-1)/length)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(partsAtOnce)
	for i := range parts {
		offset := int64(i) * length
		part := io.NewSectionReader(content, offset, min(length, content.Size()-offset))
		group.Go(func() error {
			number := int32(i + 1) //nolint:gosec // at most maxParts
			out, err := b.client.UploadPart(ctx, &s3.UploadPartInput{Bucket: &b.name, Key: &key, UploadId: id, PartNumber: &number, Body: part, ContentLength: aws.Int64(part.Size())})
			if err != nil {
				return err
			}
			parts[i] = types.CompletedPart{PartNumber: &number, ETag: out.ETag}
			return nil
		})
	}
	return parts, group.Wait()
}

// abort gives up an upload even when its context has ended. An abort that fails leaves parts behind for the bucket's life-cycle rule.
func (b *s3Bucket) abort(ctx context.Context, key string, id *string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortPatience)
	defer cancel()
	_, _ = b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.name, Key: &key, UploadId: id})
}

// absentOption is GCS's way to put only what is absent: generation 0 is that of an object that does not exist.
func (b *s3Bucket) absentOption(ifAbsent bool) func(*s3.Options) {
	return func(o *s3.Options) {
		if ifAbsent && b.google {
			o.APIOptions = append(o.APIOptions, smithyhttp.SetHeaderValue("x-goog-if-generation-match", "0"))
		}
	}
}

// contentOf makes the size bytes at body's position readable at any place, by several readers at once.
func contentOf(body io.ReadSeeker, size int64) (*io.SectionReader, error) {
	start, err := body.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	end, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if _, err := body.Seek(start, io.SeekStart); err != nil {
		return nil, err
	}
	if end-start < size {
		return nil, fmt.Errorf("body holds %d bytes, not %d", end-start, size)
	}
	if at, ok := body.(io.ReaderAt); ok {
		return io.NewSectionReader(at, start, size), nil
	}
	return io.NewSectionReader(&seekingReaderAt{body: body}, start, size), nil
}

// seekingReaderAt reads at places of something that can only seek, one reader at a time.
type seekingReaderAt struct {
	mu   sync.Mutex
	body io.ReadSeeker
}

func (r *seekingReaderAt) ReadAt(p []byte, offset int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.body.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(r.body, p)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}
