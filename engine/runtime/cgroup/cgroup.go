// Package cgroup finds, empties and removes the control groups of a container
// in every hierarchy of the machine: v1, hybrid or v2.
//
// The shim uses it when a container ends, the daemon when a shim died. It
// does not set limits; that is opencontainers/cgroups.
package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mountpoint of the cgroup file systems.
const Mountpoint = "/sys/fs/cgroup"

// Hierarchies lists the roots of the hierarchies that are mounted: one on v2,
// one per controller on v1, and the unified one too on hybrid machines.
func Hierarchies() ([]string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(Mountpoint, &st); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: Mountpoint, Err: err}
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{Mountpoint}, nil
	}
	entries, err := os.ReadDir(Mountpoint)
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, e := range entries {
		// cpu and cpuacct may be symbolic links to the joint hierarchy, which
		// is listed itself.
		if !e.IsDir() {
			continue
		}
		dir := filepath.Join(Mountpoint, e.Name())
		if unix.Statfs(dir, &st) == nil && (st.Type == unix.CGROUP_SUPER_MAGIC || st.Type == unix.CGROUP2_SUPER_MAGIC) {
			roots = append(roots, dir)
		}
	}
	return roots, nil
}

// Dirs are the folders of one control group, one per hierarchy.
type Dirs []string

// Find gives the folders of the control group path (absolute within the
// hierarchies), existing or not.
func Find(path string) (Dirs, error) {
	roots, err := Hierarchies()
	if err != nil {
		return nil, err
	}
	return join(roots, path), nil
}

func join(roots []string, path string) Dirs {
	clean := filepath.Clean("/" + path)
	if clean == "/" {
		return nil // never the roots themselves
	}
	dirs := make(Dirs, len(roots))
	for i, r := range roots {
		dirs[i] = filepath.Join(r, clean)
	}
	return dirs
}

// Pids lists the processes in the group and the groups below it.
func (d Dirs) Pids() ([]int, error) {
	seen := make(map[int]bool)
	var pids []int
	for _, dir := range d {
		if err := walk(dir, func(sub string) error {
			data, err := os.ReadFile(filepath.Join(sub, "cgroup.procs"))
			if err != nil {
				if gone(err) {
					return nil
				}
				return err
			}
			for line := range bytes.Lines(data) {
				pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
				// 0 stands for a process of a PID namespace that we cannot see.
				if err == nil && pid > 0 && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return pids, nil
}

// killRounds bounds Kill: each round kills all that it sees, and a group that
// still has processes after so many is reported.
const killRounds = 100

// Kill sends SIGKILL to every process of the group until none is left, and
// waits for their ends. Frozen groups are thawed, for on v1 a frozen process
// does not die.
func (d Dirs) Kill() error {
	for range killRounds {
		for _, dir := range d {
			// On v2 this alone does it; elsewhere the file does not exist.
			writeFile(filepath.Join(dir, "cgroup.kill"), "1")
		}
		pids, err := d.Pids()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		fds := signal(pids)
		for _, dir := range d {
			writeFile(filepath.Join(dir, "freezer.state"), "THAWED")
			writeFile(filepath.Join(dir, "cgroup.freeze"), "0")
		}
		await(fds, 5*time.Second)
	}
	return fmt.Errorf("processes of control group %s do not end", d[0])
}

// signal kills each process and returns descriptors that become readable at
// their ends.
func signal(pids []int) []unix.PollFd {
	var fds []unix.PollFd
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it ended by itself
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		// The only failure possible here is that it has just ended.
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	return fds
}

// await waits until all of fds are readable, at most d, and closes them.
func await(fds []unix.PollFd, d time.Duration) {
	deadline := time.Now().Add(d)
	for i := range fds {
		for {
			left := time.Until(deadline)
			if left <= 0 {
				break
			}
			_, err := unix.Poll(fds[i:i+1], int(left.Milliseconds())+1)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		unix.Close(int(fds[i].Fd))
	}
}

// Remove removes the group and those below it. Its processes must have ended;
// the kernel may need a moment to forget them.
func (d Dirs) Remove() error {
	var errs []error
	for _, dir := range d {
		if err := removeTree(dir); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// OOMKills counts the processes of the group that the kernel has killed for
// memory. It is 0 when there is no memory controller, or no group any more.
func (d Dirs) OOMKills() uint64 {
	for _, dir := range d {
		for _, name := range []string{"memory.events", "memory.oom_control"} {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				continue
			}
			if n, ok := field(string(data), "oom_kill"); ok {
				return n
			}
		}
	}
	return 0
}

// field finds the number of a line "key number".
func field(data, key string) (uint64, bool) {
	for line := range strings.Lines(data) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		if k == key {
			n, err := strconv.ParseUint(v, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// Exists says whether the group is left in any hierarchy.
func (d Dirs) Exists() bool {
	for _, dir := range d {
		if _, err := os.Lstat(dir); err == nil {
			return true
		}
	}
	return false
}

func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	subs, rerr := subdirs(dir)
	if rerr != nil {
		if gone(rerr) {
			return nil
		}
		return rerr
	}
	for _, s := range subs {
		if err := removeTree(s); err != nil {
			return err
		}
	}
	return rmdirRetry(dir)
}

// rmdirRetry waits for the kernel, which answers EBUSY for some microseconds
// after the last process was reaped.
func rmdirRetry(dir string) error {
	delay := 50 * time.Microsecond
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EINTR) || delay > 500*time.Millisecond {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		time.Sleep(delay)
		delay *= 2
	}
}

// walk calls f for dir and all below it. A dir that is gone is skipped.
func walk(dir string, f func(string) error) error {
	if err := f(dir); err != nil {
		return err
	}
	subs, err := subdirs(dir)
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	for _, s := range subs {
		if err := walk(s, f); err != nil {
			return err
		}
	}
	return nil
}

func subdirs(dir string) ([]string, error) {
	// A group's link count is 2 plus its sub-groups: most have none, and
	// listing the hundred files of a group is slow.
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	if st.Nlink == 2 {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var subs []string
	for _, e := range entries {
		if e.IsDir() {
			subs = append(subs, filepath.Join(dir, e.Name()))
		}
	}
	return subs, nil
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// writeFile writes to a control file that may be absent, which is how
// versions are told apart.
func writeFile(path, value string) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	// The version that lacks the meaning of the value lacks the file.
	_, _ = unix.Write(fd, []byte(value))
	unix.Close(fd)
}

// Warm prepares the kernel for processes entering control groups: the first
// entry after a quiet time waits for an RCU grace period, some 8 ms, and those
// in the milliseconds after do not. Called when a container is about to be
// made, it lets that wait pass beside other work. It changes nothing: it puts
// the calling process into the group where it is. Failures are of no matter.
func Warm() {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	pid := strconv.AppendInt(nil, int64(os.Getpid()), 10)
	for line := range strings.Lines(string(data)) {
		fd, err := unix.Open(procsFile(strings.TrimSpace(line)), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		_, err = unix.Write(fd, pid)
		unix.Close(fd)
		if err == nil {
			return
		}
	}
}

// procsFile is the list of processes of a group, from a line of
// /proc/PID/cgroup.
func procsFile(line string) string {
	_, rest, _ := strings.Cut(line, ":")
	controllers, path, _ := strings.Cut(rest, ":")
	return filepath.Join(Mountpoint, strings.TrimPrefix(controllers, "name="), path, "cgroup.procs")
}
