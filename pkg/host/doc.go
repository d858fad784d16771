// SPDX-License-Identifier: AGPL-3.0-only

// Package host turns services into a process: settings, logs, traces and metrics, one gRPC and one HTTP listener, keys at every
// door, health, and an orderly end.
//
// Main is the whole main function of a service; Run is its inner part, for several services in one process and for tests.
//
// Invariants:
//
//   - Every door names the scope it needs. One that names none stays shut.
//   - An error leaves a service with a fault kind or without; only the interceptors here turn it into a status.
//   - A process ends in phases, each with a deadline: it stops being ready, its servers drain, its loops end, what was opened closes.
//
// It knows no service: not what they do, nor what is in their settings.
package host
