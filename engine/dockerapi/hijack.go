package dockerapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/moby/moby/api/types"

	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// hijacked is a connection taken over from HTTP. It is used by one handler and
// closed when that returns.
type hijacked struct {
	net.Conn
	in *bufio.Reader // has what the client sent ahead of the answer
}

// hijack answers 101 (or 200 to clients that do not ask for an upgrade) and
// takes the connection over. The request's body must have been read.
func (c *call) hijack(tty bool) (*hijacked, error) {
	conn, rw, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err != nil {
		return nil, errdefs.Internalf("this connection cannot be taken over: %w", err)
	}
	c.hijacked = true
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + types.MediaTypeRawStream + "\r\n\r\n"
	c.status = http.StatusOK
	if c.r.Header.Get("Upgrade") != "" {
		media := types.MediaTypeRawStream
		if !tty && c.v >= 42 {
			media = types.MediaTypeMultiplexedStream
		}
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + media + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: " + MaxAPIVersion + "\r\n\r\n"
		c.status = http.StatusSwitchingProtocols
	}
	err = conn.SetDeadline(time.Time{})
	if err == nil {
		_, err = io.WriteString(conn, head)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &hijacked{Conn: conn, in: rw.Reader}, nil
}

// closeWrite tells the client that there is no more output.
func (h *hijacked) closeWrite() error {
	if w, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return h.Conn.Close()
}

// streamOptions say how an attachment is joined to a connection.
type streamOptions struct {
	stdin bool
	keys  []byte // detach keys, or nil
	// prelude is written before the attachment's output; it may be nil.
	prelude func(io.Writer) error
	linger  time.Duration
}

// join copies between the client and a until the output ends, the client is
// gone or has typed the detach keys, or ctx is done. It closes both, and
// returns when the copying has ended.
//
//	client ──▶ pump ──▶ a.Input        its end: a.CloseInput
//	client ◀── copy ◀── a.Output       its end: CloseWrite, linger, Close
func join(ctx context.Context, h *hijacked, a runtime.Attachment, o streamOptions) {
	closeAttachment := sync.OnceFunc(func() { _ = a.Close() }) // nothing can be done about a failed detach
	detach := sync.OnceFunc(func() {
		closeAttachment()
		_ = h.Close() // the client is gone or is to go
	})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer detach()
	defer context.AfterFunc(ctx, detach)()
	hangup := watchHangup(h.Conn)
	defer hangup.close()

	wg.Go(func() {
		if pump(h.in, a, o) || hangup.wait() {
			detach()
		}
	})
	if o.prelude != nil {
		if err := o.prelude(h); err != nil {
			detach()
			return
		}
	}
	if copyPrompt(h, a.Output()) != nil {
		detach()
		return
	}
	// All output is on its way. A close with unread input in the socket would
	// look like a reset to the client, so let it hang up first.
	hangup.close()
	closeAttachment() // unblocks a write of input to the ended process
	if h.closeWrite() != nil || h.SetReadDeadline(time.Now().Add(o.linger)) != nil {
		return
	}
	wg.Wait()
}

// pump copies the client's input to a. It returns when the client sends no
// more, and says whether the connection is of no more use.
func pump(in io.Reader, a runtime.Attachment, o streamOptions) (over bool) {
	var err error
	if o.stdin {
		src := in
		if o.keys != nil {
			src = &detachReader{r: in, keys: o.keys}
		}
		if err = copyPrompt(a.Input(), src); errors.Is(err, errDetached) {
			return true
		}
	}
	if !o.stdin || err != nil {
		// Not wanted, or the process has closed its input. Reading on shows
		// when the client goes.
		if _, err := io.Copy(io.Discard, in); err != nil {
			return true
		}
	}
	if o.stdin {
		// An end of the client's input, which may still read output. An error
		// means that the process has ended: its output shows it.
		_ = a.CloseInput()
	}
	return false
}

const copyBuffer = 32 << 10

// copyBuffers holds buffers between streams; it is a cache, not state.
var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// copyPrompt writes what each read gives at once. Unlike io.Copy it uses a
// pooled buffer in every case. It returns nil when src ends.
func copyPrompt(dst io.Writer, src io.Reader) error {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
