// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// deleteBatch is the most keys of one DeleteObjects request.
const deleteBatch = 1000

func (b *s3Bucket) Delete(ctx context.Context, keys ...string) error {
	failed := map[string]error{}
	for len(keys) > 0 {
		n := min(len(keys), deleteBatch)
		if err := b.deleteSome(ctx, keys[:n], failed); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return deleteFailed(failed)
}

// deleteSome removes at most deleteBatch keys: by one request, or one by one where the server has no such request. What cannot be
// removed is put into failed; an error is of the request as a whole.
func (b *s3Bucket) deleteSome(ctx context.Context, keys []string, failed map[string]error) error {
	if len(keys) == 1 || b.google {
		return b.deleteEach(ctx, keys, failed)
	}
	ids := make([]types.ObjectIdentifier, len(keys))
	for i := range keys {
		ids[i] = types.ObjectIdentifier{Key: &keys[i]}
	}
	out, err := b.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &b.name, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)}})
	if err != nil {
		err = b.fail(ctx, "delete", keys[0], err)
		if errors.Is(err, fault.Unsupported) {
			return b.deleteEach(ctx, keys, failed)
		}
		return err
	}
	for _, e := range out.Errors {
		code, key := aws.ToString(e.Code), aws.ToString(e.Key)
		if code != "NoSuchKey" {
			failed[key] = fault.New(kindOfCode(code, 0), "delete %s/%s: %s: %s", b.name, key, code, aws.ToString(e.Message))
		}
	}
	return nil
}

// deleteEach goes on after an object that is refused, and ends when the store is away.
func (b *s3Bucket) deleteEach(ctx context.Context, keys []string, failed map[string]error) error {
	for _, key := range keys {
		_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.name, Key: &key})
		// NoSuchBucket is NotFound too, and is an error.
		if err == nil || apiCode(err) == "NoSuchKey" {
			continue
		}
		err = b.fail(ctx, "delete", key, err)
		if len(keys) == 1 || !errors.Is(err, fault.Denied) && !errors.Is(err, fault.Invalid) {
			return err
		}
		failed[key] = err
	}
	return nil
}
