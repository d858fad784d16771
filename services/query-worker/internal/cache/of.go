// SPDX-License-Identifier: AGPL-3.0-only

package cache

import (
	"context"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Of is a cache of sidecars of several types, for those who know which one to expect.
type Of[T any] struct{ *Cache[any] }

// Sidecar returns an object parsed.
func (o Of[T]) Sidecar(ctx context.Context, object Object, u *Usage) (T, error) {
	var none T
	parsed, err := o.Cache.Sidecar(ctx, object, u)
	if err != nil {
		return none, err
	}
	typed, ok := parsed.(T)
	if !ok {
		return none, fault.New(fault.Internal, "sidecar %s is of another signal", object.Key)
	}
	return typed, nil
}

// Parsed returns a sidecar if it is in memory.
func (o Of[T]) Parsed(object Object) (T, bool) {
	parsed, _ := o.Cache.Parsed(object)
	typed, ok := parsed.(T)
	return typed, ok
}
