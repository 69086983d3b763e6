package shim

import (
	"bytes"
	"time"

	"github.com/cleatlabs/cleat/engine/logs"
)

// maxLine is where long lines are split, as Docker does.
const maxLine = 16 << 10

// splitter cuts the bytes of one stream into log entries. It is used by one
// goroutine.
type splitter struct {
	stream logs.Stream
	emit   func(logs.Entry)
	// rest is the start of a line whose end has not come yet, shorter than
	// maxLine.
	rest []byte
}

// write takes bytes that were read at now.
func (s *splitter) write(now time.Time, p []byte) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			p = s.fill(now, p)
			if len(p) == 0 {
				return
			}
			continue
		}
		line := p[:i]
		p = p[i+1:]
		for len(s.rest)+len(line) > maxLine {
			line = s.fill(now, line)
		}
		if len(s.rest) > 0 {
			s.rest = append(s.rest, line...)
			line = s.rest
		}
		s.emit(logs.Entry{Time: now, Stream: s.stream, Line: line})
		s.reset()
	}
}

// fill adds p to rest, as far as it fits, and emits rest once it is full and
// more is to come. It returns what did not fit.
func (s *splitter) fill(now time.Time, p []byte) []byte {
	n := min(len(p), maxLine-len(s.rest))
	s.rest = append(s.rest, p[:n]...)
	p = p[n:]
	if len(p) > 0 {
		s.emit(logs.Entry{Time: now, Stream: s.stream, Line: s.rest, Partial: true})
		s.rest = s.rest[:0]
	}
	return p
}

// flush emits what is left at the end of the stream.
func (s *splitter) flush(now time.Time) {
	if len(s.rest) > 0 {
		s.emit(logs.Entry{Time: now, Stream: s.stream, Line: s.rest})
		s.rest = nil
	}
}

// reset empties rest and gives a large buffer back.
func (s *splitter) reset() {
	if cap(s.rest) > 4<<10 {
		s.rest = nil
		return
	}
	s.rest = s.rest[:0]
}
