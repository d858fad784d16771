// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// s3Bucket is a bucket of S3 or of a server that speaks its protocol.
type s3Bucket struct {
	name   string
	client *s3.Client
	price  Prices
	// google is set for GCS, which has no If-None-Match on puts and no DeleteObjects.
	google bool
}

func (b *s3Bucket) Name() string { return b.name }

func (b *s3Bucket) prices() Prices { return b.price }

func (b *s3Bucket) Get(ctx context.Context, key, tag string) (io.ReadCloser, Attributes, error) {
	in := &s3.GetObjectInput{Bucket: &b.name, Key: &key}
	if tag != "" {
		in.IfMatch = aws.String(quoteTag(tag))
	}
	out, err := b.client.GetObject(ctx, in)
	if err != nil {
		return nil, Attributes{}, b.fail(ctx, "get", key, err)
	}
	a := Attributes{
		Key:             key,
		Size:            aws.ToInt64(out.ContentLength),
		Tag:             unquoteTag(aws.ToString(out.ETag)),
		LastModified:    aws.ToTime(out.LastModified),
		ContentType:     aws.ToString(out.ContentType),
		ContentEncoding: aws.ToString(out.ContentEncoding),
		MovedFrom:       out.Metadata[movedFrom],
	}
	// Some servers know no If-Match.
	if tag != "" && a.Tag != tag {
		_ = out.Body.Close()
		return nil, Attributes{}, fault.New(fault.Conflict, "get %s/%s: its tag is %s now, not %s", b.name, key, a.Tag, tag)
	}
	return &s3Body{ReadCloser: out.Body, ctx: ctx, bucket: b, key: key}, a, nil
}

func (b *s3Bucket) GetRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if offset >= 0 && length == 0 {
		return io.NopCloser(strings.NewReader("")), nil
	}
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: &key, Range: aws.String(rangeHeader(offset, length))})
	if err != nil {
		return nil, b.fail(ctx, "get a range of", key, err)
	}
	return &s3Body{ReadCloser: out.Body, ctx: ctx, bucket: b, key: key}, nil
}

func rangeHeader(offset, length int64) string {
	switch {
	case offset < 0:
		return fmt.Sprintf("bytes=%d", offset)
	case length < 0:
		return fmt.Sprintf("bytes=%d-", offset)
	}
	return fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)
}

func (b *s3Bucket) List(ctx context.Context, prefix, startAfter string) iter.Seq2[Attributes, error] {
	return func(yield func(Attributes, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: &prefix, EncodingType: types.EncodingTypeUrl}
		if startAfter != "" {
			in.StartAfter = &startAfter
		}
		for {
			out, err := b.client.ListObjectsV2(ctx, in)
			if err != nil {
				yield(Attributes{}, b.fail(ctx, "list", prefix, err))
				return
			}
			for _, o := range out.Contents {
				a, err := b.listed(o, out.EncodingType)
				if !yield(a, err) || err != nil {
					return
				}
			}
			if !aws.ToBool(out.IsTruncated) {
				return
			}
			if aws.ToString(out.NextContinuationToken) == "" {
				yield(Attributes{}, fault.New(fault.Unavailable, "list %s/%s: a truncated page without a continuation token", b.name, prefix))
				return
			}
			in.ContinuationToken, in.StartAfter = out.NextContinuationToken, nil
		}
	}
}

// listed translates one entry. Keys are asked for URL-encoded, since XML cannot carry all of them; a server that does not know
// how says so by not repeating the encoding.
func (b *s3Bucket) listed(o types.Object, encoding types.EncodingType) (Attributes, error) {
	key := aws.ToString(o.Key)
	if encoding == types.EncodingTypeUrl {
		decoded, err := url.QueryUnescape(key)
		if err != nil {
			return Attributes{}, fault.New(fault.Internal, "list %s: key %q is not URL-encoded: %w", b.name, key, err)
		}
		key = decoded
	}
	return Attributes{Key: key, Size: aws.ToInt64(o.Size), Tag: unquoteTag(aws.ToString(o.ETag)), LastModified: aws.ToTime(o.LastModified)}, nil
}

func (b *s3Bucket) Head(ctx context.Context, key string) (Attributes, error) {
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		return Attributes{}, b.fail(ctx, "head", key, err)
	}
	return Attributes{
		Key:             key,
		Size:            aws.ToInt64(out.ContentLength),
		Tag:             unquoteTag(aws.ToString(out.ETag)),
		LastModified:    aws.ToTime(out.LastModified),
		ContentType:     aws.ToString(out.ContentType),
		ContentEncoding: aws.ToString(out.ContentEncoding),
		MovedFrom:       out.Metadata[movedFrom],
	}, nil
}

func (b *s3Bucket) fail(ctx context.Context, verb, key string, err error) error {
	switch apiCode(err) {
	case "NoSuchKey", "NotFound":
		return fault.New(fault.NotFound, "%s: there is no object s3://%s/%s", verb, b.name, key)
	}
	return fault.Wrap(kindOf(ctx, err), fmt.Errorf("%s %s/%s: %w", verb, b.name, key, err))
}

// s3Body gives the errors of a broken transfer their kind.
type s3Body struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // it is the context of the request that this is the answer to
	bucket *s3Bucket
	key    string
}

func (r *s3Body) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, r.bucket.fail(r.ctx, "read", r.key, err)
}

func unquoteTag(etag string) string { return strings.Trim(strings.TrimPrefix(etag, "W/"), `"`) }

func quoteTag(tag string) string { return `"` + tag + `"` }
