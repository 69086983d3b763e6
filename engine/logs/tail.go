package logs

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// seek places the cursor so that Tail lines follow. As in Docker, Tail counts
// the lines of the log, and the other options select among them.
func (c *cursor) seek() error {
	if c.opts.Tail < 0 {
		return nil
	}
	list, err := listSegments(c.dir, c.f.ext())
	if err != nil {
		return err
	}
	want := &tailCount{want: c.opts.Tail}
	for i := len(list) - 1; i >= 0; i-- {
		c.close()
		if err := c.open(list[i].seq); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed by rotation
			}
			return err
		}
		found, err := c.seekSegment(want)
		if err != nil {
			return err
		}
		if found {
			return nil
		}
	}
	// The log has fewer lines: begin with the first segment.
	c.close()
	c.seq = 0
	return nil
}

// tailCount counts lines from the end, entry by entry.
type tailCount struct {
	want, have int
	any        bool
}

// before says whether the entry that comes next going backwards is outside the
// wanted lines.
func (t *tailCount) before(partial bool) bool {
	// A part belongs to the line that was counted already, unless the log ends
	// in the middle of a line.
	if !partial || !t.any {
		if t.have == t.want {
			return true
		}
		t.have++
	}
	t.any = true
	return false
}

// seekSegment places the cursor in the open segment, if the wanted lines begin
// in it.
func (c *cursor) seekSegment(t *tailCount) (bool, error) {
	if c.gz {
		return c.seekForward(t)
	}
	fi, err := c.file.Stat()
	if err != nil {
		return false, err
	}
	end, err := c.f.boundary(c.file, fi.Size())
	if err != nil {
		return false, err
	}
	saved := *t
	w := &window{r: c.file}
	for end > 0 {
		start, partial, err := c.f.prev(w, end)
		if errors.Is(err, errCorrupt) {
			*t = saved
			return c.seekForward(t)
		}
		if err != nil {
			return false, err
		}
		if t.before(partial) {
			c.read, c.scan.off = end, end
			return true, nil
		}
		end = start
	}
	return false, nil
}

// seekForward counts a segment that cannot be read backwards: once through it
// remembering which entries are parts, and then the cursor skips.
func (c *cursor) seekForward(t *tailCount) (bool, error) {
	parts, err := c.partials()
	if err != nil {
		return false, err
	}
	seq := c.seq
	c.close()
	if err := c.open(seq); err != nil {
		return false, err
	}
	for n := len(parts); n > 0; n-- {
		if t.before(parts[n-1]) {
			c.skip = n
			return true, nil
		}
	}
	return false, nil
}

func (c *cursor) partials() ([]bool, error) {
	var parts []bool
	var e Entry
	for {
		err := c.scan.next(&e)
		switch {
		case err == nil:
			parts = append(parts, e.Partial)
		case errors.Is(err, io.EOF):
			if !c.ended || !c.scan.skipDamage() {
				return parts, nil
			}
		case c.gz && !errors.Is(err, os.ErrClosed):
			return parts, nil // damaged; entries stops at the same place
		default:
			return nil, err
		}
	}
}
