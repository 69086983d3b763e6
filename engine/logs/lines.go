package logs

import (
	"bytes"
	"sync"
	"time"
)

// PartSize is the length at which a line is divided into parts, as in Docker.
const PartSize = 16 << 10

// LineWriter turns one stream's bytes into entries. Each stream of a container
// has its own; several may share a Writer.
type LineWriter struct {
	to     Writer
	stream Stream
	now    func() time.Time

	mu   sync.Mutex
	rest []byte // an unfinished line, shorter than PartSize
}

// NewLineWriter returns a LineWriter that stamps entries with now.
func NewLineWriter(to Writer, stream Stream, now func() time.Time) *LineWriter {
	return &LineWriter{to: to, stream: stream, now: now}
}

// Write logs the lines that p completes and keeps the rest.
func (l *LineWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := len(p)
	at := l.now()
	for len(p) > 0 {
		line, after, whole := bytes.Cut(p, []byte{'\n'})
		if room := PartSize - len(l.rest); len(line) > room {
			line, after, whole = p[:room], p[room:], false
		}
		if !whole && len(l.rest)+len(line) < PartSize {
			l.rest = append(l.rest, line...)
			break
		}
		e := Entry{Time: at, Stream: l.stream, Line: line, Partial: !whole}
		if len(l.rest) > 0 {
			e.Line = append(l.rest, line...)
		}
		if err := l.to.WriteEntry(e); err != nil {
			return total - len(p), err
		}
		l.rest = l.rest[:0]
		p = after
	}
	return total, nil
}

// Close logs an unfinished line as one of its own. It does not close the
// Writer.
func (l *LineWriter) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) == 0 {
		return nil
	}
	err := l.to.WriteEntry(Entry{Time: l.now(), Stream: l.stream, Line: l.rest})
	l.rest = nil
	return err
}
