// SPDX-License-Identifier: AGPL-3.0-only

package objects

import "go.opentelemetry.io/otel/metric"

// Standard puts retries, metrics and deadlines with their defaults around a bucket that Open made.
func Standard(b Bucket, meter metric.Meter) Bucket {
	return WithRetry(WithMetrics(WithDeadline(b, Deadlines{}), meter), Retries{})
}
