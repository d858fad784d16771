// SPDX-License-Identifier: AGPL-3.0-only

package chunk_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/metricfile/chunk"
)

const staleBits = 0x7ff0000000000002

func TestIntsComeOutAsTheyWentIn(t *testing.T) {
	t.Parallel()
	var e chunk.Encoder
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		for name, values := range intVectors(rng, n) {
			checkInts(t, &e, fmt.Sprint(name, " of ", n), values)
		}
	}
}

func checkInts(t *testing.T, e *chunk.Encoder, name string, values []int64) {
	t.Helper()
	prefix, suffix := []byte("prefix"), []byte("suffix")
	b := append(e.Ints(bytes.Clone(prefix), values), suffix...)
	if !bytes.HasPrefix(b, prefix) {
		t.Fatalf("%s: what was there is overwritten", name)
	}
	got, rest, err := chunk.Ints([]int64{7}, b[len(prefix):], len(values))
	if err != nil || !bytes.Equal(rest, suffix) || got[0] != 7 || len(got) != 1+len(values) {
		t.Fatalf("%s: %v, %d values, %q is left", name, err, len(got), rest)
	}
	for i, v := range got[1:] {
		if v != values[i] {
			t.Fatalf("%s: value %d is %d, want %d", name, i, v, values[i])
		}
	}
	if rest, err = chunk.SkipInts(b[len(prefix):], len(values)); err != nil || !bytes.Equal(rest, suffix) {
		t.Fatalf("%s: skipping: %v, %q is left", name, err, rest)
	}
	// The last bytes of a file have nothing after them.
	if _, rest, err = chunk.Ints(nil, b[len(prefix):len(b)-len(suffix)], len(values)); err != nil || len(rest) != 0 {
		t.Fatalf("%s: alone: %v, %q is left", name, err, rest)
	}
}

// intVectors are vectors for each form, and those that are hard.
func intVectors(rng *rand.Rand, n int) map[string][]int64 {
	make := func(f func(i int) int64) []int64 {
		v := []int64{}
		for i := range n {
			v = append(v, f(i))
		}
		return v
	}
	sum := int64(0)
	wide := rng.IntN(64)
	return map[string][]int64{
		"zeros":      make(func(int) int64 { return 0 }),
		"constant":   make(func(int) int64 { return math.MinInt64 }),
		"times":      make(func(i int) int64 { return 1795345200000000000 + int64(i)*10e9 }),
		"jitter":     make(func(i int) int64 { return 1795345200000000000 + int64(i)*10e9 + rng.Int64N(1000)*1e6 }),
		"counter":    make(func(int) int64 { sum += rng.Int64N(1000); return sum }),
		"bursts":     make(func(i int) int64 { sum += max(0, rng.Int64N(2000)-1900); return sum }),
		"falling":    make(func(i int) int64 { sum -= 7 + rng.Int64N(3); return sum }),
		"gauge":      make(func(int) int64 { return rng.Int64N(100) }),
		"parabola":   make(func(i int) int64 { return int64(i) * int64(i) }),
		"any width":  make(func(int) int64 { return int64(rng.Uint64() >> wide) }),
		"any":        make(func(int) int64 { return int64(rng.Uint64()) }),
		"extremes":   make(func(i int) int64 { return []int64{math.MinInt64, math.MaxInt64, 0, -1, 1}[rng.IntN(5)] }),
		"multiples":  make(func(int) int64 { return 4096 * (rng.Int64N(1<<40) - 1<<39) }),
		"half":       make(func(i int) int64 { return []int64{math.MinInt64, 0}[i%2] }),
		"one is odd": make(func(i int) int64 { return map[bool]int64{true: math.MaxInt64}[i == n-1] }),
	}
}

func TestFloatsComeOutBitByBit(t *testing.T) {
	t.Parallel()
	var e chunk.Encoder
	rng := rand.New(rand.NewPCG(3, 4))
	for n := range 200 {
		for name, values := range floatVectors(rng, n) {
			checkFloats(t, &e, fmt.Sprint(name, " of ", n), values)
		}
	}
}

