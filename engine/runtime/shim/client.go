package shim

import (
	"encoding/binary"
	"net"
	"sync"
	"time"

	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

const (
	// clientBuffer is how far the container may run ahead of a client.
	clientBuffer = 256 << 10
	// clientChunk is how much is written to a client at once, the unit in
	// which its progress is seen.
	clientChunk = 32 << 10
)

// client is an attached connection. Output goes through a bounded buffer: a
// slow client slows the container once it is full (so that nothing of the
// output is missing), and a client that accepts nothing for the stall timeout
// while the container waits for it is dropped.
//
// put is called by the pumps, drain runs in a goroutine of its own.
type client struct {
	conn  *net.UnixConn
	opts  wire.Attach
	raw   bool // terminal: no framing
	stall time.Duration

	mu       sync.Mutex
	wake     *sync.Cond // for drain
	room     chan struct{}
	pending  []byte
	progress int // chunks accepted so far
	ending   bool
	dead     bool
	drained  chan struct{}
}

func newClient(conn *net.UnixConn, opts wire.Attach, raw bool, stall time.Duration) *client {
	c := &client{conn: conn, opts: opts, raw: raw, stall: stall,
		room: make(chan struct{}, 1), drained: make(chan struct{})}
	c.wake = sync.NewCond(&c.mu)
	return c
}

func (c *client) wants(s logs.Stream) bool {
	return s == logs.Stdout && c.opts.Stdout || s == logs.Stderr && c.opts.Stderr
}

// put queues p. It blocks while the buffer is full, at most until the client
// is declared stuck.
func (c *client) put(s logs.Stream, p []byte) {
	if !c.wants(s) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.pending) >= clientBuffer && !c.dead {
		if !c.awaitRoom() {
			c.kill()
		}
	}
	if c.dead || c.ending {
		return
	}
	if !c.raw {
		var head [8]byte
		head[0] = byte(s)
		binary.BigEndian.PutUint32(head[4:], uint32(len(p)))
		c.pending = append(c.pending, head[:]...)
	}
	c.pending = append(c.pending, p...)
	c.wake.Signal()
}

// awaitRoom waits, without the lock, for the writer to take something. It is
// false when the client accepted nothing for the stall timeout.
func (c *client) awaitRoom() bool {
	before := c.progress
	c.mu.Unlock()
	defer c.mu.Lock()
	t := time.NewTimer(c.stall)
	defer t.Stop()
	select {
	case <-c.room: // perhaps of an earlier chunk: the caller looks again
		return true
	case <-c.drained:
		return true
	case <-t.C:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.progress != before || c.dead
	}
}

// kill drops the client; the lock is held.
func (c *client) kill() {
	c.dead = true
	c.pending = nil
	c.conn.Close()
	c.wake.Signal()
}

// drop ends the client at once.
func (c *client) drop() {
	c.mu.Lock()
	c.kill()
	c.mu.Unlock()
}

// end lets the client have what is queued and then closes it.
func (c *client) end() {
	c.mu.Lock()
	c.ending = true
	c.wake.Signal()
	c.mu.Unlock()
}

// drain writes what is queued until the client ends.
func (c *client) drain() {
	defer close(c.drained)
	defer c.conn.Close()
	for {
		c.mu.Lock()
		for len(c.pending) == 0 && !c.ending && !c.dead {
			c.wake.Wait()
		}
		if c.dead || len(c.pending) == 0 {
			c.dead = true
			c.mu.Unlock()
			return
		}
		batch := c.pending
		c.pending = nil
		c.mu.Unlock()
		if !c.send(batch) {
			return
		}
	}
}

func (c *client) send(batch []byte) bool {
	for len(batch) > 0 {
		n, err := c.conn.Write(batch[:min(len(batch), clientChunk)])
		c.mu.Lock()
		if n > 0 {
			c.progress++
		}
		if err != nil {
			c.kill()
		}
		c.mu.Unlock()
		select {
		case c.room <- struct{}{}:
		default:
		}
		if err != nil {
			return false
		}
		batch = batch[n:]
	}
	return true
}
