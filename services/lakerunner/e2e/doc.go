// SPDX-License-Identifier: AGPL-3.0-only

// Package e2e holds the end-to-end tests: all services over real PostgreSQL and a real S3 server, asked as users ask them.
//
// What is in process and what is a process of its own follows from what a test kills: services run in the test's process, except
// for a worker or an ingestor that is to be killed, which is this test binary started once more (see TestMain).
package e2e
