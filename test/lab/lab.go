// Package lab is where tests of the whole product happen: network and mount
// namespaces of their own, and daemons in them with roots of their own.
// test/e2e, test/robustness and test/bench are its users.
//
// Nothing on the machine outside is touched, and what a daemon made ends with
// the test that started it.
package lab

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const insideEnv = "CLEAT_LAB_INSIDE"

// Enter runs the calling program again inside namespaces of its own, or, when
// it is inside already, prepares them and calls run. It returns the exit code.
// Test binaries call it from TestMain.
func Enter(run func() int) int {
	if os.Getenv(insideEnv) == "" {
		return enter()
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

func enter() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests run real containers and need root: use `make test`")
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState != nil {
			return cmd.ProcessState.ExitCode()
		}
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// prepare brings the loopback up and makes the mount tree private to us, but
// shared within, as a machine's is.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make / shared: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return netlink.LinkSetUp(lo)
}
