// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"context"
	"maps"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

const (
	// movedFrom is the user metadata that holds Attributes.MovedFrom.
	movedFrom = "lakerunner-moved-from"
	// maxCopy is the largest object that one request copies.
	maxCopy = 5 << 30
)

// SetStorageClass repeats all that describes the object, since a copy takes either all of that over or none of it. The condition on the
// tag is the server's, so no version of somebody else's is overwritten by an older one, unless it comes between condition and copy.
func (b *s3Bucket) SetStorageClass(ctx context.Context, key, tag, class string) (Attributes, error) {
	head, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &key})
	if err != nil {
		return Attributes{}, b.fail(ctx, "move", key, err)
	}
	size := aws.ToInt64(head.ContentLength)
	switch found := unquoteTag(aws.ToString(head.ETag)); {
	case found != tag:
		return Attributes{}, fault.New(fault.Conflict, "move %s/%s: its tag is %s now, not %s", b.name, key, found, tag)
	case size > maxCopy:
		return Attributes{}, fault.New(fault.Unsupported, "move %s/%s: %d bytes are too many to be copied by one request", b.name, key, size)
	}
	metadata := maps.Clone(head.Metadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	metadata[movedFrom] = tag
	out, err := b.client.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: &b.name, Key: &key, CopySource: aws.String(copySource(b.name, key)), CopySourceIfMatch: aws.String(quoteTag(tag)),
		StorageClass: types.StorageClass(class), MetadataDirective: types.MetadataDirectiveReplace, Metadata: metadata,
		ContentType: head.ContentType, ContentEncoding: head.ContentEncoding, ContentDisposition: head.ContentDisposition,
		ContentLanguage: head.ContentLanguage, CacheControl: head.CacheControl,
	})
	if err != nil {
		return Attributes{}, b.fail(ctx, "move", key, err)
	}
	moved := Attributes{Key: key, Size: size, MovedFrom: tag, ContentType: aws.ToString(head.ContentType), ContentEncoding: aws.ToString(head.ContentEncoding)}
	if out.CopyObjectResult != nil {
		moved.Tag = unquoteTag(aws.ToString(out.CopyObjectResult.ETag))
		moved.LastModified = aws.ToTime(out.CopyObjectResult.LastModified)
	}
	return moved, nil
}

// plain undoes what url.QueryEscape does to a path beyond what a header's URL needs.
var plain = strings.NewReplacer("+", "%20", "%2F", "/")

// copySource is the header's form of a bucket and a key, URL-encoded.
func copySource(bucket, key string) string { return plain.Replace(url.QueryEscape(bucket + "/" + key)) }

// Versioned asks for the bucket's state. A store that knows no versioning has none.
func (b *s3Bucket) Versioned(ctx context.Context) (bool, error) {
	out, err := b.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &b.name})
	if err != nil {
		if apiCode(err) == "VersioningNotConfigured" || kindOf(ctx, err) == fault.Unsupported {
			return false, nil
		}
		return false, b.fail(ctx, "ask for the versioning of", "", err)
	}
	// Versions made before it was suspended stay.
	return out.Status != "", nil
}
