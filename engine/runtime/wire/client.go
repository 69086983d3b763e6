package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// ErrClosed says that the connection to the shim ended.
var ErrClosed = errors.New("connection to the shim is closed")

// Client is the daemon's end of a control connection. It is safe for
// concurrent use: a long request does not hold up others.
type Client struct {
	conn net.Conn

	writeMu sync.Mutex

	mu      sync.Mutex
	seq     uint64
	pending map[uint64]chan *Response // nil once the connection ended

	done chan struct{}
}

// NewClient takes conn over and reads it until it ends.
func NewClient(conn net.Conn) *Client {
	c := &Client{conn: conn, pending: make(map[uint64]chan *Response), done: make(chan struct{})}
	go c.read()
	return c
}

// Done is closed when the connection has ended: the shim died or Close was
// called.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection and waits for the reader.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

func (c *Client) read() {
	for {
		r := new(Response)
		if err := ReadFrame(c.conn, r); err != nil {
			break
		}
		c.mu.Lock()
		ch := c.pending[r.Seq]
		delete(c.pending, r.Seq)
		c.mu.Unlock()
		if ch != nil {
			ch <- r
		}
	}
	c.mu.Lock()
	for _, ch := range c.pending {
		close(ch)
	}
	c.pending = nil
	c.mu.Unlock()
	// The peer is gone or talks nonsense; either way nothing more comes.
	c.conn.Close()
	close(c.done)
}

// Call sends a request and waits for its answer. out may be nil. When ctx ends
// first, the answer is dropped when it comes.
func (c *Client) Call(ctx context.Context, op string, in, out any) error {
	req := Request{Op: op}
	if in != nil {
		body, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode %s: %w", op, err)
		}
		req.Body = body
	}
	ch := make(chan *Response, 1)
	c.mu.Lock()
	if c.pending == nil {
		c.mu.Unlock()
		return ErrClosed
	}
	c.seq++
	req.Seq = c.seq
	c.pending[req.Seq] = ch
	c.mu.Unlock()

	c.writeMu.Lock()
	err := WriteFrame(c.conn, &req)
	c.writeMu.Unlock()
	if err != nil {
		c.forget(req.Seq)
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	select {
	case r, ok := <-ch:
		if !ok {
			return ErrClosed
		}
		return r.decode(op, out)
	case <-ctx.Done():
		c.forget(req.Seq)
		return ctx.Err()
	}
}

func (c *Client) forget(seq uint64) {
	c.mu.Lock()
	delete(c.pending, seq)
	c.mu.Unlock()
}

func (r *Response) decode(op string, out any) error {
	if r.Error != nil {
		return r.Error
	}
	if out == nil || len(r.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.Body, out); err != nil {
		return fmt.Errorf("decode answer to %s: %w", op, err)
	}
	return nil
}

// CallOnce sends a request on a fresh connection and reads its answer, leaving
// every byte after it unread: how an attach connection begins.
func CallOnce(conn net.Conn, op string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", op, err)
	}
	if err := WriteFrame(conn, &Request{Seq: 1, Op: op, Body: body}); err != nil {
		return err
	}
	var r Response
	if err := ReadFrame(conn, &r); err != nil {
		return err
	}
	return r.decode(op, out)
}
