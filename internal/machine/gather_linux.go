package machine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Gather looks at this machine; dir is where containers are kept.
func Gather(dir string) Facts {
	f := Facts{OS: runtime.GOOS, Arch: runtime.GOARCH, Root: os.Geteuid() == 0, Filesystems: map[string]bool{}, Dir: dir}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		f.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	for line := range strings.Lines(read("/proc/filesystems")) {
		if w := strings.Fields(line); len(w) > 0 {
			f.Filesystems[w[len(w)-1]] = true
		}
	}
	f.cgroups()
	f.Overlay = tryOverlay()
	f.Nftables = tryNetfilter()
	_, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_GET_SECCOMP, 0, 0)
	f.Seccomp = errno == 0
	f.AppArmor = strings.HasPrefix(read("/sys/module/apparmor/parameters/enabled"), "Y")
	n, err := strconv.Atoi(strings.TrimSpace(read("/proc/sys/user/max_user_namespaces")))
	f.UserNS = err == nil && n > 0
	f.IDMapped = unix.MountSetattr(-1, "", 0, &unix.MountAttr{}) != unix.ENOSYS
	if fd, err := unix.PidfdOpen(os.Getpid(), 0); err == nil {
		f.Pidfd = true
		_ = unix.Close(fd) // only opened to see that it can be
	}
	if fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC}); err == nil {
		f.Openat2 = true
		_ = unix.Close(fd) // as above
	}
	f.SysResource = capable(unix.CAP_SYS_RESOURCE)
	f.Forwarding = strings.TrimSpace(read("/proc/sys/net/ipv4/ip_forward")) == "1"
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil {
		f.OpenFiles = l.Max
	}
	if n, err := strconv.Atoi(strings.TrimSpace(read("/proc/sys/fs/inotify/max_user_instances"))); err == nil {
		f.Inotify = n
	}
	f.disk()
	return f
}

func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "" // absent means what empty means
	}
	return string(b)
}

// disk measures the nearest folder that exists.
func (f *Facts) disk() {
	for dir := f.Dir; dir != ""; dir = filepath.Dir(dir) {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil {
			f.Free, f.Total = st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize)
			return
		}
		if dir == "/" {
			return
		}
	}
}

func (f *Facts) cgroups() {
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) != nil {
		return
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		f.Cgroups, f.Controllers = "v2", strings.Fields(read("/sys/fs/cgroup/cgroup.controllers"))
		return
	}
	entries, err := os.ReadDir("/sys/fs/cgroup")
	if err != nil {
		return
	}
	for _, e := range entries {
		dir := filepath.Join("/sys/fs/cgroup", e.Name())
		if unix.Statfs(dir, &st) != nil {
			continue
		}
		switch st.Type {
		case unix.CGROUP_SUPER_MAGIC:
			if f.Cgroups == "" {
				f.Cgroups = "v1"
			}
			f.Controllers = append(f.Controllers, strings.Split(e.Name(), ",")...)
		case unix.CGROUP2_SUPER_MAGIC:
			f.Cgroups = "hybrid"
		}
	}
}

// capable says whether the bounding set has a capability.
func capable(bit uint) bool {
	for line := range strings.Lines(read("/proc/self/status")) {
		if hex, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && set&(1<<bit) != 0
		}
	}
	return false
}

// tryOverlay mounts an overlay on a thread with a mount namespace of its own.
func tryOverlay() error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends, and the namespace with it
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			// Any folder that is everywhere; nobody else sees what is mounted there.
			const at = "/proc"
			if err := unix.Mount("none", at, "tmpfs", 0, ""); err != nil {
				return err
			}
			for _, d := range []string{"l", "u", "w", "m"} {
				if err := os.Mkdir(at+"/"+d, 0o755); err != nil {
					return err
				}
			}
			return unix.Mount("overlay", at+"/m", "overlay", 0, "lowerdir="+at+"/l,upperdir="+at+"/u,workdir="+at+"/w")
		}()
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("an overlay cannot be mounted: %w", err)
	}
	return nil
}

// tryNetfilter opens what nftables speaks over.
func tryNetfilter() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("netfilter cannot be reached: %w", err)
	}
	defer unix.Close(fd) // as above
	if bytes.Contains([]byte(read("/proc/net/protocols")), []byte("NETLINK")) {
		return nil
	}
	return errors.New("netlink is not there")
}
