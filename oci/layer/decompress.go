package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Compression is how a stream is compressed.
type Compression string

// The compressions that are recognised.
const (
	None  Compression = ""
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Bzip2 Compression = "bzip2"
	Xz    Compression = "xz"
)

// zstdWindow bounds the memory that a zstd frame can ask for.
const zstdWindow = 256 << 20

const readAhead = 64 << 10

// Detect tells the compression from the first bytes of a stream.
func Detect(head []byte) Compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 0x08}):
		return Gzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(head) >= 8 && binary.LittleEndian.Uint32(head)&^0xf == 0x184d2a50:
		return Zstd
	case bytes.HasPrefix(head, []byte("BZh")):
		return Bzip2
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return Xz
	}
	return None
}

// Decompress returns the plain form of r, whatever its compression, and what
// that was. Close frees the decompressor; it does not close r. xz needs the xz
// program.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	br := bufio.NewReaderSize(r, readAhead)
	head, err := br.Peek(10)
	if err != nil && err != io.EOF { // shorter streams are plain
		return nil, None, err
	}
	c := Detect(head)
	switch c {
	case Gzip:
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, c, fmt.Errorf("gzip: %w", err)
		}
		return z, c, nil
	case Zstd:
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, c, fmt.Errorf("zstd: %w", err)
		}
		return z.IOReadCloser(), c, nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(br)), c, nil
	case Xz:
		z, err := xzReader(br)
		return z, c, err
	default:
		return io.NopCloser(br), None, nil
	}
}

// xzPipe is the output of a running xz.
type xzPipe struct {
	out    io.ReadCloser
	cmd    *exec.Cmd
	stderr bytes.Buffer
	end    error // set when xz has ended
}

func xzReader(r io.Reader) (io.ReadCloser, error) {
	path, err := exec.LookPath("xz")
	if err != nil {
		return nil, errdefs.WithHint(
			errdefs.Invalidf("the archive is compressed with xz and there is no xz program"),
			"install xz-utils, or compress with gzip or zstd")
	}
	p := &xzPipe{cmd: exec.Command(path, "--decompress", "--stdout", "--quiet")}
	p.cmd.Stdin = r
	p.cmd.Stderr = &p.stderr
	if p.out, err = p.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	return p, nil
}

// Read ends with an error instead of EOF when xz failed.
func (p *xzPipe) Read(b []byte) (int, error) {
	if p.end != nil {
		return 0, p.end
	}
	n, err := p.out.Read(b)
	if err == io.EOF {
		p.end = io.EOF
		if werr := p.cmd.Wait(); werr != nil {
			p.end = fmt.Errorf("xz: %w: %s", werr, p.stderr.String())
		}
		err = p.end
	}
	return n, err
}

// Close ends an xz that was not read to the end, and waits for it.
func (p *xzPipe) Close() error {
	if p.end != nil {
		return nil
	}
	p.end = io.ErrClosedPipe
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_ = p.cmd.Wait() // how it ended is of no interest: it was killed
	return nil
}
