package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/testx"
)

func TestSinceUntil(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		cfg := Config{Driver: driver, Dir: t.TempDir(), Options: map[string]string{"max-size": "1k", "max-file": "100", "compress": "true"}}
		fill(t, cfg, 0, 100)
		r := newReader(t)
		at := func(i int) time.Time { return t0.Add(time.Duration(i) * time.Second) }
		equal(t, all(t, r, cfg, ReadOptions{Tail: -1, Since: at(40), Until: at(60)}), lines(40, 61))
		equal(t, all(t, r, cfg, ReadOptions{Tail: 50, Until: at(60)}), lines(50, 61))
		equal(t, all(t, r, cfg, ReadOptions{Tail: 10, Since: at(5)}), lines(90, 100))
		equal(t, all(t, r, cfg, ReadOptions{Tail: -1, Since: time.Now().Add(time.Hour)}), nil)
		equal(t, all(t, r, cfg, ReadOptions{Tail: -1, Until: at(3), Follow: true}), lines(0, 4))
	})
}

func TestReadEnds(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	fill(t, cfg, 0, 10)
	r := newReader(t)
	boom := errors.New("boom")
	o := ReadOptions{Tail: -1, Stdout: true, Follow: true}
	if err := r.Read(context.Background(), cfg, o, func(Entry) error { return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	err := r.Read(ctx, cfg, o, func(Entry) error {
		if n++; n == 10 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || n != 10 {
		t.Error(n, err)
	}
	r.watch.mu.Lock()
	defer r.watch.mu.Unlock()
	if len(r.watch.dirs)+len(r.watch.byWD) > 0 {
		t.Errorf("watches are left: %v", r.watch.dirs)
	}
}

// TestFollowersLoseNothing: followers read everything in order, while several
// write through one writer that rotates and compresses as fast as it can.
func TestFollowersLoseNothing(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		cfg := Config{Driver: driver, Dir: t.TempDir(), Options: map[string]string{"max-size": "5k", "max-file": "10000", "compress": "true"}}
		r := newReader(t)
		w := open(t, cfg)
		const writers, each = 4, 1000
		done := make(chan struct{})
		var writing, following sync.WaitGroup
		for i := range writers {
			writing.Go(func() {
				for n := range each {
					e := Entry{Time: time.Now(), Stream: Stream(1 + i%2), Line: fmt.Appendf(nil, "%d %d %s", i, n, strings.Repeat("#", n%300))}
					if err := w.WriteEntry(e); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 4 {
			following.Go(func() {
				next := make([]int, writers)
				err := r.Read(context.Background(), cfg, ReadOptions{Tail: -1, Stdout: true, Stderr: true, Follow: true, Done: done}, func(e Entry) error {
					var i, n int
					if _, err := fmt.Sscanf(string(e.Line), "%d %d", &i, &n); err != nil {
						return err
					}
					if n != next[i] {
						return fmt.Errorf("writer %d: got %d, want %d", i, n, next[i])
					}
					next[i]++
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				for i, n := range next {
					if n != each {
						t.Errorf("writer %d: %d of %d", i, n, each)
					}
				}
			})
		}
		writing.Wait()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		close(done)
		following.Wait()
	})
}

// TestPolling: without inotify followers work, too.
func TestPolling(t *testing.T) {
	cfg := Config{Dir: t.TempDir() + "/later"}
	r := newReader(t)
	r.watch.failed = true
	done := make(chan struct{})
	got := make(chan []string, 1)
	go func() { got <- all(t, r, cfg, ReadOptions{Tail: -1, Follow: true, Done: done}) }()
	fill(t, cfg, 0, 50)
	close(done)
	equal(t, <-got, lines(0, 50))
}

// slow is a Writer that waits for each entry to be let through.
type slow struct {
	gate chan struct{}
	mu   sync.Mutex
	got  []string
}

func (s *slow) WriteEntry(e Entry) error {
	<-s.gate
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, string(e.Line))
	return nil
}

func (s *slow) Close() error { return nil }

func TestNonBlocking(t *testing.T) {
	s := &slow{gate: make(chan struct{})}
	r := newRing(s, 100)
	for i := range 50 { // nobody reads: WriteEntry must return nevertheless
		if err := r.WriteEntry(Entry{Stream: Stdout, Line: fmt.Appendf(nil, "entry %04d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	close(s.gate)
	testx.Eventually(t, time.Minute, func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.size > 0 {
			return "the queue is not written"
		}
		return ""
	})
	if err := r.WriteEntry(Entry{Stream: Stdout, Line: []byte("last")}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteEntry(Entry{}); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	k := len(s.got)
	if k < 3 || s.got[k-1] != "last" {
		t.Fatalf("%q", s.got)
	}
	var lost int
	if _, err := fmt.Sscanf(s.got[k-2], "[cleat: %d log entries were lost: the buffer", &lost); err != nil || lost+k-2 != 50 {
		t.Errorf("%d lost, %d written: %q", lost, k-2, s.got[k-2])
	}

	cfg := Config{Dir: t.TempDir(), Options: map[string]string{"mode": "non-blocking"}}
	fill(t, cfg, 0, 100)
	equal(t, all(t, newReader(t), cfg, ReadOptions{Tail: -1}), lines(0, 100))
}

// TestKilledWriter: kill -9 at any moment loses nothing that was acknowledged
// and tears at most the last entry, which the next writer repairs.
func TestKilledWriter(t *testing.T) {
	const child = "CLEAT_LOGS_TEST_CHILD"
	if spec := os.Getenv(child); spec != "" {
		driver, dir, _ := strings.Cut(spec, " ")
		w := open(t, killed(driver, dir))
		for i := 0; ; i++ {
			if err := w.WriteEntry(Entry{Time: time.Now(), Stream: Stdout, Line: fmt.Appendf(nil, "line %d", i)}); err != nil {
				t.Fatal(err)
			}
			fmt.Println("acknowledged", i)
		}
	}
	eachDriver(t, func(t *testing.T, driver string) {
		for round := range 4 {
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWriter$")
			cmd.Env = append(os.Environ(), child+"="+driver+" "+dir)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			last := -1
			for sc := bufio.NewScanner(out); sc.Scan(); {
				if _, err := fmt.Sscanf(sc.Text(), "acknowledged %d", &last); err == nil && last == 300*(round+1) {
					if err := cmd.Process.Kill(); err != nil {
						t.Error(err)
					}
				}
			}
			_ = cmd.Wait() // says that it was killed
			if last < 300 {
				t.Fatalf("the child wrote %d entries", last)
			}
			cfg := killed(driver, dir)
			r := newReader(t)
			got := all(t, r, cfg, ReadOptions{Tail: -1})
			if len(got) < last+1 {
				t.Fatalf("%d acknowledged, %d read", last+1, len(got))
			}
			equal(t, got, lines(0, len(got)))
			fill(t, cfg, len(got), len(got)+10)
			equal(t, all(t, r, cfg, ReadOptions{Tail: -1}), lines(0, len(got)+10))
		}
	})
}

func killed(driver, dir string) Config {
	return Config{Driver: driver, Dir: dir, Options: map[string]string{"max-size": "3k", "max-file": "1000000", "compress": "true"}}
}

// BenchmarkTail reads the end of a big log.
func BenchmarkTail(b *testing.B) {
	for _, d := range []string{DriverLocal, DriverJSON} {
		b.Run(d, func(b *testing.B) {
			cfg := Config{Driver: d, Dir: b.TempDir(), Options: map[string]string{"max-size": "50m", "compress": "false"}}
			fill(b, cfg, 0, 400_000)
			r := newReader(b)
			for b.Loop() {
				if n := len(all(b, r, cfg, ReadOptions{Tail: 100})); n != 100 {
					b.Fatal(n)
				}
			}
		})
	}
}