func checkFloats(t *testing.T, e *chunk.Encoder, name string, values []float64) {
	t.Helper()
	suffix := []byte("suffix")
	b := append(e.Floats(nil, values), suffix...)
	got, rest, err := chunk.Floats([]float64{7}, b, len(values))
	if err != nil || !bytes.Equal(rest, suffix) || got[0] != 7 || len(got) != 1+len(values) {
		t.Fatalf("%s: %v, %d values, %q is left", name, err, len(got), rest)
	}
	for i, v := range got[1:] {
		if math.Float64bits(v) != math.Float64bits(values[i]) {
			t.Fatalf("%s: value %d is %x, want %x", name, i, math.Float64bits(v), math.Float64bits(values[i]))
		}
	}
	if rest, err = chunk.SkipFloats(b, len(values)); err != nil || !bytes.Equal(rest, suffix) {
		t.Fatalf("%s: skipping: %v, %q is left", name, err, rest)
	}
}

func floatVectors(rng *rand.Rand, n int) map[string][]float64 {
	make := func(f func(i int) float64) []float64 {
		v := []float64{}
		for i := range n {
			v = append(v, f(i))
		}
		return v
	}
	odd := []float64{
		math.Float64frombits(staleBits), math.NaN(), math.Float64frombits(0xfff8000000000123), math.Inf(1), math.Inf(-1), math.Copysign(0, -1),
		math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 53, 1<<53 + 2, 1 << 63, -1 << 63, 1 << 62,
	}
	sum, power := 0.0, math.Pow10(rng.IntN(20))
	sometimes := func(v float64) float64 {
		if rng.IntN(10) == 0 {
			return odd[rng.IntN(len(odd))]
		}
		return v
	}
	return map[string][]float64{
		"integers":          make(func(int) float64 { return float64(rng.IntN(1000)) }),
		"counter and stale": make(func(int) float64 { sum += float64(rng.IntN(100)); return sometimes(sum) }),
		"decimals":          make(func(int) float64 { return float64(rng.IntN(1e6)) / 1e3 }),
		"odd decimals":      make(func(int) float64 { return sometimes(float64(rng.IntN(1e6)) / 1e3) }),
		"small decimals":    make(func(int) float64 { return float64(rng.IntN(1e6)) / power }),
		"sums":              make(func(int) float64 { sum += rng.Float64(); return sum }),
		"odd sums":          make(func(int) float64 { sum += rng.Float64(); return sometimes(sum) }),
		"noise":             make(func(int) float64 { return rng.NormFloat64() }),
		"bits":              make(func(int) float64 { return math.Float64frombits(rng.Uint64()) }),
		"singles":           make(func(int) float64 { return float64(rng.Float32()) }),
		"all odd":           make(func(int) float64 { return odd[rng.IntN(len(odd))] }),
		"stale":             make(func(int) float64 { return math.Float64frombits(staleBits) }),
		"negative zero":     make(func(int) float64 { return math.Copysign(0, -1) }),
		"stale first":       make(func(i int) float64 { return map[bool]float64{true: odd[0], false: 1000}[i < n/3] }),
		"one decimal":       make(func(i int) float64 { return map[bool]float64{true: 0.25}[i == n/2] }),
		"huge":              make(func(int) float64 { return rng.Float64() * 1e300 }),
	}
}

// TestWhatVectorsTake holds the bytes of vectors as they usually are.
func TestWhatVectorsTake(t *testing.T) {
	t.Parallel()
	var e chunk.Encoder
	rng := rand.New(rand.NewPCG(5, 6))
	const n = 360
	sum := int64(0)
	for name, c := range map[string]struct {
		value func(i int) float64
		most  int
	}{
		"constant":                      {func(int) float64 { return 12345 }, 6},
		"a line":                        {func(i int) float64 { return 12345 + 17*float64(i) }, 8},
		"rises by less than 16":         {func(int) float64 { sum += rng.Int64N(16); return float64(sum) }, n*4/8 + n/32 + 16},
		"rises by about a thousand":     {func(int) float64 { sum += 1000 + rng.Int64N(16); return float64(sum) }, n*4/8 + n/32 + 16},
		"rises by 1500 one time in ten": {func(i int) float64 { sum += 1500 * int64(i%10/9); return float64(sum) }, 120},
		"two decimals, below 1":         {func(int) float64 { return float64(rng.IntN(100)) / 100 }, n*7/8 + n/32 + 16},
		"sums of any floats":            {func(i int) float64 { return 1e3 + float64(i) + rng.Float64()/3 }, n*44/8 + n/32 + 16},
	} {
		var values []float64
		for i := range n {
			values = append(values, c.value(i))
		}
		if got := len(e.Floats(nil, values)); got > c.most {
			t.Errorf("%s: %d bytes, want at most %d", name, got, c.most)
		}
	}
	var times []int64
	for i := range n {
		times = append(times, 1795345200000000000+int64(i)*10e9+rng.Int64N(16)*1e6)
	}
	if got, most := len(e.Ints(nil, times)), n*5/8+n/32+24; got > most {
		t.Errorf("times with a jitter of 16 ms: %d bytes, want at most %d", got, most)
	}
}

