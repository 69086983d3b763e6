// Package reaper is the process 1 of containers that ask for one (--init): it
// runs the container's command as its child, passes signals on, and reaps
// whatever is orphaned inside. cleat-shim becomes it when called by its name.
//
// It exits as its child did: the same code, or 128+n after signal n.
package reaper

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Name is what the program is called inside a container.
const Name = "docker-init"

// Run runs args as the child and returns the exit code for the process. A
// leading "--" is skipped.
func Run(args []string) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, Name+": no command")
		return 127
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", Name, err)
		if errors.Is(err, os.ErrPermission) {
			return 126
		}
		return 127
	}
	// Subscribed before the child exists, so that no signal is lost.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	child, err := os.StartProcess(path, args, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   childAttributes(),
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", Name, err)
		return 126
	}
	for sig := range signals {
		switch s := sig.(syscall.Signal); s {
		case unix.SIGCHLD:
			if code, ended := reap(child.Pid); ended {
				return code
			}
		case unix.SIGURG, unix.SIGPIPE:
			// The first is the Go scheduler's own; the second concerns only us.
		default:
			// The child may be gone already; then its SIGCHLD is on its way.
			_ = unix.Kill(child.Pid, s)
		}
	}
	return 0
}

// childAttributes gives the child a process group of its own and, on a
// terminal, the foreground, so that ctrl-c reaches it once.
func childAttributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		attr = &syscall.SysProcAttr{Foreground: true, Ctty: 0}
	}
	return attr
}

// reap collects every process that has ended and says whether main was one.
func reap(main int) (code int, ended bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid == main {
			ended = true
			code = status.ExitStatus()
			if status.Signaled() {
				code = 128 + int(status.Signal())
			}
		}
	}
}
