package shim

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

// server answers the daemon. It starts with the boot connection, over which
// the one container is created; from then on it listens on the socket in the
// run folder too.
type server struct {
	reap     *reaper
	warnings *warnings
	memory   *memory

	mu  sync.Mutex
	ct  *container
	lis *net.UnixListener

	// over is closed when the container was deleted, or will never be.
	over     chan struct{}
	overOnce sync.Once
}

func newServer(reap *reaper, w *warnings, m *memory) *server {
	return &server{reap: reap, warnings: w, memory: m, over: make(chan struct{})}
}

// boot serves the first connection. When it ends before a container was
// created, nobody knows of this shim: it ends.
func (s *server) boot(conn *net.UnixConn) {
	s.serve(conn)
	if s.container() == nil {
		s.finish()
	}
}

func (s *server) finish() { s.overOnce.Do(func() { close(s.over) }) }

func (s *server) container() *container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ct
}

// listen accepts further connections until the listener is closed.
func (s *server) listen(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		if ok, err := wire.PeerAllowed(conn); !ok || err != nil {
			conn.Close()
			continue
		}
		go s.serve(conn)
	}
}

// serve reads requests until the connection ends. Each is answered by a
// goroutine of its own, for some wait long.
func (s *server) serve(conn *net.UnixConn) {
	var writeMu sync.Mutex
	answer := func(seq uint64, body any, err error) error {
		r := wire.Response{Seq: seq, Error: wire.FromError(err)}
		if err == nil && body != nil {
			data, merr := json.Marshal(body)
			if merr != nil {
				r.Error = wire.FromError(merr)
			}
			r.Body = data
		}
		writeMu.Lock()
		defer writeMu.Unlock()
		return wire.WriteFrame(conn, &r)
	}
	for {
		var req wire.Request
		if err := wire.ReadFrame(conn, &req); err != nil {
			conn.Close()
			return
		}
		switch req.Op {
		case wire.OpAttach:
			s.attach(conn, &req, answer)
			return
		case wire.OpCreate:
			// In order: a boot connection that ends must find it done.
			body, err := s.create(&req)
			if answer(req.Seq, body, err) != nil && err == nil {
				// The daemon died before it heard of the container, which its
				// next life would find half-made: undo it.
				s.undo()
			}
		case wire.OpDelete:
			go func() {
				err := s.delete()
				// A daemon that is gone repeats the request to a shim that is gone.
				_ = answer(req.Seq, nil, err)
				if err == nil {
					s.finish()
				}
			}()
		default:
			go func() {
				body, err := s.handle(&req)
				// A daemon that is gone asks again when it is back.
				_ = answer(req.Seq, body, err)
			}()
		}
	}
}

func (s *server) create(r *wire.Request) (*wire.Created, error) {
	var req wire.Create
	if err := json.Unmarshal(r.Body, &req); err != nil {
		return nil, wire.Errorf(wire.Invalid, "create: %v", err)
	}
	s.memory.hurry()
	if s.container() != nil {
		return nil, wire.Errorf(wire.Conflict, "this shim has a container already")
	}
	l, err := wire.Listen(req.Dir)
	if err != nil {
		return nil, err
	}
	s.crashFile(req.Dir)
	ct, created, err := createContainer(&req, s.reap, s.warnings.take)
	if err != nil {
		l.Close()
		return nil, err
	}
	s.mu.Lock()
	s.ct, s.lis = ct, l
	s.mu.Unlock()
	go s.listen(l)
	if req.Runtime != "" || !privatePids(req.Spec) {
		go s.reap.watch(s.over)
	}
	return created, nil
}

