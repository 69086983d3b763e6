package dockerapi

import (
	"bufio"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types"

	econtainer "github.com/cleatlabs/cleat/engine/container"
	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

func (s *Server) containerLogs(c *call) error {
	o := econtainer.LogsOptions{Stdout: c.flag("stdout"), Stderr: c.flag("stderr"), Follow: c.flag("follow"), Tail: -1}
	if !o.Stdout && !o.Stderr {
		return errdefs.Invalidf("Bad parameters: you must choose at least one stream")
	}
	var err error
	if o.Since, err = s.moment(c, "since"); err != nil {
		return err
	}
	if o.Until, err = s.moment(c, "until"); err != nil {
		return err
	}
	if n, err := strconv.Atoi(c.param("tail")); err == nil && n >= 0 { // "all" and nonsense: all
		o.Tail = n
	}
	ref := c.path("name")
	tty, err := s.Containers.Tty(c.ctx(), ref)
	if err != nil {
		return err
	}
	media := types.MediaTypeRawStream
	if !tty && c.v >= 42 {
		media = types.MediaTypeMultiplexedStream
	}
	f := logFormat{tty: tty, timestamps: c.flag("timestamps"), details: c.flag("details")}
	w := newPromptWriter(c, media, o.Follow)
	err = s.Containers.Logs(c.ctx(), ref, o, func(e logs.Entry) error {
		return w.write(f.entry(e))
	})
	return w.finish(err, func(err error) []byte {
		if tty {
			return []byte("Error grabbing logs: " + err.Error() + "\n")
		}
		return appendFrame(nil, stdcopy.Systemerr, []byte("Error grabbing logs: "+err.Error()+"\n"))
	})
}

// logFormat turns entries into what the client reads. It is used by one
// goroutine; what entry returns is valid until the next call.
type logFormat struct {
	tty, timestamps, details bool
	within                   [3]bool // per stream: the last entry was partial
	buf, prefix              []byte
}

const logTime = "2006-01-02T15:04:05.000000000Z07:00"

func (f *logFormat) entry(e logs.Entry) []byte {
	f.prefix = f.prefix[:0]
	stream := e.Stream
	if stream != logs.Stderr {
		stream = logs.Stdout
	}
	if !f.within[stream] {
		if f.timestamps {
			f.prefix = e.Time.UTC().AppendFormat(f.prefix, logTime)
			f.prefix = append(f.prefix, ' ')
		}
		if f.details {
			f.prefix = append(appendAttrs(f.prefix, e.Attrs), ' ')
		}
	}
	f.within[stream] = e.Partial
	end := []byte{'\n'}
	if e.Partial {
		end = nil
	}
	f.buf = f.buf[:0]
	if f.tty {
		f.buf = append(append(append(f.buf, f.prefix...), e.Line...), end...)
		return f.buf
	}
	f.buf = appendFrame(f.buf, stdcopy.StdType(stream), f.prefix, e.Line, end)
	return f.buf
}

// appendAttrs adds k=v,k=v in the order of keys.
func appendAttrs(b []byte, attrs map[string]string) []byte {
	pairs := make([]string, 0, len(attrs))
	for k, v := range attrs {
		pairs = append(pairs, url.QueryEscape(k)+"="+url.QueryEscape(v))
	}
	slices.Sort(pairs)
	return append(b, strings.Join(pairs, ",")...)
}

// promptWriter writes a stream of small pieces: at once if it follows, yet in
// larger writes when pieces come quicker than the client reads.
//
// The header waits for the first piece, so that an error before it gets a
// status of its own; a follower's waits no longer than headerDelay.
type promptWriter struct {
	c     *call
	media string
	// mu guards buf, err and the call's writer.
	mu  sync.Mutex
	buf *bufio.Writer
	err error

	wake chan struct{} // nil unless following
	done chan struct{} // closed when the flusher has ended
}

const headerDelay = 50 * time.Millisecond

func newPromptWriter(c *call, media string, follow bool) *promptWriter {
	w := &promptWriter{c: c, media: media, buf: bufio.NewWriterSize(c, copyBuffer)}
	if follow {
		w.wake, w.done = make(chan struct{}, 1), make(chan struct{})
		go w.flusher()
	}
	return w
}

func (w *promptWriter) write(b []byte) error {
	w.mu.Lock()
	w.begin()
	_, err := w.buf.Write(b)
	if err == nil {
		err = w.err
	}
	w.mu.Unlock()
	if w.wake != nil {
		select {
		case w.wake <- struct{}{}:
		default: // the flusher will see this piece too
		}
	}
	return err
}

// begin sets the header; mu is held.
func (w *promptWriter) begin() {
	if w.c.status == 0 {
		w.c.Header().Set("Content-Type", w.media)
		w.c.WriteHeader(200)
	}
}

// flusher runs until finish closes wake.
func (w *promptWriter) flusher() {
	defer close(w.done)
	timer := time.NewTimer(headerDelay)
	defer timer.Stop()
	for {
		select {
		case _, ok := <-w.wake:
			if !ok {
				return
			}
		case <-timer.C:
		}
		w.flush()
	}
}

func (w *promptWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin()
	err := w.buf.Flush()
	if err == nil {
		err = w.c.FlushError()
	}
	if w.err == nil {
		w.err = err
	}
}

// finish ends the flusher and tells err: to the server if nothing was written
// yet, else inside the stream as inBand has it.
func (w *promptWriter) finish(err error, inBand func(error) []byte) error {
	if w.wake != nil {
		close(w.wake)
		<-w.done
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	gone := w.c.ctx().Err() != nil
	if err != nil && w.c.status == 0 {
		return err
	}
	w.begin()
	if err != nil && !gone && w.err == nil {
		if _, werr := w.buf.Write(inBand(err)); werr != nil {
			return werr
		}
	}
	return w.buf.Flush()
}
