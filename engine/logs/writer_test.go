package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/testx"
)

func TestRotation(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, compress := range []string{"true", "false"} {
			dir := t.TempDir()
			cfg := Config{Driver: driver, Dir: dir, Options: map[string]string{"max-size": "2k", "max-file": "3", "compress": compress}}
			fill(t, cfg, 0, 1000)
			list, err := listSegments(dir, formatOf(driver).ext())
			if err != nil || len(list) != 3 || list[2].seq-list[0].seq != 2 {
				t.Fatalf("%v, %v", list, err)
			}
			for _, s := range list {
				if fi, err := os.Stat(segmentPath(dir, formatOf(driver).ext(), s.seq)); err == nil && fi.Size() > 2000 {
					t.Errorf("segment %d has %d bytes", s.seq, fi.Size())
				}
			}
			got := all(t, newReader(t), cfg, ReadOptions{Tail: -1})
			if len(got) == 0 || len(got) == 1000 || got[len(got)-1] != "line 999" {
				t.Errorf("%d lines", len(got))
			}
			if p := Path(cfg); driver == DriverJSON {
				b, err := os.ReadFile(p)
				if err != nil || !bytes.Contains(b, []byte(`"log":"line 999\n"`)) {
					t.Errorf("%s: %v", p, err)
				}
			} else if p != "" {
				t.Error(p)
			}
			// The next writer compresses what an interrupted one did not.
			w := open(t, cfg).(*fileWriter)
			w.packer.idle.Wait()
			list, err = listSegments(dir, formatOf(driver).ext())
			if err != nil || list[0].gz != (compress == "true") || list[0].both {
				t.Errorf("%+v, %v", list, err)
			}
			equal(t, all(t, newReader(t), cfg, ReadOptions{Tail: -1}), got)
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestTornLastEntry(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		f := formatOf(driver)
		rec := f.append(nil, Entry{Time: t0, Stream: Stdout, Line: []byte("torn entry")}, nil)
		for cut := 1; cut < len(rec); cut += 3 {
			for _, tail := range [][]byte{rec[:cut], append(bytes.Clone(rec[:cut]), make([]byte, 300)...)} {
				cfg := Config{Driver: driver, Dir: t.TempDir(), Options: map[string]string{"compress": "false"}}
				fill(t, cfg, 0, 3)
				p := segmentPath(cfg.Dir, f.ext(), 1)
				data, err := os.ReadFile(p)
				if err == nil {
					err = os.WriteFile(p, append(bytes.Clone(data), tail...), 0o640)
				}
				if err != nil {
					t.Fatal(err)
				}
				r := newReader(t)
				equal(t, all(t, r, cfg, ReadOptions{Tail: -1}), lines(0, 3))
				equal(t, all(t, r, cfg, ReadOptions{Tail: 2}), lines(1, 3))
				fill(t, cfg, 3, 5)
				equal(t, all(t, r, cfg, ReadOptions{Tail: -1}), lines(0, 5))
				equal(t, all(t, r, cfg, ReadOptions{Tail: 3}), lines(2, 5))
				if now, err := os.ReadFile(p); err != nil || !bytes.HasPrefix(now, data) || bytes.Contains(now, make([]byte, 20)) {
					t.Fatalf("not repaired: %q, %v", now, err)
				}
			}
		}
	})
}

// TestDamageInside: a damaged place costs the entries there, not those behind.
func TestDamageInside(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		cfg := Config{Driver: driver, Dir: t.TempDir()}
		fill(t, cfg, 0, 100)
		p := segmentPath(cfg.Dir, formatOf(driver).ext(), 1)
		whole, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for at := len(whole) / 2; at < len(whole)/2+40; at++ {
			data := bytes.Clone(whole)
			copy(data[at:], "#########")
			if err := os.WriteFile(p, data, 0o640); err != nil {
				t.Fatal(err)
			}
			r := newReader(t)
			got := all(t, r, cfg, ReadOptions{Tail: -1})
			if len(got) < 97 || got[0] != "line 0" || got[len(got)-1] != "line 99" {
				t.Fatalf("damage at %d: %d lines: %q", at, len(got), got)
			}
			// Damage may have made a part of a line, which does not count.
			tail := all(t, r, cfg, ReadOptions{Tail: 80})
			if len(tail) < 80 || len(tail) > 81 {
				t.Fatalf("damage at %d: tail has %d", at, len(tail))
			}
			equal(t, tail, got[len(got)-len(tail):])
		}
	})
}

