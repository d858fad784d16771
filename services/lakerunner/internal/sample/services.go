// SPDX-License-Identifier: AGPL-3.0-only

package sample

import (
	"encoding/hex"
	"fmt"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
)

// writeGateway writes access logs in the combined format.
func writeGateway(g *shop, at time.Time) entry {
	status := g.status()
	path := g.oneOf("/", "/api/products/"+g.product(), "/api/cart", "/api/checkout", "/static/app.js", "/healthz")
	method := g.oneOf("GET", "GET", "GET", "POST")
	agent := g.oneOf("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_2 like Mac OS X)", "curl/8.11.0", "kube-probe/1.33")
	body := fmt.Sprintf(`%s - - [%s] "%s %s HTTP/1.1" %d %d "-" "%s" rt=%.3f`,
		g.ip(), at.UTC().Format("02/Jan/2006:15:04:05 -0700"), method, path, status, 120+g.random.IntN(40000), agent, g.millis(40)/1000)
	return entry{level: levelOf(status), body: body, attributes: []*commonpb.KeyValue{
		text("http.request.method", method),
		text("url.path", path),
		integer("http.response.status_code", int64(status)),
	}}
}

// writeFrontend writes JSON lines, the trace id repeated in the body as many loggers do.
func writeFrontend(g *shop, at time.Time) entry {
	status := g.status()
	duration := g.millis(35)
	e := g.inTrace(entry{level: levelOf(status), attributes: []*commonpb.KeyValue{
		integer("http.response.status_code", int64(status)),
		float("duration_ms", duration),
	}})
	e.body = fmt.Sprintf(`{"time":"%s","level":"%s","msg":"request completed","trace_id":"%s","customer_id":"%s","path":"/api/products/%s","status":%d,"duration_ms":%.2f}`,
		at.UTC().Format("2006-01-02T15:04:05.000Z"), e.level.text, hex.EncodeToString(e.trace), g.customer(), g.product(), status, duration)
	return e
}

// writeCheckout writes the orders, a few of which fail.
func writeCheckout(g *shop, _ time.Time) entry {
	order := "ord_" + g.hex(8)
	e := g.inTrace(entry{level: info(), attributes: []*commonpb.KeyValue{text("app.order.id", order), text("rpc.method", "PlaceOrder")}})
	switch {
	case g.chance(4):
		e.level = failure()
		e.body = fmt.Sprintf("order %s failed: payment declined (%s) after %.0fms", order, g.oneOf("card_declined", "insufficient_funds", "expired_card"), g.millis(400))
	case g.chance(6):
		e.level = warning()
		e.body = fmt.Sprintf("retrying shipping quote for order %s, attempt %d", order, 1+g.random.IntN(4))
	case g.chance(50):
		e.body = fmt.Sprintf("order %s placed by %s: %d items, total %.2f EUR", order, g.customer(), 1+g.random.IntN(9), g.millis(60))
	default:
		e.body = fmt.Sprintf("confirmation of order %s sent in %.1fms", order, g.millis(90))
	}
	return e
}

// writeCart writes logfmt.
func writeCart(g *shop, at time.Time) entry {
	stamp := at.UTC().Format(time.RFC3339Nano)
	if g.chance(1) {
		return g.inTrace(entry{level: failure(), body: fmt.Sprintf(`ts=%s level=error msg="cannot reach cache" addr=cache:6379 err="timeout after %.0fms" customer=%s`, stamp, g.millis(1500), g.customer())})
	}
	call := g.oneOf("GetCart", "AddItem", "AddItem", "EmptyCart")
	return g.inTrace(entry{level: info(), body: fmt.Sprintf(`ts=%s level=info msg="%s called" customer=%s product=%s quantity=%d duration=%.2fms`,
		stamp, call, g.customer(), g.product(), 1+g.random.IntN(5), g.millis(4))})
}

// writePayment writes JSON with nested fields.
func writePayment(g *shop, _ time.Time) entry {
	charge := "ch_" + g.hex(12)
	if g.chance(7) {
		return g.inTrace(entry{level: warning(), body: fmt.Sprintf(`{"level":"warn","msg":"charge declined","charge":"%s","card":{"brand":"%s","last4":"%04d"},"reason":"%s"}`,
			charge, g.oneOf("visa", "mastercard", "amex"), g.random.IntN(10000), g.oneOf("card_declined", "insufficient_funds", "expired_card"))})
	}
	return g.inTrace(entry{level: info(), body: fmt.Sprintf(`{"level":"info","msg":"charge captured","charge":"%s","card":{"brand":"%s","last4":"%04d"},"amount":%.2f,"currency":"%s"}`,
		charge, g.oneOf("visa", "mastercard"), g.random.IntN(10000), g.millis(60), g.oneOf("EUR", "EUR", "USD", "CHF"))})
}

// writeInventory writes plain sentences, debug ones among them.
func writeInventory(g *shop, _ time.Time) entry {
	if g.chance(30) {
		return entry{level: debug(), body: fmt.Sprintf("stock level of %s is %d in warehouse %s", g.product(), g.random.IntN(500), g.oneOf("ams", "fra", "iad"))}
	}
	if g.chance(3) {
		return entry{level: warning(), body: fmt.Sprintf("%s is running low: %d left, reorder point is %d", g.product(), g.random.IntN(5), 10)}
	}
	return g.inTrace(entry{
		level: info(), body: fmt.Sprintf("reserved %d of %s for ord_%s", 1+g.random.IntN(4), g.product(), g.hex(8)),
		attributes: []*commonpb.KeyValue{text("warehouse", g.oneOf("ams", "fra", "iad"))},
	})
}

// writePostgres writes the database's own log, some entries of several lines.
func writePostgres(g *shop, at time.Time) entry {
	prefix := fmt.Sprintf("%s [%d]", at.UTC().Format("2006-01-02 15:04:05.000 UTC"), 100+g.random.IntN(60))
	if g.chance(2) {
		return entry{level: failure(), body: fmt.Sprintf("%s ERROR:  deadlock detected\n\tDETAIL:  Process %d waits for ShareLock on transaction %d.\n\tHINT:  See server log for query details.",
			prefix, 100+g.random.IntN(60), 700000+g.random.IntN(9999))}
	}
	return entry{level: info(), body: fmt.Sprintf("%s LOG:  duration: %.3f ms  execute <unnamed>: SELECT id, name, price FROM products WHERE id = $1", prefix, g.millis(2))}
}

// status is mostly well.
func (g *shop) status() int {
	switch {
	case g.chance(1):
		return 503
	case g.chance(4):
		return 404
	case g.chance(5):
		return 201
	}
	return 200
}

func levelOf(status int) level {
	switch {
	case status >= 500:
		return failure()
	case status >= 400:
		return warning()
	}
	return info()
}
