// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// maxDict is the largest dictionary of an xz file that is read: that of xz -9.
// A file may ask for 4 GiB, and the decoder takes what it asks for at once.
const maxDict = 64 << 20

var xzMagic = []byte("\xfd7zXZ\x00")

// xzReader reads an xz file (the .xz file format, version 1.2.1): the blocks of
// its first stream, each with its check. The container is read here and only
// the compressed data by the library, so that no file says how much memory
// is taken.
type xzReader struct {
	in    *counted
	check byte
	block *lzma.Reader2
	start int64     // of the block's data
	sum   hash.Hash // nil: the block has no check that is known
	err   error
}

// counted counts what was read. It is a [io.ByteReader], so that the decoder
// reads no byte too much.
type counted struct {
	r *bufio.Reader
	n int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

func (c *counted) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

func newXZ(r io.Reader) (io.Reader, error) {
	x := &xzReader{in: &counted{r: bufio.NewReader(r)}}
	head := make([]byte, 12)
	if _, err := io.ReadFull(x.in, head); err != nil || !bytes.HasPrefix(head, xzMagic) {
		return nil, errors.New("it is no xz file")
	}
	if crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]) || head[6] != 0 || head[7] > 15 {
		return nil, errors.New("it is damaged: the header of the xz file is not right")
	}
	x.check = head[7]
	return x, nil
}

// checkSize is the bytes of each kind of check.
var checkSize = [16]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}

func (x *xzReader) Read(b []byte) (n int, err error) {
	defer func() { // the library panics on what it takes for impossible
		if v := recover(); v != nil {
			n, err = 0, fmt.Errorf("it is damaged: the xz decoder failed on it: %v", v)
			x.err = err
		}
	}()
	for x.err == nil {
		if x.block == nil {
			if x.err = x.open(); x.err != nil {
				break
			}
		}
		n, err := x.block.Read(b)
		if n > 0 && x.sum != nil {
			x.sum.Write(b[:n])
		}
		switch {
		case errors.Is(err, io.EOF):
			x.err = x.close()
		case errors.Is(err, io.ErrUnexpectedEOF):
			x.err = err
		case err != nil:
			x.err = fmt.Errorf("it is damaged: %w", err)
		}
		if n > 0 || len(b) == 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// open reads the header of a block; [io.EOF] where the index follows instead.
func (x *xzReader) open() error {
	size, err := x.in.ReadByte()
	switch {
	case err != nil:
		return io.ErrUnexpectedEOF
	case size == 0: // of the index
		return io.EOF
	}
	head := make([]byte, (int(size)+1)*4)
	head[0] = size
	if _, err := io.ReadFull(x.in, head[1:]); err != nil {
		return io.ErrUnexpectedEOF
	}
	end := len(head) - 4
	if crc32.ChecksumIEEE(head[:end]) != binary.LittleEndian.Uint32(head[end:]) {
		return errors.New("it is damaged: the header of a block of the xz file is not right")
	}
	flags, rest := head[1], head[2:end]
	for _, there := range []bool{flags&0x40 != 0, flags&0x80 != 0} { // sizes
		if there {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return errors.New("it is damaged: a block of the xz file has no size")
			}
			rest = rest[n:]
		}
	}
	if flags&0x3f != 0 || len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 {
		return errors.New("it is compressed in an unusual way: an xz file with the filter LZMA2 alone is read")
	}
	bits := rest[2]
	if bits > 40 {
		return errors.New("it is damaged: a block of the xz file has no dictionary")
	}
	dict := int64(2|bits&1) << (bits/2 + 11)
	if dict > maxDict {
		return fmt.Errorf("its decoder would need %d MiB; xz files of up to %d MiB are read", dict>>20, maxDict>>20)
	}
	x.sum = nil
	switch x.check {
	case 1:
		x.sum = crc32.NewIEEE()
	case 4:
		x.sum = crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		x.sum = sha256.New()
	}
	x.start = x.in.n
	if x.block, err = (lzma.Reader2Config{DictCap: int(max(dict, lzma.MinDictCap))}).NewReader2(x.in); err != nil {
		return fmt.Errorf("it is damaged: %w", err)
	}
	return nil
}

// close reads what follows a block and compares its check.
func (x *xzReader) close() error {
	x.block = nil
	tail := make([]byte, (4-(x.in.n-x.start)%4)%4+checkSize[x.check])
	if _, err := io.ReadFull(x.in, tail); err != nil {
		return io.ErrUnexpectedEOF
	}
	if x.sum == nil {
		return nil
	}
	got, want := x.sum.Sum(nil), tail[int64(len(tail))-checkSize[x.check]:]
	if x.check != 10 { // CRCs are stored with the lowest byte first
		for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
			got[i], got[j] = got[j], got[i]
		}
	}
	if !bytes.Equal(got, want) {
		return errors.New("it is damaged: the check of a block of the xz file differs")
	}
	return nil
}