func TestPartialsAndStreams(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		cfg := Config{Driver: driver, Dir: t.TempDir(), Attrs: map[string]string{"k": "v"}}
		w := open(t, cfg)
		now := func() time.Time { return t0 }
		out, errw := NewLineWriter(w, Stdout, now), NewLineWriter(w, Stderr, now)
		long := strings.Repeat("x", 2*PartSize+10)
		for _, s := range []string{"one\ntwo", " and a half\n", long + "\n", "\nno end"} {
			if n, err := out.Write([]byte(s)); n != len(s) || err != nil {
				t.Fatal(n, err)
			}
		}
		if _, err := io.WriteString(errw, "problem\n"); err != nil {
			t.Fatal(err)
		}
		for _, c := range []io.Closer{out, errw, w, w} {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.WriteEntry(Entry{}); !errors.Is(err, fs.ErrClosed) {
			t.Error("write after close:", err)
		}
		want := []string{"one", "two and a half", long[:PartSize] + "+", long[:PartSize] + "+", long[:10], "", "problem", "no end"}
		r := newReader(t)
		equal(t, all(t, r, cfg, ReadOptions{Tail: -1}), want)
		equal(t, all(t, r, cfg, ReadOptions{Tail: 4}), want[2:]) // a long line is one
		var got []string
		err := r.Read(context.Background(), cfg, ReadOptions{Tail: -1, Stderr: true}, func(e Entry) error {
			got = append(got, string(e.Line))
			if (e.Attrs["k"] == "v") != (driver == DriverJSON) {
				t.Errorf("attributes %v", e.Attrs)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, got, []string{"problem"})
	})
}

func TestNone(t *testing.T) {
	cfg := Config{Driver: DriverNone, Dir: filepath.Join(t.TempDir(), "x")}
	fill(t, cfg, 0, 10)
	err := newReader(t).Read(context.Background(), cfg, ReadOptions{}, nil)
	if !errdefs.IsNotImplemented(err) || err.Error() != "configured logging driver does not support reading" {
		t.Error(err)
	}
	if _, err := os.Stat(cfg.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("none made files:", err)
	}
	if _, err := OpenWriter(Config{Driver: "splunk"}); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}

// TestFullDisk: entries are dropped and counted, nothing fails, and the log
// goes on when there is room.
func TestFullDisk(t *testing.T) {
	testx.Root(t)
	eachDriver(t, func(t *testing.T, driver string) {
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Skip(err)
		}
		defer func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}()
		ballast := dir + "/ballast"
		if err := os.WriteFile(ballast, make([]byte, 40<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		// Nothing is rotated away: what is not read was dropped.
		cfg := Config{Driver: driver, Dir: dir + "/logs", Options: map[string]string{"max-size": "16k", "max-file": "500", "compress": "false"}}
		w := open(t, cfg)
		const n = 1000
		for i := range n {
			if err := w.WriteEntry(Entry{Time: t0, Stream: Stdout, Line: fmt.Appendf(nil, "line %d %s", i, strings.Repeat("y", 80))}); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteEntry(Entry{Time: t0, Stream: Stdout, Line: []byte("after")}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got := all(t, newReader(t), cfg, ReadOptions{Tail: -1})
		if len(got) < 3 || got[len(got)-1] != "after" {
			t.Fatalf("%d lines, last %.80q", len(got), got[max(0, len(got)-2):])
		}
		var lost int
		if _, err := fmt.Sscanf(got[len(got)-2], "[cleat: %d log entries were lost: no space left on device]", &lost); err != nil {
			t.Fatalf("%q: %v", got[len(got)-2], err)
		}
		if len(got)-2+lost != n {
			t.Errorf("%d lines and %d lost make not %d", len(got)-2, lost, n)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	for _, d := range []string{DriverLocal, DriverJSON} {
		b.Run(d, func(b *testing.B) {
			w := open(b, Config{Driver: d, Dir: b.TempDir()})
			line := []byte(strings.Repeat("a line of a log ", 6))
			b.SetBytes(int64(len(line)))
			for b.Loop() {
				if err := w.WriteEntry(Entry{Time: t0, Stream: Stdout, Line: line}); err != nil {
					b.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
