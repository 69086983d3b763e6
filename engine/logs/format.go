package logs

import (
	"errors"
	"io"
)

// maxLine is the longest line in one record; WriteEntry splits longer ones.
const maxLine = 1 << 20

var (
	// errShort says that a record is not complete yet.
	errShort = errors.New("incomplete log record")
	// errCorrupt says that there is no record at this place.
	errCorrupt = errors.New("corrupt log record")
)

// format is how a driver puts entries into bytes.
type format interface {
	ext() string
	// append adds the record of e to b.
	append(b []byte, e Entry, attrs map[string]string) []byte
	// decode reads the record at the start of b into e and returns its length.
	// e.Line may point into b. errShort: b holds only its beginning.
	// errCorrupt: skip the returned number of bytes, at least one, and go on.
	decode(b []byte, e *Entry) (int, error)
	// prev finds the record that ends at end: where it begins and whether it
	// is a part. errCorrupt when there is none.
	prev(w *window, end int64) (start int64, partial bool, err error)
	// boundary returns the end of the last complete record before size.
	boundary(r io.ReaderAt, size int64) (int64, error)
}

func formatOf(driver string) format {
	if driver == DriverJSON {
		return jsonFormat{}
	}
	return localFormat{}
}

// window reads a file backwards in blocks.
type window struct {
	r   io.ReaderAt
	buf []byte
	off int64 // of buf[0]
}

const block = 64 << 10

// bytes returns file[from:to]. What it returned before becomes invalid.
func (w *window) bytes(from, to int64) ([]byte, error) {
	if from < 0 {
		return nil, errCorrupt
	}
	if from < w.off || to > w.off+int64(len(w.buf)) {
		start := max(0, min(from, to-block))
		buf := make([]byte, to-start)
		if n, err := w.r.ReadAt(buf, start); n < len(buf) {
			return nil, err
		}
		w.buf, w.off = buf, start
	}
	return w.buf[from-w.off : to-w.off], nil
}

// scanForward returns the end of the last complete record of r before size by
// decoding all, for files whose end is damaged.
func scanForward(f format, r io.ReaderAt, size int64) (int64, error) {
	s := newScanner(io.NewSectionReader(r, 0, size), f)
	var e Entry
	var good int64
	for {
		switch err := s.next(&e); {
		case err == nil:
			good = s.off
		case errors.Is(err, io.EOF):
			return good, nil
		default:
			return 0, err
		}
	}
}

// scanner decodes records from a growing file or a stream.
type scanner struct {
	r          io.Reader
	f          format
	buf        []byte
	start, end int
	off        int64 // in r, of what has been decoded
}

func newScanner(r io.Reader, f format) *scanner { return &scanner{r: r, f: f} }

// next decodes one record. io.EOF means that there is no complete one now;
// calling again tries to read more. Damage is skipped.
func (s *scanner) next(e *Entry) error {
	for {
		if s.start < s.end {
			n, err := s.f.decode(s.buf[s.start:s.end], e)
			if !errors.Is(err, errShort) {
				s.start += n
				s.off += int64(n)
				if err == nil {
					return nil
				}
				continue // corrupt: look behind it
			}
		}
		if err := s.fill(); err != nil {
			if errors.Is(err, io.EOF) && s.resync() {
				continue
			}
			return err
		}
	}
}

// resync looks for a complete record inside of what seems to be an incomplete
// one: if there is one, the beginning was damage.
func (s *scanner) resync() bool {
	if _, ok := s.f.(localFormat); !ok {
		return false // lines need no such search
	}
	var e Entry
	for i := s.start + 1; i < s.end; i++ {
		if _, err := s.f.decode(s.buf[i:s.end], &e); err == nil {
			s.off += int64(i - s.start)
			s.start = i
			return true
		}
	}
	return false
}

func (s *scanner) fill() error {
	if s.start > 0 {
		copy(s.buf, s.buf[s.start:s.end])
		s.start, s.end = 0, s.end-s.start
	}
	if s.end == len(s.buf) {
		// decode calls no record longer than its limit short, so this ends.
		s.buf = append(s.buf, make([]byte, max(block, len(s.buf)))...)
	}
	n, err := s.r.Read(s.buf[s.end:])
	s.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.EOF
	}
	return err
}

// skipDamage gives up the incomplete record at the end of a segment that will
// not grow any more, and says whether there is more to look at.
func (s *scanner) skipDamage() bool {
	if s.start == s.end {
		return false
	}
	s.start++
	s.off++
	return s.start < s.end
}
