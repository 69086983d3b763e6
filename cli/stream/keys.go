package stream

import (
	"fmt"
	"io"
	"strings"
)

// ParseDetachKeys reads "ctrl-p,ctrl-q": single characters and ctrl-X where X
// is a letter or one of @[\]^_. Empty means the default.
func ParseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return []byte{'p' & 0x1f, 'q' & 0x1f}, nil
	}
	var out []byte
	for key := range strings.SplitSeq(s, ",") {
		rest, ctrl := strings.CutPrefix(key, "ctrl-")
		switch {
		case !ctrl && len(key) == 1:
			out = append(out, key[0])
		case ctrl && len(rest) == 1 && (rest[0] >= 'a' && rest[0] <= 'z' || strings.ContainsAny(rest, `@[\]^_`)):
			out = append(out, rest[0]&0x1f)
		default:
			return nil, fmt.Errorf("invalid detach keys (%s): unknown character: '%s'", s, key)
		}
	}
	return out, nil
}

// escapeReader passes input through and ends with ErrDetached at the keys. A
// prefix of the keys is held back until it is clear that it is none.
type escapeReader struct {
	in      io.Reader
	keys    []byte
	matched int
	pending []byte
	err     error
}

func (r *escapeReader) Read(p []byte) (int, error) {
	for {
		if len(r.pending) > 0 {
			n := copy(p, r.pending)
			r.pending = r.pending[n:]
			return n, nil
		}
		if r.err != nil {
			return 0, r.err
		}
		if len(p) == 0 {
			return 0, nil
		}
		buf := make([]byte, len(p))
		n, err := r.in.Read(buf)
		r.feed(buf[:n])
		if err != nil && r.err == nil {
			r.pending = append(r.pending, r.keys[:r.matched]...)
			r.matched = 0
			r.err = err
		}
	}
}

func (r *escapeReader) feed(b []byte) {
	for _, c := range b {
		if c == r.keys[r.matched] {
			r.matched++
			if r.matched == len(r.keys) {
				r.err = ErrDetached
				return
			}
			continue
		}
		r.pending = append(r.pending, r.keys[:r.matched]...)
		r.matched = 0
		if c == r.keys[0] {
			r.matched = 1
			if len(r.keys) == 1 {
				r.err = ErrDetached
				return
			}
			continue
		}
		r.pending = append(r.pending, c)
	}
}
