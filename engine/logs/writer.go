package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// OpenWriter opens the log for appending, after what an earlier writer left;
// an incomplete last entry is cut off. The caller is the log's only writer.
func OpenWriter(cfg Config) (Writer, error) {
	s, err := parse(cfg.Driver, cfg.Options)
	if err != nil {
		return nil, err
	}
	if cfg.Driver == DriverNone {
		return nowhere{}, nil
	}
	w := &fileWriter{cfg: cfg, set: s, f: formatOf(cfg.Driver), now: time.Now}
	if err := w.open(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if s.nonBlocking {
		return newRing(w, s.bufferSize), nil
	}
	return w, nil
}

type nowhere struct{}

func (nowhere) WriteEntry(Entry) error { return nil }
func (nowhere) Close() error           { return nil }

// errClosed is what WriteEntry returns after Close.
var errClosed = fmt.Errorf("write log: %w", fs.ErrClosed)

// fileWriter writes segments. mu guards all below it; writes to the disk happen
// under mu, which is what keeps the entries' order.
type fileWriter struct {
	cfg Config
	set settings
	f   format
	now func() time.Time

	mu     sync.Mutex
	file   *os.File // nil after Close
	seq    int
	size   int64 // of file, up to the last complete entry
	limit  int64 // rotate when size would exceed it; 0: never
	buf    []byte
	lost   int // entries dropped since the last note
	reason error

	packer packer
}

func (w *fileWriter) open() error {
	if err := os.MkdirAll(w.cfg.Dir, 0o710); err != nil {
		return err
	}
	list, err := listSegments(w.cfg.Dir, w.f.ext())
	if err != nil {
		return err
	}
	w.packer.init(w.cfg.Dir, w.f.ext())
	w.limit = w.set.maxSize
	seq := 1
	if n := len(list); n > 0 {
		seq = list[n-1].seq
		if list[n-1].gz {
			seq++ // the last was compressed and the next never created
		}
	}
	if err := w.create(seq); err != nil {
		return err
	}
	w.tidy()
	return nil
}

// create makes segment seq the one being written, cutting off an incomplete
// last entry if the segment exists.
func (w *fileWriter) create(seq int) error {
	f, err := os.OpenFile(segmentPath(w.cfg.Dir, w.f.ext(), seq), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	size, err := w.f.boundary(f, fi.Size())
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if size < fi.Size() {
		if err := f.Truncate(size); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	w.file, w.seq, w.size = f, seq, size
	w.point()
	return nil
}

// point makes json-file's constant name lead to the current segment. Failing
// costs only outside readers their path, so the log goes on.
func (w *fileWriter) point() {
	if w.cfg.Driver != DriverJSON {
		return
	}
	name, tmp := filepath.Join(w.cfg.Dir, currentName), filepath.Join(w.cfg.Dir, "."+currentName)
	target := filepath.Base(w.file.Name())
	if got, err := os.Readlink(name); err == nil && got == target {
		return
	}
	_ = os.Remove(tmp) // of an interrupted writer; Symlink says if it is still in the way
	if err := os.Symlink(target, tmp); err == nil {
		_ = os.Rename(tmp, name) // see above
	}
}

// WriteEntry appends e. It returns an error only after Close: a full disk costs
// entries, which are counted, but neither blocks nor fails the container.
func (w *fileWriter) WriteEntry(e Entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return errClosed
	}
	for len(e.Line) > maxLine {
		part := e
		part.Line, part.Partial = e.Line[:maxLine], true
		w.write(part)
		e.Line = e.Line[maxLine:]
	}
	w.write(e)
	return nil
}

func (w *fileWriter) write(e Entry) {
	if e.Time.IsZero() {
		e.Time = w.now()
	}
	w.buf = w.buf[:0]
	if w.lost > 0 {
		note := Entry{Time: e.Time, Stream: Stderr, Line: []byte(lossNote(w.lost, w.reason))}
		w.buf = w.f.append(w.buf, note, w.cfg.Attrs)
	}
	w.buf = w.f.append(w.buf, e, w.cfg.Attrs)
	if w.limit > 0 && w.size > 0 && w.size+int64(len(w.buf)) > w.limit {
		w.rotate()
	}
	n, err := w.file.Write(w.buf)
	if err != nil {
		if n > 0 {
			// Readers wait for the rest of an incomplete entry, so take the
			// part back; making a file shorter works on a full disk.
			if terr := w.file.Truncate(w.size); terr != nil {
				err = errors.Join(err, terr)
			}
		}
		w.lost++
		w.reason = err
		return
	}
	w.lost, w.reason = 0, nil
	w.size += int64(n)
	if cap(w.buf) > 4*block {
		w.buf = nil // one long line must not be kept for ever
	}
}

func lossNote(n int, reason error) string {
	var pe *fs.PathError
	if errors.As(reason, &pe) {
		reason = pe.Err
	}
	if n == 1 {
		return fmt.Sprintf("[cleat: 1 log entry was lost: %v]", reason)
	}
	return fmt.Sprintf("[cleat: %d log entries were lost: %v]", n, reason)
}

// rotate goes on in a new segment. If that cannot be created, the current one
// grows beyond its limit, and rotation is tried again somewhat later.
func (w *fileWriter) rotate() {
	old, oldSeq := w.file, w.seq
	if err := w.create(w.seq + 1); err != nil {
		w.limit = w.size + max(w.set.maxSize/16, block)
		return
	}
	w.limit = w.set.maxSize
	if w.set.compress && w.set.maxFile > 1 {
		w.packer.add(oldSeq)
	}
	_ = old.Close() // written completely; nothing can be done about an error
	w.tidy()
}

// tidy removes segments beyond max-file and has those compressed that an
// interrupted writer did not. Errors leave a file too many, until next time.
func (w *fileWriter) tidy() {
	list, err := listSegments(w.cfg.Dir, w.f.ext())
	if err != nil {
		return
	}
	for _, s := range list {
		path := segmentPath(w.cfg.Dir, w.f.ext(), s.seq)
		if w.set.maxSize > 0 && s.seq <= w.seq-w.set.maxFile {
			w.packer.remove(path)
			continue
		}
		if w.set.compress && !s.gz && s.seq < w.seq {
			w.packer.add(s.seq)
		}
	}
}

// Close ends the log. A compression that is under way is given up; the next
// writer makes up for it.
func (w *fileWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	w.packer.stop()
	err := w.file.Close()
	w.file = nil
	return err
}
