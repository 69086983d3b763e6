package logs

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)

func open(t testing.TB, cfg Config) Writer {
	t.Helper()
	w, err := OpenWriter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func fill(t testing.TB, cfg Config, from, to int) {
	t.Helper()
	w := open(t, cfg)
	for i := from; i < to; i++ {
		e := Entry{Time: t0.Add(time.Duration(i) * time.Second), Stream: Stdout, Line: []byte(fmt.Sprintf("line %d", i))}
		if err := w.WriteEntry(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func newReader(t testing.TB) *FileReader {
	t.Helper()
	r := NewReader(slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// all reads with both streams selected and returns the lines, "+" marking
// parts.
func all(t testing.TB, r Reader, cfg Config, o ReadOptions) []string {
	t.Helper()
	o.Stdout, o.Stderr = true, true
	var got []string
	err := r.Read(context.Background(), cfg, o, func(e Entry) error {
		l := string(e.Line)
		if e.Partial {
			l += "+"
		}
		got = append(got, l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func lines(from, to int) []string {
	var l []string
	for i := from; i < to; i++ {
		l = append(l, fmt.Sprintf("line %d", i))
	}
	return l
}

func equal(t testing.TB, got, want []string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("got %d lines %.200q, want %d lines %.200q", len(got), got, len(want), want)
	}
}

func eachDriver(t *testing.T, f func(t *testing.T, driver string)) {
	for _, d := range []string{DriverLocal, DriverJSON} {
		t.Run(d, func(t *testing.T) { f(t, d) })
	}
}

func TestTail(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, compress := range []string{"false", "true"} {
			cfg := Config{Driver: driver, Dir: t.TempDir(), Options: map[string]string{
				"max-size": "2k", "max-file": "1000", "compress": compress}}
			const n = 1000
			fill(t, cfg, 0, n)
			r := newReader(t)
			for _, tail := range []int{-1, 0, 1, 2, 19, 50, 333, 999, 1000, 5000} {
				want := lines(max(0, n-tail), n)
				if tail < 0 {
					want = lines(0, n)
				}
				equal(t, all(t, r, cfg, ReadOptions{Tail: tail}), want)
			}
		}
	})
}

func TestFollow(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		cfg := Config{Driver: driver, Dir: t.TempDir() + "/not-yet", Options: map[string]string{
			"max-size": "3k", "max-file": "100000", "compress": "true"}}
		r := newReader(t)
		const n, followers = 3000, 4
		done := make(chan struct{})
		result := make(chan []string, followers)
		for range followers {
			go func() {
				result <- all(t, r, cfg, ReadOptions{Tail: -1, Follow: true, Done: done})
			}()
		}
		for i := 0; i < n; i += 500 {
			fill(t, cfg, i, i+500) // as if the shim were started anew
		}
		close(done)
		for range followers {
			equal(t, <-result, lines(0, n))
		}
	})
}
