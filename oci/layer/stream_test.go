package layer

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os/exec"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func TestDecompress(t *testing.T) {
	plain := bytes.Repeat([]byte("some text "), 10_000)
	var gz, zs bytes.Buffer
	g := gzip.NewWriter(&gz)
	z, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{g, z} {
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[Compression][]byte{None: plain, Gzip: gz.Bytes(), Zstd: zs.Bytes()}
	for c, program := range map[Compression]string{Xz: "xz", Bzip2: "bzip2"} {
		if path, err := exec.LookPath(program); err == nil {
			cmd := exec.Command(path, "-c")
			cmd.Stdin = bytes.NewReader(plain)
			if cases[c], err = cmd.Output(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for want, data := range cases {
		r, got, err := Decompress(iotest.HalfReader(bytes.NewReader(data)))
		if err != nil || got != want {
			t.Fatalf("%q: %q %v", want, got, err)
		}
		out, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(out, plain) {
			t.Errorf("%q: %d bytes, %v", want, len(out), err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("%q: close: %v", want, err)
		}
		if want == None || want == Zstd {
			continue
		}
		r, _, err = Decompress(bytes.NewReader(data[:len(data)/2]))
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if err == nil {
			t.Errorf("%q: a truncated stream was accepted", want)
		}
	}
}

func TestXzAbandoned(t *testing.T) {
	path, err := exec.LookPath("xz")
	if err != nil {
		t.Skip("xz is not installed")
	}
	cmd := exec.Command(path, "-c")
	cmd.Stdin = bytes.NewReader(bytes.Repeat([]byte("x"), 10<<20))
	data, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := Decompress(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestPipeline(t *testing.T) {
	data := make([]byte, chunkSize*chunkCount*3+17)
	for i := range data {
		data[i] = byte(i * 7)
	}
	want := sha256.Sum256(data)
	h := sha256.New()
	p := newPipeline(bytes.NewReader(data), h, 0)
	got, err := io.ReadAll(p)
	p.Close()
	if err != nil || !bytes.Equal(got, data) || !bytes.Equal(h.Sum(nil), want[:]) || p.n != int64(len(data)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	// Abandoned at any point, it ends without leaving goroutines at work.
	for _, n := range []int{0, 1, chunkSize, chunkSize*2 + 1} {
		p := newPipeline(bytes.NewReader(data), sha256.New(), 0)
		if _, err := io.ReadFull(p, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		p.Close()
		p.Close()
	}
	p = newPipeline(iotest.ErrReader(io.ErrNoProgress), sha256.New(), 0)
	if _, err := io.ReadAll(p); err != io.ErrNoProgress {
		t.Errorf("error %v", err)
	}
	p.Close()
}
