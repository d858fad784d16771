// SPDX-License-Identifier: AGPL-3.0-only

package lokihttp

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/grafana/loki/v3/pkg/loghttp"
	legacy "github.com/grafana/loki/v3/pkg/loghttp/legacy"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/grafana/loki/v3/pkg/util/httpreq"
	"github.com/grafana/loki/v3/pkg/util/marshal"

	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

const (
	pingPeriod   = 5 * time.Second
	writeTimeout = 10 * time.Second
)

// tail follows a log query over a websocket until either side closes it.
func (a *API) tail(w http.ResponseWriter, r *http.Request) error {
	asked, err := loghttp.ParseTailQuery(r)
	if err != nil {
		return invalid(err)
	}
	if _, err := syntax.ParseLogSelector(asked.Query, true); err != nil {
		return invalid(err)
	}
	if _, err := a.frontend.Caller(r.Context()); err != nil {
		return err
	}
	// Pages of another origin are refused: a browser would send a remembered password for them. Grafana's proxy and logcli name no origin.
	var upgrader websocket.Upgrader
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil //nolint:nilerr // the upgrader has answered
	}
	s := &socket{conn: conn, flags: httpreq.ExtractEncodingFlags(r)}
	s.follow(r.Context(), a.frontend, query.TailRequest{
		Query: asked.Query, Start: asked.Start, Limit: int(asked.Limit), Delay: time.Duration(asked.DelayFor) * time.Second,
	})
	return nil
}

// socket is one websocket. Writes are serialised.
type socket struct {
	conn  *websocket.Conn
	flags httpreq.EncodingFlags
	mu    sync.Mutex
}

func (s *socket) follow(ctx context.Context, frontend *query.Frontend, req query.TailRequest) {
	ctx, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	helpers.Go(func() { s.drain(cancel) })
	helpers.Go(func() { s.ping(ctx, cancel) })
	err := frontend.Tail(ctx, req, s.send)
	s.close(err)
	cancel()
	_ = s.conn.Close()
	helpers.Wait()
}

// drain reads what the client sends, which is nothing but its closing.
func (s *socket) drain(cancel context.CancelFunc) {
	defer cancel()
	for {
		if _, _, err := s.conn.ReadMessage(); err != nil {
			return
		}
	}
}

func (s *socket) ping(ctx context.Context, cancel context.CancelFunc) {
	ticker := time.NewTicker(pingPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if s.write(websocket.PingMessage, nil) != nil {
				cancel()
				return
			}
		}
	}
}

// write writes one message within a deadline.
func (s *socket) write(kind int, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	return s.conn.WriteMessage(kind, data)
}

func (s *socket) close(err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		_ = s.write(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
		return
	}
	_, text := statusOf(err)
	_ = s.write(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseInternalServerErr, text[:min(len(text), 120)]))
}

// send writes lines as one message, grouped by stream in the order of each stream's first line.
func (s *socket) send(lines []logs.Line) error {
	categorize := s.flags.Has(httpreq.FlagCategorizeLabels)
	var out legacy.TailResponse
	at := map[string]int{}
	for i := range lines {
		name := lines[i].Labels
		if categorize {
			name = lines[i].StreamLabels().String()
		}
		stream, ok := at[name]
		if !ok {
			stream = len(out.Streams)
			at[name] = stream
			out.Streams = append(out.Streams, logproto.Stream{Labels: name})
		}
		out.Streams[stream].Entries = append(out.Streams[stream].Entries, lines[i].Entry())
	}
	slices.SortStableFunc(out.Streams, func(a, b logproto.Stream) int {
		return cmp.Compare(a.Entries[0].Timestamp.UnixNano(), b.Entries[0].Timestamp.UnixNano())
	})
	var text bytes.Buffer
	if err := marshal.WriteTailResponseJSON(out, &text, s.flags); err != nil {
		return err
	}
	return s.write(websocket.TextMessage, text.Bytes())
}
