package shim

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

// drainGrace is how long output is still awaited from descendants that hold
// the streams of a process that has ended. What the process itself wrote is
// always read.
const drainGrace = 100 * time.Millisecond

// stdio owns our ends of a process's standard streams: it copies output to
// the log and to the attached clients, and input from the clients.
type stdio struct {
	terminal  bool
	stdinOnce bool
	log       logs.Writer // nil: output is not logged (exec)
	logFailed atomic.Int64
	stall     time.Duration
	now       func() time.Time

	// child are the process's ends, closed once it has them.
	child [3]*os.File
	// master is the terminal; without one, the pipes are in, out and err.
	master       *os.File
	in, out, err *os.File

	mu      sync.Mutex
	size    wire.Size
	inShut  bool
	clients []*client
	ended   bool
	writers sync.WaitGroup // the clients' drains

	pumps []*pump
}

// pump copies one stream.
type pump struct {
	r    *os.File
	read atomic.Int64
	done chan struct{}
}

// newPipes makes pipes for the three streams; without openStdin, input is
// empty. uid and gid own them, for containers with a user namespace.
func (s *stdio) newPipes(openStdin bool, uid, gid int) error {
	var err error
	if openStdin {
		if s.child[0], s.in, err = os.Pipe(); err != nil {
			return err
		}
	} else if s.child[0], err = os.Open(os.DevNull); err != nil {
		return err
	}
	if s.out, s.child[1], err = os.Pipe(); err != nil {
		return err
	}
	if s.err, s.child[2], err = os.Pipe(); err != nil {
		return err
	}
	if uid == 0 && gid == 0 {
		return nil
	}
	for i, f := range s.child {
		if i == 0 && !openStdin {
			continue
		}
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// closeChild gives up the process's ends, so that end of file can be seen.
func (s *stdio) closeChild() {
	for i, f := range s.child {
		if f != nil {
			f.Close()
			s.child[i] = nil
		}
	}
}

// setMaster takes the terminal over.
func (s *stdio) setMaster(f *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.master = f
	if s.size != (wire.Size{}) {
		return setWinsize(f, s.size)
	}
	return nil
}

// run starts copying. It is called once, when the process's ends exist.
func (s *stdio) run() {
	add := func(r *os.File, stream logs.Stream) {
		p := &pump{r: r, done: make(chan struct{})}
		s.pumps = append(s.pumps, p)
		go s.pump(p, stream)
	}
	if s.terminal {
		add(s.master, logs.Stdout)
		return
	}
	add(s.out, logs.Stdout)
	add(s.err, logs.Stderr)
}

func (s *stdio) pump(p *pump, stream logs.Stream) {
	defer close(p.done)
	lines := splitter{stream: stream, emit: s.logEntry}
	buf := make([]byte, 16<<10)
	for {
		n, err := p.r.Read(buf)
		if n > 0 {
			p.read.Add(int64(n))
			if s.log != nil {
				lines.write(s.now(), buf[:n])
			}
			for _, c := range s.attached() {
				c.put(stream, buf[:n])
			}
		}
		if err != nil { // io.EOF; EIO of a terminal; the deadline of finish
			break
		}
	}
	if s.log != nil {
		lines.flush(s.now())
	}
}

// logEntry never stops the output: a log that cannot be written (a full
// disk) loses lines, the container goes on.
func (s *stdio) logEntry(e logs.Entry) {
	if err := s.log.WriteEntry(e); err != nil {
		s.logFailed.Add(1)
	}
}

func (s *stdio) attached() []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients
}

// finish is called when the process has ended. It returns when its output has
// been read and logged, and lets the clients have the rest in their own time.
func (s *stdio) finish() {
	s.closeChild()
	s.awaitPumps()
	s.mu.Lock()
	s.ended = true
	clients := s.clients
	s.clients = nil
	s.mu.Unlock()
	for _, c := range clients {
		c.end()
	}
	s.shutStdin()
	for _, f := range []*os.File{s.master, s.out, s.err} {
		if f != nil {
			f.Close()
		}
	}
	if s.log != nil {
		if err := s.log.Close(); err != nil {
			s.logFailed.Add(1)
		}
	}
}

// awaitPumps waits for the end of the streams. Descendants of an exec may hold
// them open for ever, so that once all is read that was written before the
// end, and a grace has passed, it stops.
func (s *stdio) awaitPumps() {
	target := make([]int64, len(s.pumps))
	for i, p := range s.pumps {
		target[i] = p.read.Load() + queued(p.r)
	}
	for i, p := range s.pumps {
		t := time.NewTicker(drainGrace)
		for open := true; open; {
			select {
			case <-p.done:
				open = false
			case <-t.C:
				if p.read.Load() >= target[i] {
					// Fails only for a file that is not pollable: no file here.
					_ = p.r.SetReadDeadline(time.Unix(1, 0))
					<-p.done
					open = false
				}
			}
		}
		t.Stop()
	}
}

// queued is how many bytes wait to be read.
func queued(f *os.File) int64 {
	var n int
	raw, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	if err := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil {
		return 0
	}
	return int64(n)
}

// attach serves conn until it ends. ready is called when no output can be
// missed any more, before any is sent.
func (s *stdio) attach(conn *net.UnixConn, opts wire.Attach, ready func() error) {
	c := newClient(conn, opts, s.terminal, s.stall)
	s.mu.Lock()
	ended := s.ended
	if !ended {
		// The answer must be the first thing on the connection: the lock keeps
		// the pumps from seeing the client before.
		if err := ready(); err != nil {
			s.mu.Unlock()
			conn.Close()
			return
		}
		s.clients = append(slices.Clip(s.clients), c)
		s.writers.Add(1)
	}
	s.mu.Unlock()
	if ended {
		// Nothing more comes; the client sees end of file. An error here means
		// that the client has gone, which is all the same.
		_ = ready()
		conn.Close()
		return
	}
	go func() {
		defer s.writers.Done()
		c.drain()
	}()
	s.input(c)
	<-c.drained
	s.remove(c)
}

// input copies what the client sends, until it ends its direction or the
// connection closes.
func (s *stdio) input(c *client) {
	buf := make([]byte, 8<<10)
	for {
		n, err := c.conn.Read(buf)
		if n > 0 && c.opts.Stdin {
			if !s.writeStdin(buf[:n]) {
				// The process does not read any more: the client gets EPIPE.
				// Closed already: the client has gone.
				_ = c.conn.CloseRead()
				if hungUp(c.conn) {
					c.drop()
				}
				return
			}
		}
		if err == nil {
			continue
		}
		if c.opts.Stdin && s.stdinOnce {
			s.shutStdin()
		}
		if !errors.Is(err, io.EOF) {
			c.drop()
			return
		}
		// The client ended its input, or is gone altogether: only hang-up
		// tells, and a write would. Without output wanted there is nothing
		// left to do for it.
		if hungUp(c.conn) {
			c.drop()
		}
		return
	}
}

// hungUp waits until the peer has closed its end completely, or our end was
// closed. It is false when our end was closed.
func hungUp(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	hup := false
	err = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		if _, err := unix.Poll(fds, 0); err != nil {
			return false
		}
		hup = fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		return hup
	})
	return err == nil && hup
}

func (s *stdio) remove(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = slices.DeleteFunc(slices.Clone(s.clients), func(x *client) bool { return x == c })
}

func (s *stdio) writeStdin(p []byte) bool {
	s.mu.Lock()
	f := s.in
	if s.terminal {
		f = s.master
	}
	shut := s.inShut || s.ended
	s.mu.Unlock()
	if f == nil {
		return true // stdin is not open: input is thrown away
	}
	if shut {
		return false
	}
	_, err := f.Write(p)
	return err == nil
}

// shutStdin ends standard input; a terminal has no such thing.
func (s *stdio) shutStdin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal || s.inShut {
		return
	}
	s.inShut = true
	if s.in != nil {
		s.in.Close()
	}
}

// resize sets the terminal's size, now or when there is one.
func (s *stdio) resize(size wire.Size) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.terminal || s.ended {
		return nil
	}
	s.size = size
	if s.master == nil {
		return nil
	}
	return setWinsize(s.master, size)
}

func setWinsize(f *os.File, size wire.Size) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
	})
	return errors.Join(err, ioctlErr)
}

// busy says whether clients have output waiting for them.
func (s *stdio) busy() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		s.writers.Wait()
		close(done)
	}()
	return done
}
