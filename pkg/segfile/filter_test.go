// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// filterOf indexes groups of bodies, and reads the filter back.
func filterOf(t testing.TB, groups [][]string, size int64) *filter {
	t.Helper()
	var b filterBuilder
	for _, bodies := range groups {
		b.addGroup(bodies, nil, size)
	}
	z, err := newEncoder(compression(0))
	if err != nil {
		t.Fatal(err)
	}
	f, err := openFilter(b.marshal(nil, z), len(groups))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// checkNeedle fails if a row group with the needle is no candidate.
func checkNeedle(t testing.TB, f *filter, groups [][]string, needle string) {
	t.Helper()
	candidates := f.candidates([]string{needle}, nil)
	for g, bodies := range groups {
		if candidates.Has(g) {
			continue
		}
		for _, body := range bodies {
			if strings.Contains(body, needle) {
				t.Fatalf("row group %d was pruned for %q, but holds %q", g, needle, body)
			}
		}
	}
}

const largeGroup = 100 << 20

func TestCandidates(t *testing.T) {
	t.Parallel()

	t.Run("never lose a row whose body holds the needle, wherever the needle is cut from it", func(t *testing.T) {
		t.Parallel()
		for seed := range uint64(60) {
			rng := rand.New(rand.NewPCG(seed, 7))
			body := [](func(*rand.Rand) string){lineLikeReal, lineOfFewCharacters, lineOfPieces}[seed%3]
			size := []int64{largeGroup, 60_000, 20_000}[seed/3%3]
			groups := make([][]string, 1+rng.IntN(9))
			for g := range groups {
				for range 1 + rng.IntN(200) {
					groups[g] = append(groups[g], body(rng))
				}
			}
			f := filterOf(t, groups, size)
			for range 1500 {
				from := groups[rng.IntN(len(groups))]
				checkNeedle(t, f, groups, cut(rng, from[rng.IntN(len(from))]))
			}
		}
	})

	t.Run("leave out what cannot hold the needle", func(t *testing.T) {
		t.Parallel()
		rng := rand.New(rand.NewPCG(1, 9))
		groups := make([][]string, 32)
		for g := range groups {
			for range 2000 {
				groups[g] = append(groups[g], lineLikeReal(rng))
			}
		}
		needles := []string{
			"ZX81-Q7TR-9934-KHBV",
			"4bf92f3577b34da6a3ce929d0e0e4736",
			"550e8400-e29b-41d4-a716-446655440000",
			"203.0.113.77",
			"zarquon",
			"user7777777",
			`"span":"00f067aa0ba902b7"`,
		}
		for i, needle := range needles {
			groups[3*i][1000] = "payment of " + needle + " was odd"
		}
		f := filterOf(t, groups, largeGroup)
		for i, needle := range needles {
			got := f.candidates([]string{needle}, nil)
			if !got.Has(3*i) || got.Count() > 3 {
				t.Errorf("%s: %d of %d row groups, the right one: %v", needle, got.Count(), got.Total(), got.Has(3*i))
			}
		}
		if got := f.candidates([]string{needles[0], needles[1]}, nil).Count(); got > 1 {
			t.Errorf("two needles that are never together: %d row groups", got)
		}
		for _, needle := range []string{"", "e", "order", "declined", "ordE", "rder ", "="} {
			checkNeedle(t, f, groups, needle)
		}
	})

	t.Run("hold to the words when the dictionary is full", func(t *testing.T) {
		t.Parallel()
		groups := make([][]string, 3)
		for i := range maxWords + 3000 {
			sum := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
			word := strings.Map(func(r rune) rune { return 'g' + r%16 }, hex.EncodeToString(sum[:9]))
			groups[i%3] = append(groups[i%3], "the word "+word+" comes")
		}
		f := filterOf(t, groups, largeGroup)
		if !f.overflow {
			t.Fatal("the dictionary is not full")
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for range 3000 {
			from := groups[rng.IntN(3)]
			body := from[rng.IntN(len(from))]
			checkNeedle(t, f, groups, cut(rng, body))
			checkNeedle(t, f, groups, strings.TrimPrefix(body, "the"))
		}
	})

	t.Run("find the rows of a trace, in the column and in bodies", func(t *testing.T) {
		t.Parallel()
		l := columns.NewLogs()
		stream, origin := l.Stream(nil), l.Origin(columns.Origin{})
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range 4 * rowGroupRows {
			row := columns.LogRow{Time: testStart.UnixNano() + int64(i), Stream: stream, Origin: origin, Body: "x"}
			for b := range row.TraceID {
				row.TraceID[b] = byte(rng.Uint32())
			}
			l.Append(&row)
		}
		w := write(t, l, testMeta())
		s, err := OpenSidecar(w.sidecar)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for i := 0; i < len(w.order); i += 97 {
			id := l.Record(int(w.order[i])).TraceID
			got := s.Candidates(nil, &id)
			if !got.Has(i / rowGroupRows) {
				t.Fatalf("row %d was pruned", i)
			}
			found += got.Count()
		}
		if limit := len(w.order) / 97 * 3 / 2; found > limit {
			t.Errorf("%d row groups for %d trace ids", found, len(w.order)/97)
		}
		ranges := s.Catalogue().RowRanges(RowGroups{words: []uint64{0b1011}, n: 4})
		if fmt.Sprint(ranges) != "[{0 32767} {49152 65535}]" || ranges[0].SQL() != "row BETWEEN 0 AND 32767" {
			t.Errorf("got %v", ranges)
		}
	})

	t.Run("take at most 15 percent of the segment", func(t *testing.T) {
		t.Parallel()
		l := columns.NewLogs()
		stream, origin := l.Stream(nil), l.Origin(columns.Origin{})
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range 2 * rowGroupRows {
			l.Append(&columns.LogRow{Time: testStart.UnixNano() + int64(i), Stream: stream, Origin: origin, Body: lineLikeReal(rng) + " " + lineLikeReal(rng)})
		}
		w := write(t, l, testMeta())
		if w.SidecarBytes*100 > w.Bytes*15 {
			t.Errorf("%d of %d bytes", w.SidecarBytes, w.Bytes)
		}
	})
}

func TestOpenSidecar(t *testing.T) {
	t.Parallel()
	w := write(t, randomLogs(rand.New(rand.NewPCG(3, 1)), 2000), testMeta())
	for n := range len(w.sidecar) {
		if _, err := OpenSidecar(w.sidecar[:n]); err == nil {
			t.Fatalf("%d of %d bytes were accepted", n, len(w.sidecar))
		}
	}
	rng := rand.New(rand.NewPCG(3, 2))
	for range 2000 {
		damaged := bytes.Clone(w.sidecar)
		damaged[rng.IntN(len(damaged))] ^= byte(1 + rng.IntN(255))
		if s, err := OpenSidecar(damaged); err == nil {
			s.Candidates([]string{"order 00 failed-1234 1.2.3.4"}, &[16]byte{1})
		}
	}
}

func FuzzCandidates(f *testing.F) {
	f.Add("order 1234 from 10.0.0.1", "id 550e8400-e29b-41d4-a716-446655440000", 3, 12)
	f.Add("ZX81-Q7TR-9934-KHBV", "pod-7d9f8b6c5-x2x4z.", 0, 8)
	f.Fuzz(func(t *testing.T, a, b string, from, length int) {
		groups := [][]string{{a}, {b}, {a + b}}
		text := a + b
		if len(text) == 0 {
			return
		}
		start := max(0, from) % len(text)
		needle := text[start:min(len(text), start+max(0, length)%40)]
		checkNeedle(t, filterOf(t, groups, largeGroup), groups, needle)
	})
}

func cut(rng *rand.Rand, s string) string {
	if s == "" {
		return ""
	}
	start := rng.IntN(len(s))
	return s[start:min(len(s), start+1+rng.IntN(60))]
}

func lineLikeReal(rng *rand.Rand) string {
	id := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return hex.EncodeToString(b)
	}
	uuid := id(4) + "-" + id(2) + "-" + id(2) + "-" + id(2) + "-" + id(6)
	ip := fmt.Sprintf("%d.%d.%d.%d", rng.IntN(256), rng.IntN(256), rng.IntN(256), rng.IntN(256))
	at := time.Unix(1_800_000_000, rng.Int64N(3600e9)).UTC().Format("2006-01-02T15:04:05.000000000Z")
	switch rng.IntN(6) {
	case 0:
		return fmt.Sprintf(`{"@timestamp":"%s","level":"INFO","user.id":"user%d","client.ip":"%s","jti":"%s"}`, at, rng.IntN(50_000), ip, uuid)
	case 1:
		return fmt.Sprintf("order %s failed: card_declined after %dms", id(4), rng.IntN(10_000))
	case 2:
		return fmt.Sprintf("level=info ts=%s trace_id=%s span_id=%s duration=%d.%dms", at, id(16), id(8), rng.IntN(20), rng.IntN(100))
	case 3:
		return fmt.Sprintf("%s - - [22/Nov/2026] \"GET /product/%s?x=%s HTTP/1.1\" 200 %d", ip, strings.ToUpper(id(5)), uuid, rng.IntN(100_000))
	case 4:
		return fmt.Sprintf("pod shop-%s-%s v1.%d.%d.%d restarted: ünïcödé %d🦊%s", id(4)[:7], id(3)[:5], rng.IntN(20), rng.IntN(9), rng.IntN(9), rng.IntN(99999), id(1))
	}
	return fmt.Sprintf("ref %s-%s-%d-%s done", strings.ToUpper(id(2)), strings.ToUpper(id(2)), rng.IntN(10_000), strings.ToUpper(id(2)))
}

func lineOfFewCharacters(rng *rand.Rand) string {
	const alphabet = "00112ab-..  cZzé"
	characters := []rune(alphabet)
	b := make([]rune, rng.IntN(60))
	for i := range b {
		b[i] = characters[rng.IntN(len(characters))]
	}
	return string(b)
}

// lineOfPieces joins the things that are treated specially by all kinds of delimiters, and none.
func lineOfPieces(rng *rand.Rand) string {
	pieces := []string{
		"deadbeef-cafe-babe-face-abcdefabcdef", "12345678-1234-1234-1234-123456789012", "1234", "abcd", "12345678", "10.0.0.1", "1.2.3.4.5", "v10.20.30.40x",
		"123456Z", "28.538Z", "order", "cafe", "Q7TR", "KHBV", "x", "9", "0123456789abcdef0123456789abcdef", "card_declined", "1795276800009", "é",
		"bbbb", "cccc", "dddddddddddd", "user42", strings.Repeat("w", maxWord+1), strings.Repeat("a1", 140),
	}
	delimiters := []string{"-", ".", " ", "", "_", ":", "--", "\x00"}
	var b strings.Builder
	for range 1 + rng.IntN(8) {
		b.WriteString(pieces[rng.IntN(len(pieces))])
		b.WriteString(delimiters[rng.IntN(len(delimiters))])
	}
	return b.String()
}
