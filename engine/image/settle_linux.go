package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	cderrdefs "github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/atomicfile"
)

// settler makes unpacked layers survive a loss of power without making each
// unpacking wait for the disk.
//
// Blobs and records are synced as they are written; unpacked files are not. A
// mark on disk therefore says since when layers may be incomplete after a crash
// of the machine. When unpacking has ended, the file system is synced in the
// background and the mark removed. A container's writable layer is made only on
// layers that are synced. After another boot, layers younger than the mark are
// dropped; they are unpacked again from their blobs when they are needed.
type settler struct {
	path string // of the mark
	boot string
	log  *slog.Logger

	mu      sync.Mutex
	mark    *unsettled // as on disk; nil: none
	busy    int        // unpackings under way
	pending map[digest.Digest]bool
	round   *syncRound // the sync under way
	done    sync.WaitGroup
}

type unsettled struct {
	Boot  string    `json:"boot"`
	Since time.Time `json:"since"`
	Dir   string    `json:"dir"` // on the file system that has the layers
}

// syncRound is one sync; covers are the layers that it settles.
type syncRound struct {
	covers map[digest.Digest]bool
	done   chan struct{}
	err    error
}

// newSettler reads the mark; lost is since when layers must be dropped, if the
// machine went down with unsettled ones.
func newSettler(path string, log *slog.Logger) (s *settler, lost *time.Time, err error) {
	s = &settler{path: path, log: log, pending: map[digest.Digest]bool{}}
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, nil, fmt.Errorf("images: %w", err)
	}
	s.boot = strings.TrimSpace(string(b))
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("images: %w", err)
	}
	var m unsettled
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, nil, fmt.Errorf("images: %s: %w", path, err)
	}
	s.mark = &m
	if m.Boot != s.boot {
		return s, &m.Since, nil
	}
	// The process ended, the machine did not: what it wrote is in the kernel.
	return s, nil, s.settle()
}

// begin announces that layers will be unpacked.
func (s *settler) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy++
}

// writing sets the mark before the first file of a layer is written; dir is on
// the layers' file system and stays.
func (s *settler) writing(now time.Time, dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mark != nil {
		return nil
	}
	m := unsettled{Boot: s.boot, Since: now.Add(-time.Second), Dir: dir}
	if err := atomicfile.WriteJSON(s.path, m, 0o600); err != nil {
		return fmt.Errorf("images: %w", err)
	}
	s.mark = &m
	return nil
}

// end says which layers an unpacking has made, and starts a sync after the last one.
func (s *settler) end(chains []digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	if s.mark == nil {
		return // everything was there already
	}
	for _, c := range chains {
		s.pending[c] = true
	}
	if s.busy == 0 && s.round == nil {
		s.startRound()
	}
}

// startRound syncs in a goroutine that close waits for. mu is held.
func (s *settler) startRound() {
	r := &syncRound{covers: s.pending, done: make(chan struct{})}
	dir := s.mark.Dir
	s.pending = map[digest.Digest]bool{}
	s.round = r
	s.done.Go(func() {
		r.err = syncFS(dir)
		s.mu.Lock()
		defer s.mu.Unlock()
		defer close(r.done)
		s.round = nil
		switch {
		case r.err != nil:
			s.log.Warn("the file system of the layers cannot be synced", "error", r.err)
			for c := range r.covers {
				s.pending[c] = true
			}
		case len(s.pending) > 0 && s.busy == 0:
			s.startRound()
		case len(s.pending) == 0 && s.busy == 0:
			r.err = s.unmark()
		}
	})
}

// wait returns when the layer is on the disk.
func (s *settler) wait(ctx context.Context, chain digest.Digest) error {
	for {
		s.mu.Lock()
		waiting := s.pending[chain]
		if waiting && s.round == nil {
			s.startRound()
		}
		r := s.round
		waiting = waiting || r != nil && r.covers[chain]
		s.mu.Unlock()
		if !waiting {
			return nil
		}
		select {
		case <-r.done:
			if r.err != nil {
				return r.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settle syncs now and removes the mark, while nothing else is at work.
func (s *settler) settle() error {
	if err := syncFS(s.mark.Dir); err != nil {
		return err
	}
	return s.unmark()
}

func (s *settler) unmark() error {
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("images: %w", err)
	}
	s.mark = nil
	return nil
}

func (s *settler) close() { s.done.Wait() }

func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync layers: %w", err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync layers: %w", &os.PathError{Op: "syncfs", Path: dir, Err: err})
	}
	return nil
}

// dropLayersSince removes layers made since a moment, children before parents,
// so that they are unpacked again.
func dropLayersSince(ctx context.Context, sn snapshots.Snapshotter, since time.Time, log *slog.Logger) error {
	left := map[string]bool{}
	err := sn.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if i.Kind == snapshots.KindCommitted && !i.Created.Before(since) {
			left[i.Name] = true
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("drop layers of before the crash: %w", err)
	}
	for again := true; again && len(left) > 0; {
		again = false
		for name := range left {
			err := sn.Remove(ctx, name)
			switch {
			case err == nil, cderrdefs.IsNotFound(err):
				delete(left, name)
				again = true
			case cderrdefs.IsFailedPrecondition(err): // has children still
			default:
				return fmt.Errorf("drop layer %s: %w", name, err)
			}
		}
	}
	if len(left) > 0 {
		log.Warn("layers that may be incomplete are in use and were kept", "count", len(left))
	}
	return nil
}
