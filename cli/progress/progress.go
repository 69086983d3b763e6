// Package progress shows the daemon's progress messages of pull, push, load and
// import: on a terminal one line per layer with a bar, rewritten in place;
// elsewhere plain lines, one per change of state.
package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Message is a progress message of any daemon, with the hint that ours sends
// with errors.
type Message struct {
	jsonstream.Message
	// ErrorText is the error in the words of old daemons.
	ErrorText string `json:"error"`
	Hint      string `json:"hint"`
}

// failure gives the error that a message tells of.
func (m Message) failure() error {
	text := m.ErrorText
	if m.Error != nil && m.Error.Message != "" {
		text = m.Error.Message
	}
	if text == "" {
		return nil
	}
	var err error = errors.New(text)
	if m.Error != nil && m.Error.Code == http.StatusUnauthorized {
		err = errdefs.As(errdefs.ErrUnauthenticated, err)
	}
	if m.Hint != "" {
		err = errdefs.WithHint(err, m.Hint)
	}
	return err
}

// Decode reads messages off a stream.
func Decode(r io.Reader) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		dec := json.NewDecoder(r)
		for {
			var m Message
			err := dec.Decode(&m)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// Display writes the messages until they end. width is that of the terminal, 0
// where there is none. The error is the daemon's, or that of the stream.
func Display(out io.Writer, messages iter.Seq2[Message, error], width int, now func() time.Time) error {
	s := &screen{out: out, width: width, row: map[string]int{}, now: now}
	for m, err := range messages {
		if err != nil {
			return err
		}
		if err := m.failure(); err != nil {
			return err
		}
		if err := s.show(m.Message); err != nil {
			return err
		}
	}
	return nil
}

// screen knows on which line each layer is.
type screen struct {
	out   io.Writer
	width int
	row   map[string]int
	rows  int
	now   func() time.Time
}

func (s *screen) show(m jsonstream.Message) error {
	switch {
	case m.Aux != nil:
		return nil
	case m.Stream != "":
		s.settle()
		_, err := io.WriteString(s.out, m.Stream)
		return err
	case s.width == 0:
		return s.plain(m)
	case m.ID == "":
		s.settle()
		_, err := fmt.Fprintln(s.out, text(m, s.width, s.now))
		return err
	}
	return s.inPlace(m)
}

func (s *screen) plain(m jsonstream.Message) error {
	if m.Progress != nil && (m.Progress.Current > 0 || m.Progress.Total > 0) {
		return nil
	}
	line := m.Status
	if m.ID != "" {
		line = m.ID + ": " + line
	}
	_, err := fmt.Fprintln(s.out, line)
	return err
}

// inPlace rewrites the line of the message's layer: cursor up, erase, write,
// cursor down again, in one write so that nothing flickers.
func (s *screen) inPlace(m jsonstream.Message) error {
	var b strings.Builder
	row, known := s.row[m.ID]
	if !known {
		row = s.rows
		s.row[m.ID] = row
		s.rows++
		b.WriteString("\n")
	}
	up := s.rows - row
	fmt.Fprintf(&b, "\x1b[%dA\r\x1b[2K%s\r\x1b[%dB", up, text(m, s.width, s.now), up)
	_, err := io.WriteString(s.out, b.String())
	return err
}

// settle leaves the lines drawn so far as they are: later layers get new ones.
func (s *screen) settle() {
	s.row, s.rows = map[string]int{}, 0
}

func text(m jsonstream.Message, width int, now func() time.Time) string {
	line := m.Status
	if m.ID != "" {
		line = m.ID + ": " + m.Status
	}
	if p := bar(m.Progress, width-len(line)-1, now); p != "" {
		line += " " + p
	}
	if width > 0 && len(line) > width {
		line = line[:width]
	}
	return line
}

// bar words a progress: a bar with counts where the total is known and there is
// room, else only the count.
func bar(p *jsonstream.Progress, room int, now func() time.Time) string {
	if p == nil || (p.Current <= 0 && p.Total <= 0) {
		return ""
	}
	size := func(n int64) string {
		if p.Units != "" {
			return fmt.Sprintf("%d %s", n, p.Units)
		}
		return units.HumanSize(float64(n))
	}
	if p.Total <= 0 || p.Current > p.Total {
		return fmt.Sprintf("%8v", size(p.Current))
	}
	counts := ""
	if !p.HideCounts {
		counts = fmt.Sprintf(" %8v/%v", size(p.Current), size(p.Total))
	}
	left := ""
	if p.Start > 0 && p.Current > 0 {
		spent := now().Sub(time.Unix(p.Start, 0))
		left = " " + (time.Duration(float64(spent) * float64(p.Total-p.Current) / float64(p.Current))).Round(time.Second).String()
	}
	cells := min(50, room-len(counts)-len(left)-2)
	if cells < 5 {
		return strings.TrimSpace(counts)
	}
	done := int(float64(cells) * float64(p.Current) / float64(p.Total))
	head := ">"
	if done == cells {
		head = ""
	}
	return "[" + strings.Repeat("=", done) + head + strings.Repeat(" ", max(0, cells-done-len(head))) + "]" + counts + left
}
