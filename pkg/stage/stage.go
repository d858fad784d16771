// SPDX-License-Identifier: AGPL-3.0-only

// Package stage is the one loop of every pipeline service: claim, work, commit.
//
// Work is func(ctx, *lake.Lease) (lake.Edit, error). It may run twice; it commits once. While it runs the lease is renewed; when
// the lease is lost its context is cancelled. An error, or a panic, releases the lease with its cause.
package stage
