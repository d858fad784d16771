// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands between a frontend and a worker, to let something happen at a moment of their talk.
type proxy struct {
	target   string
	listener net.Listener
	// onRequest and onResponse, once armed, run when the next bytes come in their direction. If they say so, the bytes are dropped with the connection.
	onRequest, onResponse atomic.Pointer[func() (drop bool)]
}

func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: target, listener: listener}
	go p.accept()
	t.Cleanup(func() { _ = listener.Close() })
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.serve(client)
	}
}

func (p *proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, &p.onRequest) })
	both.Go(func() { p.copy(client, server, &p.onResponse) })
	both.Wait()
}

// copy forwards bytes until either side ends, or until what is armed goes off.
func (p *proxy) copy(to io.WriteCloser, from io.ReadCloser, armed *atomic.Pointer[func() bool]) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if f := armed.Swap(nil); f != nil && (*f)() {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