// crashFile keeps the stack of a panic, which has no other place to go.
func (s *server) crashFile(dir string) {
	f, err := os.OpenFile(filepath.Join(dir, wire.CrashFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return // without it, a crash is only seen, not explained
	}
	// Fails only when f cannot be duplicated.
	_ = debug.SetCrashOutput(f, debug.CrashOptions{})
	f.Close()
}

// undo removes a container that nobody knows of.
func (s *server) undo() {
	ct := s.container()
	if ct == nil {
		return
	}
	if s.delete() == nil {
		// What stays is found by the daemon's next life.
		_ = os.RemoveAll(ct.req.Dir)
	}
	s.finish()
}

func (s *server) delete() error {
	ct := s.container()
	if ct == nil {
		return nil
	}
	if err := ct.delete(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lis.Close()
	return nil
}

func (s *server) attach(conn *net.UnixConn, req *wire.Request, answer func(uint64, any, error) error) {
	var opts wire.Attach
	p, err := (*process)(nil), error(nil)
	if err = json.Unmarshal(req.Body, &opts); err == nil {
		p, err = s.process(opts.Exec)
	}
	if err != nil {
		// Whether the client hears it or has gone, the connection ends.
		_ = answer(req.Seq, nil, err)
		conn.Close()
		return
	}
	p.io.attach(conn, opts, func() error { return answer(req.Seq, nil, nil) })
}

func (s *server) process(exec string) (*process, error) {
	ct := s.container()
	if ct == nil {
		return nil, errNoContainer()
	}
	return ct.find(exec)
}

func errNoContainer() error { return wire.Errorf(wire.Conflict, "this shim has no container") }

// handle serves what concerns the container or a process of it.
func (s *server) handle(r *wire.Request) (any, error) {
	ct := s.container()
	if ct == nil {
		return nil, errNoContainer()
	}
	switch r.Op {
	case wire.OpHello:
		st := ct.init.state()
		return wire.Hello{Version: wire.Version, ID: ct.req.ID, ShimPid: unix.Getpid(),
			InitPid: ct.init.child.pid, Started: st.Started}, nil
	case wire.OpStart:
		return with(r, func(q *wire.Proc) (*wire.Started, error) { return ct.start(q.Exec) })
	case wire.OpWait:
		return with(r, func(q *wire.Proc) (*wire.Exit, error) {
			p, err := ct.find(q.Exec)
			if err != nil {
				return nil, err
			}
			<-p.done
			return p.state().Exit, nil
		})
	case wire.OpProcess:
		return with(r, func(q *wire.Proc) (*wire.ProcState, error) {
			p, err := ct.find(q.Exec)
			if err != nil {
				return nil, err
			}
			st := p.state()
			return &st, nil
		})
	case wire.OpSignal:
		return with(r, func(q *wire.Signal) (*struct{}, error) { return nil, ct.signal(q) })
	case wire.OpResize:
		return with(r, func(q *wire.Resize) (*struct{}, error) {
			p, err := ct.find(q.Exec)
			if err != nil {
				return nil, err
			}
			return nil, p.io.resize(q.Size)
		})
	case wire.OpExec:
		return with(r, func(q *wire.Exec) (*struct{}, error) { return nil, ct.exec(q) })
	case wire.OpPause:
		return nil, ct.freeze(true)
	case wire.OpResume:
		return nil, ct.freeze(false)
	case wire.OpUpdate:
		return with(r, func(q *specs.LinuxResources) (*struct{}, error) { return nil, ct.update(q) })
	default:
		return nil, wire.Errorf(wire.NotImplemented, "this shim does not know %q", r.Op)
	}
}

// with decodes the body of a request for f.
func with[In, Out any](r *wire.Request, f func(*In) (*Out, error)) (any, error) {
	in := new(In)
	if err := json.Unmarshal(r.Body, in); err != nil {
		return nil, wire.Errorf(wire.Invalid, "%s: %v", r.Op, err)
	}
	out, err := f(in)
	if err != nil || out == nil {
		return nil, err
	}
	return out, nil
}

// linger waits for clients that still read the last output, until none does
// or the time has passed.
func (s *server) linger(d time.Duration) {
	ct := s.container()
	if ct == nil {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ct.drained():
	case <-t.C:
	}
}
