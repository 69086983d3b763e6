package platform

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	readyEnv  = "CLEATD_READY_FD"
	logName   = "cleatd.log"
	logLimit  = 10 << 20
	readyWord = "ready"
)

// detach starts this program again in a session of its own, with its log in
// root/cleatd.log, and returns when the daemon is ready to serve. When it
// cannot start, the error is the daemon's own.
func detach(root string, args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o711); err != nil {
		return err
	}
	log, err := openLog(filepath.Join(root, logName))
	if err != nil {
		return err
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(exe, args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(os.Environ(), readyEnv+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	said, err := io.ReadAll(bufio.NewReader(r))
	if err != nil {
		return err
	}
	word := strings.TrimSpace(string(said))
	if word == readyWord {
		return cmd.Process.Release()
	}
	if werr := cmd.Wait(); word == "" {
		return fmt.Errorf("the daemon ended before it was ready (%w); its log is %s", werr, log.Name())
	}
	return errors.New(word)
}

// openLog appends to the daemon's log; one that grew past the limit is set
// aside first, so that at most two of them are kept.
func openLog(path string) (*os.File, error) {
	if st, err := os.Stat(path); err == nil && st.Size() > logLimit {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
}

// readiness tells whoever started the daemon how the start went: the parent of
// --detach by pipe, systemd by its notification socket (sd_notify(3)).
type readiness struct {
	pipe   *os.File
	socket string
}

func newReadiness() *readiness {
	r := &readiness{socket: os.Getenv("NOTIFY_SOCKET")}
	if os.Getenv(readyEnv) == "3" {
		syscall.CloseOnExec(3)
		r.pipe = os.NewFile(3, "ready")
	}
	os.Unsetenv(readyEnv)
	return r
}

func (r *readiness) tell(startErr error) error {
	word := readyWord
	if startErr != nil {
		word = startErr.Error()
	}
	var errs []error
	if r.pipe != nil {
		_, err := fmt.Fprintln(r.pipe, word)
		errs = append(errs, err, r.pipe.Close())
	}
	if r.socket != "" && startErr == nil {
		c, err := net.Dial("unixgram", r.socket)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		_, err = c.Write([]byte("READY=1"))
		errs = append(errs, err, c.Close())
	}
	return errors.Join(errs...)
}
