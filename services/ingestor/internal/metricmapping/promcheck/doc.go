// SPDX-License-Identifier: AGPL-3.0-only

// Package promcheck holds metricmapping against Prometheus' own translation of OTLP. Its tests are apart from the package's since Prometheus' code
// for it is heavy.
package promcheck