func TestDamagedVectorsAreErrors(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"nothing": {}, "an unknown form": {0x80, 0, 0}, "an unknown order": {3, 2}, "no first value": {0}, "no divisor": {4},
		"no blocks": {0x10, 2}, "a block too wide": {0x10, 2, 65}, "a short block": {0x10, 2, 8}, "a short bitmap": {0x10, 2, 0x88},
		"a bitmap of more than there are": {0x10, 2, 0x81, 0xff, 0xff}, "an endless number": {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		if _, _, err := chunk.Ints(nil, b, 3); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, _, err := chunk.Floats(nil, append([]byte{0}, b...), 3); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, b := range map[string][]byte{
		"an unknown exponent": {30, 0, 2}, "an exception too many": {0x20, 4, 0, 0, 0, 0, 0, 0}, "an exception elsewhere": {0x20, 1, 0, 6, 0, 0, 0, 0},
	} {
		if _, _, err := chunk.Floats(nil, b, 3); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, _, err := chunk.Ints(nil, []byte{0x10, 2}, 1<<40); err == nil {
		t.Error("more values than bytes: no error")
	}
}

func FuzzInts(f *testing.F) {
	var e chunk.Encoder
	rng := rand.New(rand.NewPCG(7, 8))
	for _, v := range intVectors(rng, 40) {
		f.Add(e.Ints(nil, v), 40)
	}
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		if n < 0 || n > 1<<12 {
			return
		}
		values, rest, err := chunk.Ints(nil, b, n)
		skipped, skipErr := chunk.SkipInts(b, n)
		if (err == nil) != (skipErr == nil) && skipErr != nil || err == nil && !bytes.Equal(rest, skipped) {
			t.Fatalf("decoding: %v, %d bytes left; skipping: %v, %d bytes left", err, len(rest), skipErr, len(skipped))
		}
		if err == nil {
			var e chunk.Encoder
			checkInts(t, &e, "decoded", values)
		}
	})
}

func FuzzFloats(f *testing.F) {
	var e chunk.Encoder
	rng := rand.New(rand.NewPCG(9, 10))
	for _, v := range floatVectors(rng, 40) {
		f.Add(e.Floats(nil, v), 40)
	}
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		if n < 0 || n > 1<<12 {
			return
		}
		if values, _, err := chunk.Floats(nil, b, n); err == nil {
			var e chunk.Encoder
			checkFloats(t, &e, "decoded", values)
		}
	})
}

// The vectors of benchmarks are an hour at 10 s.
const benchmarkLen = 360

func benchmarkVectors() map[string][]float64 {
	rng := rand.New(rand.NewPCG(11, 12))
	vectors := map[string][]float64{}
	bucket, counter, gauge, sum := 0.0, 1e9, 3e7, 60.0
	for range benchmarkLen {
		bucket += float64(max(0, rng.IntN(12)-6))
		counter += 1e4 + float64(rng.IntN(1000))
		gauge += float64(rng.IntN(1e6)) - 5e5
		sum += rng.Float64()
		vectors["bucket"] = append(vectors["bucket"], bucket)
		vectors["counter"] = append(vectors["counter"], counter)
		vectors["gauge"] = append(vectors["gauge"], gauge)
		vectors["decimal"] = append(vectors["decimal"], gauge/1e3)
		vectors["sum"] = append(vectors["sum"], sum)
		vectors["constant"] = append(vectors["constant"], 1)
	}
	return vectors
}

func BenchmarkEncode(b *testing.B) {
	for name, values := range benchmarkVectors() {
		b.Run(name, func(b *testing.B) {
			var e chunk.Encoder
			var dst []byte
			for b.Loop() {
				dst = e.Floats(dst[:0], values)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchmarkLen, "ns/value")
			b.ReportMetric(float64(len(dst))/benchmarkLen, "B/value")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, values := range benchmarkVectors() {
		b.Run(name, func(b *testing.B) {
			var e chunk.Encoder
			encoded := slices.Grow(e.Floats(nil, values), 512) // a page has others behind it
			var dst []float64
			for b.Loop() {
				dst, _, _ = chunk.Floats(dst[:0], encoded, benchmarkLen)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchmarkLen, "ns/value")
		})
	}
}
