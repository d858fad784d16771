package notifier

import (
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	_ "github.com/prometheus/client_golang/prometheus"
	_ "go.opentelemetry.io/otel"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/time/rate"
	_ "google.golang.org/grpc"
	_ "google.golang.org/grpc/test/bufconn"
)
