package shim

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/engine/runtime/cgroup"
)

const (
	// bootFD is the connection to the daemon that a shim is started with.
	bootFD = 3
	// settle is when a shim that got its container gives memory back.
	settle = time.Second
	// lingering bounds how long a shim stays for clients that do not read.
	lingering = 10 * time.Second
)

// Main is the shim program, once it is known not to be a stage of a
// container's start. It returns the exit code.
func Main() int {
	conn, err := bootConn()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cleat-shim is started by cleatd:", err)
		return 1
	}
	// Orphans of the container come to us, which makes every one killable and
	// countable.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "cleat-shim:", err)
		return 1
	}
	pinCgroupRoot()
	runtime.GOMAXPROCS(2)
	w := new(warnings)
	logrus.SetOutput(w)
	logrus.SetLevel(logrus.WarnLevel)
	logrus.SetFormatter(plain{})

	m := newMemory()
	m.hurry()
	s := newServer(newReaper(), w, m)
	go s.boot(conn)
	rehearse()
	<-s.over
	s.linger(lingering)
	return 0
}

// pinCgroupRoot has the cgroups library open its handle of the root now, in the
// host's mount namespace. Opened in a container's, as it would be otherwise,
// the handle loses the hierarchies when that namespace ends.
func pinCgroupRoot() {
	f, err := cgroups.OpenFile(cgroup.Mountpoint, "cgroup.procs", os.O_RDONLY)
	if err == nil { // on v1 there is no such file; the handle is open all the same
		f.Close()
	}
}

// memory decides when garbage is collected: never while a container is being
// started, so that short-lived ones do not pay for it, and thoroughly once
// the shim has settled down to wait.
type memory struct{ timer *time.Timer }

func newMemory() *memory {
	m := &memory{timer: time.AfterFunc(settle, func() {
		debug.SetGCPercent(25)
		debug.FreeOSMemory()
	})}
	return m
}

// hurry puts collections off.
func (m *memory) hurry() {
	debug.SetGCPercent(-1)
	m.timer.Reset(settle)
}

func bootConn() (*net.UnixConn, error) {
	unix.CloseOnExec(bootFD)
	f := os.NewFile(bootFD, "boot")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("descriptor %d is no unix socket", bootFD)
	}
	return conn, nil
}

// warnings collects what libcontainer logs, for the daemon's log.
type warnings struct {
	mu   sync.Mutex
	list []string
}

func (w *warnings) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) < 16 {
		w.list = append(w.list, strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.list
	w.list = nil
	return list
}

// plain formats a log entry as its message.
type plain struct{}

func (plain) Format(e *logrus.Entry) ([]byte, error) { return []byte(e.Message), nil }
