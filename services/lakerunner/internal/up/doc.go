// SPDX-License-Identifier: AGPL-3.0-only

// Package up is `lakerunner up`: everything on one machine, in one process, with one command.
//
// It finds or starts PostgreSQL and an S3 server, writes a configuration, runs all services, and loads a few minutes of sample
// telemetry through the same door as any other: objects put into the bucket, whose events reach the notifier by webhook.
//
// Invariants:
//
//   - All state is in the data directory (or in the database and bucket that the environment names), so that a second start goes
//     on where the first one stopped. The sample is loaded once, even if the first start was interrupted.
//   - It listens on the loopback interface only.
//   - Secrets are made once, and are readable by their owner alone.
//   - Two processes never share a data directory.
package up
