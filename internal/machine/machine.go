// Package machine looks at what a machine offers to containers: kernel
// features, limits, space. `cleat doctor` prints it, the daemon reports it.
//
// Gather reads and tries things, and changes nothing that lasts; Judge turns
// the facts into checks and is pure. What is missing is reported with its
// remedy; whether it matters is the user's to say.
package machine

import "fmt"

// Status of a check.
type Status string

// The statuses: all is well, something is missing that some need, nothing works without it.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail"`
	// Remedy is what to do about it; "" when nothing is.
	Remedy string `json:"remedy,omitempty"`
}

// Report is everything, for people and scripts.
type Report struct {
	Checks []Check `json:"checks"`
}

// Facts are what Gather found.
type Facts struct {
	OS, Kernel, Arch string
	Root             bool // we are root
	// Cgroups is "v1", "v2", "hybrid" or "".
	Cgroups     string
	Controllers []string
	Filesystems map[string]bool // that the kernel knows
	Overlay     error           // of a trial mount; nil if it works
	Nftables    error
	Seccomp     bool
	UserNS      bool
	IDMapped    bool
	Pidfd       bool
	Openat2     bool
	AppArmor    bool
	SysResource bool
	Forwarding  bool
	BridgeNF    bool
	OpenFiles   uint64 // hard limit
	Inotify     int    // instances per user
	// Free and Total are bytes of the disk of Dir.
	Dir         string
	Free, Total uint64
}

// Judge says what the facts mean. It is pure.
func Judge(f Facts) Report {
	if f.OS != "linux" {
		return Report{Checks: []Check{{"system", Warn, f.OS + " runs the client only", "point it at a Linux machine: cleat context create"}}}
	}
	var r Report
	add := func(name string, good bool, otherwise Status, detail, remedy string) {
		c := Check{Name: name, Status: OK, Detail: detail}
		if !good {
			c.Status, c.Remedy = otherwise, remedy
		}
		r.Checks = append(r.Checks, c)
	}
	add("kernel", newEnough(f.Kernel, 5, 15), Fail, "Linux "+f.Kernel+", "+f.Arch, "use Linux 5.15 or later")
	add("privileges", f.Root, Fail, sayYes(f.Root, "root", "not root"), "run cleatd as root")
	add("cgroups", f.Cgroups != "", Fail, fmt.Sprintf("%s, controllers %v", orNone(f.Cgroups), f.Controllers), "mount the cgroup2 file system on /sys/fs/cgroup")
	for _, c := range []string{"memory", "pids", "cpu"} {
		add("cgroup "+c, has(f.Controllers, c), Warn, sayYes(has(f.Controllers, c), "limits work", "limits have no effect"), "enable the controller "+c+" (boot options cgroup_enable=memory swapaccount=1)")
	}
	add("overlayfs", f.Overlay == nil, Warn, sayError(f.Overlay, "layers are shared without copies"), "load the module overlay, or keep the root on ext4 or xfs; until then images are copied (snapshotter native)")
	add("btrfs", f.Filesystems["btrfs"], OK, sayYes(f.Filesystems["btrfs"], "known to the kernel", "not in this kernel; not needed"), "")
	add("nftables", f.Nftables == nil, Fail, sayError(f.Nftables, "packet rules work"), "load the module nf_tables")
	add("forwarding", f.Forwarding, Warn, sayYes(f.Forwarding, "IPv4 is forwarded", "containers reach only this host"), "sysctl -w net.ipv4.ip_forward=1 (cleatd does it when it may)")
	add("seccomp", f.Seccomp, Warn, sayYes(f.Seccomp, "system calls are filtered", "containers may make any system call"), "use a kernel with CONFIG_SECCOMP_FILTER")
	add("apparmor", true, OK, sayYes(f.AppArmor, "there", "not in this kernel; not needed"), "")
	add("user namespaces", f.UserNS, Warn, sayYes(f.UserNS, "there", "off"), "sysctl -w user.max_user_namespaces=15000")
	add("idmapped mounts", f.IDMapped, Warn, sayYes(f.IDMapped, "there", "not in this kernel"), "use Linux 5.12 or later")
	add("pidfd", f.Pidfd, Fail, sayYes(f.Pidfd, "there", "not in this kernel"), "use Linux 5.3 or later")
	add("openat2", f.Openat2, Fail, sayYes(f.Openat2, "paths of containers are contained", "not in this kernel"), "use Linux 5.6 or later")
	add("resource limits", f.SysResource, Warn, sayYes(f.SysResource, "can be raised", fmt.Sprintf("cannot be raised: CAP_SYS_RESOURCE is missing; at most %d open files", f.OpenFiles)), "give cleatd CAP_SYS_RESOURCE; until then higher --ulimit values are cut")
	add("inotify", f.Inotify >= 128, Warn, fmt.Sprintf("%d instances", f.Inotify), "sysctl -w fs.inotify.max_user_instances=1024")
	if f.Total > 0 {
		free := f.Free * 100 / f.Total
		add("disk", free >= 10, Warn, fmt.Sprintf("%d %% of %d GB free in %s", free, f.Total/1e9, f.Dir), "cleat system prune, or a larger disk")
	}
	return r
}

func has(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func sayYes(ok bool, yes, no string) string {
	if ok {
		return yes
	}
	return no
}

func sayError(err error, good string) string {
	if err != nil {
		return err.Error()
	}
	return good
}

// newEnough compares a release such as "6.1.0-18-amd64". What cannot be read passes.
func newEnough(release string, major, minor int) bool {
	var a, b int
	if n, err := fmt.Sscanf(release, "%d.%d", &a, &b); n < 2 || err != nil {
		return true
	}
	return a > major || a == major && b >= minor
}
