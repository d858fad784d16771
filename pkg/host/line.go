// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"context"
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
)

// line is the one wide log line of a request; handlers add to it.
type line struct {
	mu    sync.Mutex
	attrs []slog.Attr
}

type lineKey struct{}

func withLine(ctx context.Context) (context.Context, *line) {
	l := &line{}
	return context.WithValue(ctx, lineKey{}, l), l
}

// Annotate adds to the one log line of the request that ctx belongs to: what it read, how much, why it was partial.
func Annotate(ctx context.Context, attrs ...slog.Attr) {
	if l, ok := ctx.Value(lineKey{}).(*line); ok {
		l.add(attrs...)
	}
}

func (l *line) add(attrs ...slog.Attr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.attrs = append(l.attrs, attrs...)
}

func (l *line) identity(identity config.Identity) {
	if identity.KeyID != "" {
		l.add(slog.String("key", identity.KeyID))
	}
	if identity.Organization != "" {
		l.add(slog.String("organization", string(identity.Organization)))
	}
}

func (l *line) fail(err error) {
	l.add(slog.String("kind", string(fault.KindOf(err))), slog.String("error", err.Error()))
}

func (l *line) write(ctx context.Context, log *slog.Logger, level slog.Level, message string, attrs ...slog.Attr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		attrs = append(attrs, slog.String("trace_id", span.TraceID().String()))
	}
	log.LogAttrs(ctx, level, message, append(attrs, l.attrs...)...)
}
