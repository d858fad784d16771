// SPDX-License-Identifier: AGPL-3.0-only

// Package webhook is the door for object stores that post their events: POST /webhook/{source}.
//
// Each source has a token of its own, which comes as a Bearer token, as the bare Authorization header (MinIO), as
// X-Lakerunner-Token or, for senders that can only be given a URL, as ?token=. The answer is 200 only once the receipts are
// committed. Whatever may be better later is answered with 5xx, so that the sender tries again: many drop an event on 4xx.
package webhook

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/services/notifier/internal/event"
	"github.com/lakerunner/lakerunner/services/notifier/internal/intake"
)

// Name is the door's, in metrics.
const Name = "webhook"

// Pattern is where it stands.
const Pattern = "POST /webhook/{source}"

const tokenHeader = "X-Lakerunner-Token" //nolint:gosec // the name of a header

// Intake is what stands behind the door.
type Intake interface {
	Take(ctx context.Context, door string, notices []intake.Notice) ([]intake.Taken, error)
}

// Config is what users set.
type Config struct {
	// Tokens open the door: "source=token" for each source. None: the door stays shut.
	Tokens []string `yaml:"tokens"`
	// MaxBody bounds a message in bytes. Zero: 1 MiB.
	MaxBody int64 `yaml:"max_body"`
	// MaxConcurrent bounds the messages at work; more are told to come again. Zero: 64.
	MaxConcurrent int `yaml:"max_concurrent"`
}

// Door answers posted events.
type Door struct {
	intake  Intake
	tokens  map[string][sha256.Size]byte // by source
	maxBody int64
	turns   chan struct{}
	records metric.Int64Counter
}

// New makes the door; it fails with fault.Invalid on a token that is not one.
func New(c Config, in Intake, meter metric.Meter) (*Door, error) {
	if c.MaxBody <= 0 {
		c.MaxBody = 1 << 20
	}
	if c.MaxConcurrent <= 0 {
		c.MaxConcurrent = 64
	}
	tokens, err := parseTokens(c.Tokens)
	if err != nil {
		return nil, err
	}
	// The name is constant and valid; creating the instrument cannot fail.
	records, _ := meter.Int64Counter("lakerunner.notifier.events", metric.WithDescription("Event records posted to the webhook, by source and kind."))
	return &Door{intake: in, tokens: tokens, maxBody: c.MaxBody, turns: make(chan struct{}, c.MaxConcurrent), records: records}, nil
}

func parseTokens(entries []string) (map[string][sha256.Size]byte, error) {
	tokens := map[string][sha256.Size]byte{}
	for _, entry := range entries {
		source, token, _ := strings.Cut(entry, "=")
		if source == "" || token == "" || strings.Contains(source, "/") {
			return nil, fault.New(fault.Invalid, "webhook token of source %q: want source=token", source)
		}
		if _, twice := tokens[source]; twice {
			return nil, fault.New(fault.Invalid, "webhook token of source %q: given twice", source)
		}
		tokens[source] = sha256.Sum256([]byte(token))
	}
	return tokens, nil
}

// ServeHTTP takes one message. Its answer to success has no body: versitygw would leave the connection open.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := d.serve(w, r); err != nil {
		if errors.Is(err, fault.Unavailable) {
			w.Header().Set("Retry-After", "1")
		}
		fault.WriteHTTP(w, err)
	}
}

func (d *Door) serve(w http.ResponseWriter, r *http.Request) error {
	source := r.PathValue("source")
	if !d.admits(source, tokenOf(r)) {
		return fault.New(fault.Unauthenticated, "no or a wrong token for this source")
	}
	select {
	case d.turns <- struct{}{}:
		defer func() { <-d.turns }()
	default:
		return fault.New(fault.Unavailable, "too many events at once: come again")
	}
	body, err := read(http.MaxBytesReader(w, r.Body, d.maxBody))
	if err != nil {
		return err
	}
	return d.take(r.Context(), source, body)
}

func (d *Door) take(ctx context.Context, source string, body []byte) error {
	message, err := event.Parse(body)
	if err != nil {
		d.count(ctx, source, event.Malformed, 1)
		return err
	}
	for kind, n := range message.Counts {
		d.count(ctx, source, kind, n)
	}
	notices := make([]intake.Notice, len(message.Objects))
	for i, o := range message.Objects {
		notices[i] = intake.Notice{Object: o.Object, Complete: o.Complete}
	}
	taken, err := d.intake.Take(ctx, Name, notices)
	host.Annotate(ctx, slog.String("source", source), slog.Int("objects", len(taken)))
	return again(err)
}

// again makes the sender come again: whatever hindered us, the news is good.
func again(err error) error {
	if err == nil || errors.Is(err, fault.Canceled) || errors.Is(err, fault.Timeout) {
		return err
	}
	return fault.Wrap(fault.Unavailable, fmt.Errorf("take the events: %w", err))
}

func (d *Door) count(ctx context.Context, source string, kind event.Kind, n int) {
	d.records.Add(ctx, int64(n), metric.WithAttributes(attribute.String("source", source), attribute.String("kind", string(kind))))
}

// admits compares in constant time, a source that does not exist included.
func (d *Door) admits(source, token string) bool {
	want, known := d.tokens[source]
	got := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1 && known
}

func tokenOf(r *http.Request) string {
	if token := r.Header.Get(tokenHeader); token != "" {
		return token
	}
	if authorization := r.Header.Get("Authorization"); authorization != "" {
		scheme, token, found := strings.Cut(authorization, " ")
		if found && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token)
		}
		return authorization
	}
	return r.URL.Query().Get("token")
}

func read(body io.Reader) ([]byte, error) {
	all, err := io.ReadAll(body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, fault.New(fault.Invalid, "message of more than %d bytes", large.Limit)
	case err != nil:
		return nil, fault.Wrap(fault.Canceled, fmt.Errorf("read the message: %w", err))
	}
	return all, nil
}
