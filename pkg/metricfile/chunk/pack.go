// SPDX-License-Identifier: AGPL-3.0-only

package chunk

import (
	"encoding/binary"
	"math/bits"
)

// blockLen is how many numbers are packed with one width.
const blockLen = 32

// A block begins with its width in bits; with this flag, a bitmap of the numbers that are not zero follows, and only those are packed.
const sparse = 0x80

// zigzag makes small numbers of either sign small numbers.
func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// blockSize returns the bytes of a block of n numbers with this union of bits, and whether the sparse form is the smaller one.
func blockSize(n, nonzero int, union uint64) (size int, isSparse bool) {
	width := bits.Len64(union)
	dense, few := packedSize(n, width), (n+7)/8+packedSize(nonzero, width)
	if few < dense {
		return 1 + few, true
	}
	return 1 + dense, false
}

func packedSize(n, width int) int { return (n*width + 7) / 8 }

// appendBlock appends a block of at most blockLen numbers.
func appendBlock(dst []byte, values []uint64) []byte {
	union, nonzero := uint64(0), 0
	for _, v := range values {
		union |= v
		if v != 0 {
			nonzero++
		}
	}
	width := bits.Len64(union)
	if _, few := blockSize(len(values), nonzero, union); !few {
		return appendPacked(append(dst, byte(width)), values, width)
	}
	present, rest := uint32(0), make([]uint64, 0, blockLen)
	for i, v := range values {
		if v != 0 {
			present |= 1 << i
			rest = append(rest, v)
		}
	}
	dst = append(dst, byte(width)|sparse)
	for i := 0; i < len(values); i += 8 {
		dst = append(dst, byte(present>>i))
	}
	return appendPacked(dst, rest, width)
}

// appendPacked appends the low bits of each value, the first in the lowest bits of the first byte.
func appendPacked(dst []byte, values []uint64, width int) []byte {
	word, filled := uint64(0), 0
	for _, v := range values {
		word |= v << filled
		filled += width
		if filled < 64 {
			continue
		}
		dst = binary.LittleEndian.AppendUint64(dst, word)
		filled -= 64
		word = v >> (width - filled) // width > 0, and a shift of 64 gives 0
	}
	for ; filled > 0; filled -= 8 {
		dst = append(dst, byte(word))
		word >>= 8
	}
	return dst
}

// lane is memory that a dense block begins in: loads of eight bytes anywhere in the block stay within it, which the compiler can see.
type lane [256 + 8]byte

// load returns eight bytes, the first of which has this bit as its lowest.
func (l *lane) load(bit uint) uint64 {
	at := bit >> 3 & 255
	return binary.LittleEndian.Uint64(l[at:at+8]) >> (bit & 7)
}

// laneOf returns b, and whatever lies behind it, as a lane; a copy in spare where there is not enough behind it.
func laneOf(b []byte, spare *lane) *lane {
	if cap(b) >= len(spare) {
		return (*lane)(b[:len(spare)])
	}
	copy(spare[:], b)
	return spare
}

// openBlock reads the head of a block of n numbers, and returns the bytes after the block. dense is nil if the numbers are in memory already.
func openBlock(b []byte, n int, memory *[blockLen]uint64, spare *lane) (dense *lane, width int, rest []byte, err error) {
	if len(b) == 0 {
		return nil, 0, nil, errDamaged
	}
	header, b := b[0], b[1:]
	width = int(header &^ sparse)
	if width > 64 {
		return nil, 0, nil, errDamaged
	}
	if header&sparse != 0 {
		rest, err = readSparse(memory[:n], b, width)
		return nil, width, rest, err
	}
	size := packedSize(n, width)
	if len(b) < size {
		return nil, 0, nil, errDamaged
	}
	rest = b[size:]
	if width > maxLoaded {
		unpackWide(memory[:n], b[:size], width)
		return nil, width, rest, nil
	}
	return laneOf(b[:size:cap(b)], spare), width, rest, nil
}

func readSparse(out []uint64, b []byte, width int) ([]byte, error) {
	mapped := (len(out) + 7) / 8
	if len(b) < mapped {
		return nil, errDamaged
	}
	present := uint32(0)
	for i, c := range b[:mapped] {
		present |= uint32(c) << (8 * i)
	}
	b = b[mapped:]
	count := bits.OnesCount32(present)
	size := packedSize(count, width)
	if count > len(out) || len(b) < size || bits.Len32(present) > len(out) {
		return nil, errDamaged
	}
	var few [blockLen]uint64
	unpack(few[:count], b[:size], width)
	clear(out)
	for i := 0; present != 0; i++ {
		out[bits.TrailingZeros32(present)] = few[i]
		present &= present - 1
	}
	return b[size:], nil
}

// maxLoaded is the widest number that one load of eight bytes holds wherever in a byte it begins.
const maxLoaded = 57

// unpack reads values of this width from b.
func unpack(out []uint64, b []byte, width int) {
	if width > maxLoaded {
		unpackWide(out, b, width)
		return
	}
	var spare lane
	l := laneOf(b, &spare)
	mask, bit := uint64(1)<<width-1, uint(0)
	for i := range out {
		out[i] = l.load(bit) & mask
		bit += uint(width)
	}
}

// unpackWide is unpack for numbers of more than maxLoaded bits: each has bits in nine bytes at most.
func unpackWide(out []uint64, b []byte, width int) {
	var padded [8*blockLen + 8]byte
	copy(padded[:], b)
	mask, bit := ^uint64(0)>>(64-width), 0
	for i := range out {
		at, shift := bit>>3, bit&7
		v := binary.LittleEndian.Uint64(padded[at:]) >> shift
		v |= uint64(padded[at+8]) << 1 << (63 - shift)
		out[i] = v & mask
		bit += width
	}
}

// skipBlock returns the bytes after a block of n numbers.
func skipBlock(b []byte, n int) ([]byte, error) {
	if len(b) == 0 {
		return nil, errDamaged
	}
	width, size := int(b[0]&^sparse), 0
	if b[0]&sparse != 0 {
		mapped := (n + 7) / 8
		if len(b) < 1+mapped {
			return nil, errDamaged
		}
		for _, c := range b[1:][:mapped] {
			size += bits.OnesCount8(c)
		}
		size = mapped + packedSize(size, width)
	} else {
		size = packedSize(n, width)
	}
	if width > 64 || len(b) < 1+size {
		return nil, errDamaged
	}
	return b[1+size:], nil
}
