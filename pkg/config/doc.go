// SPDX-License-Identifier: AGPL-3.0-only

// Package config answers what an operator has decided: which organizations there are, whose an object in a bucket is, what a
// key may do, and what the limits are.
//
// A Source holds the answer as an immutable Snapshot. Live merges three layers: the environment, YAML files and configdb, a later
// one replacing what an earlier one says of the same organization, storage profile or key. It reads them again when they change.
//
// Invariants:
//
//   - A snapshot never changes. Who needs two answers that fit together asks one snapshot for both.
//   - Only a valid configuration is ever in force: a wrong one stops the start, naming file, line and remedy; later it is logged
//     and the one before stays.
//   - Secrets of keys are not held: only their SHA-256, compared in constant time.
//
// It does not read the settings of services or of the process (pkg/host does), and it opens no buckets but through Buckets.
package config
