package atomicfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWrite(t *testing.T) {
	for name, write := range map[string]func(string, []byte, os.FileMode) error{"durable": WriteFile, "volatile": WriteVolatile} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := filepath.Join(dir, "f")
			must(t, write(p, []byte("one"), 0o666)) // whatever the umask
			must(t, write(p, []byte("two"), 0o640))
			fi, err := os.Stat(p)
			must(t, err)
			b, err := os.ReadFile(p)
			if err != nil || string(b) != "two" || fi.Mode() != 0o640 {
				t.Errorf("%q, %v, %v", b, fi.Mode(), err)
			}
			if err := write(filepath.Join(dir, "absent", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
			if err := write(filepath.Join(dir, "d"), nil, 0o600); err == nil {
				t.Error("replaced a folder")
			}
			entries, err := os.ReadDir(dir)
			must(t, err)
			if len(entries) != 2 {
				t.Errorf("left: %v", entries)
			}
		})
	}
}

func TestRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, WriteFile("f", []byte("x"), 0o600))
	if b, err := os.ReadFile("f"); err != nil || string(b) != "x" {
		t.Error(string(b), err)
	}
}

func TestJSON(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	type v struct{ A, B string }
	var got v
	if err := ReadJSON(p, &got); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	must(t, WriteJSON(p, v{"1", "2"}, 0o600))
	must(t, ReadJSON(p, &got))
	if got != (v{"1", "2"}) {
		t.Error(got)
	}
	must(t, WriteVolatileJSON(p, v{"3", ""}, 0o600))
	must(t, ReadJSON(p, &got))
	if got.A != "3" {
		t.Error(got)
	}
	if err := WriteJSON(p, make(chan int), 0o600); err == nil {
		t.Error("wrote a channel")
	}
	must(t, WriteFile(p, []byte("{"), 0o600))
	if err := ReadJSON(p, &got); err == nil || !strings.Contains(err.Error(), p) {
		t.Error(err)
	}
	must(t, Remove(p))
	must(t, Remove(p))
}

func TestClean(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"keep", ".keep", ".f.cleat-tmp-ABC"} {
		must(t, os.WriteFile(filepath.Join(dir, n), nil, 0o600))
	}
	must(t, Clean(dir))
	must(t, Clean(filepath.Join(dir, "absent")))
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("%v", entries)
	}
}

// TestReadersSeeWhole: readers at the same time see one content or another.
func TestReadersSeeWhole(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	must(t, WriteVolatile(p, bytes.Repeat([]byte{0}, 50_000), 0o600))
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for range 50 {
				if err := WriteVolatile(p, bytes.Repeat([]byte{byte(i)}, 50_000), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for {
		b, err := os.ReadFile(p)
		if err != nil || len(b) != 50_000 || bytes.Count(b, b[:1]) != 50_000 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// TestKilled: a process killed while writing leaves the old content or the new,
// and not less than it acknowledged.
func TestKilled(t *testing.T) {
	const child = "CLEAT_ATOMICFILE_TEST_CHILD"
	if p := os.Getenv(child); p != "" {
		for i := 0; ; i++ {
			must(t, WriteJSON(p, map[string]string{"n": fmt.Sprint(i), "pad": strings.Repeat("x", 100_000)}, 0o600))
			fmt.Println("wrote", i)
		}
	}
	for round := range 3 {
		dir := t.TempDir()
		p := filepath.Join(dir, "f")
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), child+"="+p)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		last := -1
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if _, err := fmt.Sscanf(sc.Text(), "wrote %d", &last); err == nil && last == 20+round*7 {
				must(t, cmd.Process.Kill())
			}
		}
		_ = cmd.Wait() // says that it was killed
		var got map[string]string
		must(t, ReadJSON(p, &got))
		var n int
		if _, err := fmt.Sscan(got["n"], &n); err != nil || n < last || len(got["pad"]) != 100_000 {
			t.Errorf("acknowledged %d, read %q", last, got["n"])
		}
		must(t, Clean(dir))
		entries, err := os.ReadDir(dir)
		must(t, err)
		if len(entries) != 1 {
			t.Errorf("%v", entries)
		}
	}
}
