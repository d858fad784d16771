// SPDX-License-Identifier: AGPL-3.0-only

// Package lake holds the nouns of LakeRunner and nothing else; it imports the standard library alone.
//
// Glossary, the same in proto, Go, SQL, metrics and docs:
//
//   - signal: a kind of telemetry: logs, metrics or spans.
//   - organization: a tenant. Every object, segment and query belongs to exactly one.
//   - collector: what wrote an object (an agent, a collector, a cloud service).
//   - object: one version of one source object: bucket, key and content tag.
//   - receipt: the account of one revision of one object: pending, done, skipped, failed or superseded.
//   - revision: the count of the versions seen of one bucket and key, from 1.
//   - source: the small number of a source object within a lake (its receipt id), which every row carries.
//   - segment: one Parquet file of one organization, signal and window, with its sidecar beside it.
//   - window: a half-open span of event time; level-0 log segments have windows of one hour.
//   - level: how often a segment's rows have been merged; 0 is what ingest writes.
//   - edit: the one act that changes the lake: segments added and removed, receipts finished, tasks enqueued.
//   - task, lease: a piece of work, and the fenced, expiring right to do some of them.
//   - stream: a set of stream labels, as Loki has it. Origin: a resource and a scope, as OTLP has them.
//   - fingerprint: the 64-bit hash of a log row's message template.
//   - catalogue: what streams, attributes and counts a segment holds.
//   - token filter: the structure that tells which row groups cannot hold a token.
package lake
