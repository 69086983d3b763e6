package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/containerd/errdefs"
)

// FileReader reads the logs that Writers of this package write, also while
// they do. All its followers share one inotify instance, of which Linux allows
// a user only 128. It is safe for concurrent use; Close it when no Read is under
// way any more.
type FileReader struct {
	watch *watcher
}

var _ Reader = (*FileReader)(nil)

// NewReader returns a Reader. It starts nothing before the first follower.
func NewReader(log *slog.Logger) *FileReader {
	return &FileReader{watch: newWatcher(log)}
}

// Close ends the notification of followers and waits for its goroutine.
func (r *FileReader) Close() error { return r.watch.close() }

// Read implements Reader.
func (r *FileReader) Read(ctx context.Context, cfg Config, opts ReadOptions, emit func(Entry) error) error {
	if _, err := parse(cfg.Driver, nil); err != nil {
		return err
	}
	if cfg.Driver == DriverNone {
		return errdefs.ErrNotImplemented.WithMessage("configured logging driver does not support reading")
	}
	c := &cursor{dir: cfg.Dir, f: formatOf(cfg.Driver), opts: opts, emit: emit}
	defer c.close()
	if !opts.Follow {
		if err := c.seek(); err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		_, err := c.drain(ctx)
		return err
	}
	return r.follow(ctx, c)
}

func (r *FileReader) follow(ctx context.Context, c *cursor) error {
	sub := r.watch.subscribe(c.dir)
	defer sub.close()
	sub.refresh()
	if err := c.seek(); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	var until <-chan time.Time
	if !c.opts.Until.IsZero() {
		t := time.NewTimer(time.Until(c.opts.Until))
		defer t.Stop()
		until = t.C
	}
	last := false
	for {
		sub.refresh()
		// Who closes Done has written everything before: one more drain after
		// having seen it finds all.
		select {
		case <-c.opts.Done:
			last = true
		default:
		}
		past, err := c.drain(ctx)
		if err != nil || past || last {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.opts.Done:
		case <-until:
			last = true
		case <-sub.c:
		case <-sub.tick():
		}
	}
}

// cursor is a place in a log and the way on from there.
type cursor struct {
	dir  string
	f    format
	opts ReadOptions
	emit func(Entry) error

	seq  int // of the open segment, or of the last one read; 0 before the first
	skip int // entries to pass over

	file *os.File // nil: none open
	gz   bool     // file is compressed, and so complete
	read int64    // bytes of file that scan has read, if not gz
	scan *scanner
	// ended says that a later segment was seen, so that file grows no more.
	ended bool
}

func (c *cursor) close() {
	if c.file != nil {
		_ = c.file.Close() // opened for reading
		c.file, c.scan = nil, nil
	}
}

// Read feeds scan from the plain file and keeps count.
func (c *cursor) Read(b []byte) (int, error) {
	n, err := c.file.ReadAt(b, c.read)
	c.read += int64(n)
	if n == 0 && err == io.EOF {
		// A writer that cut off a torn entry may have made the file shorter
		// than what was read of it.
		if fi, serr := c.file.Stat(); serr == nil && fi.Size() < c.read {
			c.read = fi.Size()
			c.scan.start, c.scan.end, c.scan.off = 0, 0, c.read
		}
	}
	if n > 0 {
		err = nil
	}
	return n, err
}

// openNext opens the first segment after c.seq, if there is one.
func (c *cursor) openNext() (bool, error) {
	for {
		list, err := listSegments(c.dir, c.f.ext())
		if err != nil {
			return false, err
		}
		next := 0
		for _, s := range list {
			if s.seq > c.seq {
				next = s.seq
				break
			}
		}
		if next == 0 {
			return false, nil
		}
		err = c.open(next)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		// Removed by rotation in between: the new list does not have it.
	}
}

func (c *cursor) open(seq int) error {
	f, gz, err := openSegment(c.dir, c.f.ext(), seq)
	if err != nil {
		return err
	}
	c.file, c.gz, c.seq, c.read, c.ended = f, gz, seq, 0, gz
	if !gz {
		c.scan = newScanner(c, c.f)
		return nil
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		c.close()
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	c.scan = newScanner(z, c.f)
	return nil
}

// drain emits what there is. past says that nothing more can match.
func (c *cursor) drain(ctx context.Context) (past bool, err error) {
	for {
		if c.file == nil {
			ok, err := c.openNext()
			if err != nil || !ok {
				return false, err
			}
			if c.irrelevant() {
				c.close()
				continue
			}
		}
		if past, err := c.entries(ctx); err != nil || past {
			return past, err
		}
		if c.ended {
			c.close()
			continue
		}
		list, err := listSegments(c.dir, c.f.ext())
		if err != nil {
			return false, err
		}
		if len(list) == 0 || list[len(list)-1].seq <= c.seq {
			return false, nil
		}
		// The writer finishes a segment before it creates the next, but
		// perhaps after our last look: look once more.
		c.ended = true
	}
}

// irrelevant says that everything in the open segment is older than Since.
func (c *cursor) irrelevant() bool {
	if c.opts.Since.IsZero() || c.skip > 0 {
		return false
	}
	// The clock of time stamps of files may be some milliseconds behind.
	fi, err := c.file.Stat()
	return err == nil && c.ended && fi.ModTime().Add(time.Second).Before(c.opts.Since)
}

// entries emits what the open segment holds now.
func (c *cursor) entries(ctx context.Context) (past bool, err error) {
	var e Entry
	for n := 0; ; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		err := c.scan.next(&e)
		if errors.Is(err, io.EOF) {
			if c.ended && c.scan.skipDamage() {
				continue
			}
			return false, nil
		}
		if err != nil && c.gz {
			return false, nil // a damaged compressed segment: what was readable has been read
		}
		if err != nil {
			return false, fmt.Errorf("read log: %w", err)
		}
		if c.skip > 0 {
			c.skip--
			continue
		}
		if !c.opts.Until.IsZero() && e.Time.After(c.opts.Until) {
			return true, nil
		}
		if e.Time.Before(c.opts.Since) || e.Stream == Stdout && !c.opts.Stdout || e.Stream == Stderr && !c.opts.Stderr {
			continue
		}
		if err := c.emit(e); err != nil {
			return false, err
		}
	}
}
