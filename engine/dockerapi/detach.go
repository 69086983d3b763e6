package dockerapi

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// errDetached ends the input of a terminal whose user typed the detach keys.
var errDetached = errors.New("detach keys were typed")

// defaultDetachKeys are ctrl-p, ctrl-q.
func defaultDetachKeys() []byte { return []byte{'p' & 0x1f, 'q' & 0x1f} }

// parseDetachKeys reads a comma-separated list of characters, ctrl-X and DEL;
// "" gives the default.
func parseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return defaultDetachKeys(), nil
	}
	var keys []byte
	for key := range strings.SplitSeq(s, ",") {
		ctrl, isCtrl := strings.CutPrefix(key, "ctrl-")
		switch {
		case len(key) == 1:
			keys = append(keys, key[0])
		case key == "DEL":
			keys = append(keys, 127)
		case isCtrl && len(ctrl) == 1 && (ctrl[0] >= 'a' && ctrl[0] <= 'z' || strings.ContainsRune(`@[\]^_`, rune(ctrl[0]))):
			keys = append(keys, ctrl[0]&0x1f)
		default:
			return nil, errdefs.Invalidf("Invalid detach keys (%s) provided", s)
		}
	}
	return keys, nil
}

// detachReader passes r on until keys appear in it, which end it with
// errDetached. Bytes that may begin the keys are held back until it is clear.
type detachReader struct {
	r    io.Reader
	keys []byte
	held int    // how many of keys were seen
	out  []byte // filtered, not yet passed on
	err  error
}

// Read implements io.Reader.
func (d *detachReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(d.out) == 0 && d.err == nil {
		n, err := d.r.Read(p)
		d.filter(p[:n])
		if d.err == nil && err != nil {
			if err == io.EOF { // what was held was not the beginning of the keys
				d.out = append(d.out, d.keys[:d.held]...)
				d.held = 0
			}
			d.err = err
		}
	}
	n := copy(p, d.out)
	d.out = d.out[n:]
	if n > 0 {
		return n, nil
	}
	return 0, d.err
}

func (d *detachReader) filter(in []byte) {
	d.out = d.out[:0]
	for _, b := range in {
		for d.held > 0 && b != d.keys[d.held] {
			// Let go of as little as makes the rest a beginning of the keys again.
			keep := d.held - 1
			for ; keep > 0 && !bytes.HasPrefix(d.keys, d.keys[d.held-keep:d.held]); keep-- {
			}
			d.out = append(d.out, d.keys[:d.held-keep]...)
			d.held = keep
		}
		if b != d.keys[d.held] {
			d.out = append(d.out, b)
			continue
		}
		if d.held++; d.held == len(d.keys) {
			d.held, d.err = 0, errDetached
			return
		}
	}
}
