package container

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func defaultMaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

func defaultReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// planSpecMounts lists Docker's default mounts and then the container's own,
// outer folders before inner ones. An own mount replaces the default at its place.
func planSpecMounts(in *specInput) []specs.Mount {
	own := slices.Concat(in.Volumes, tmpfsMounts(in.Host.Tmpfs))
	at := map[string]bool{}
	for _, m := range own {
		at[m.Destination] = true
	}
	for _, f := range in.Files {
		if !at[f.Destination] { // the user's own /etc/hosts wins
			own = append(own, f)
		}
	}
	if in.ServeInit != "" {
		own = append(own, specs.Mount{Destination: initInside, Type: "bind", Source: in.ServeInit, Options: []string{"bind", "ro", "rprivate"}})
	}
	var all []specs.Mount
	for _, m := range defaultMounts(in) {
		// A mount over /dev hides what is below it as well.
		if at[m.Destination] || at["/dev"] && strings.HasPrefix(m.Destination, "/dev/") {
			continue
		}
		all = append(all, m)
	}
	slices.SortStableFunc(own, func(a, b specs.Mount) int {
		return depth(a.Destination) - depth(b.Destination)
	})
	return append(all, own...)
}

func depth(p string) int { return strings.Count(path.Clean(p), "/") }

func tmpfsMounts(m map[string]string) []specs.Mount {
	var out []specs.Mount
	for dest, opts := range m {
		out = append(out, tmpfs(dest, strings.Split(opts, ",")))
	}
	slices.SortFunc(out, func(a, b specs.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	return out
}

func defaultMounts(in *specInput) []specs.Mount {
	priv := in.Host.Privileged
	sysMode, cgroupMode := "ro", "ro"
	if priv {
		sysMode, cgroupMode = "rw", "rw"
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sysMode}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{cgroupMode, "nosuid", "noexec", "nodev"}},
		mqueue(in),
	}
	if m, ok := shm(in); ok {
		mounts = append(mounts, m)
	}
	return mounts
}

// mqueue is the host's with the host's IPC namespace: a new one could not be mounted there.
func mqueue(in *specInput) specs.Mount {
	if in.Host.IpcMode.IsHost() {
		return specs.Mount{Destination: "/dev/mqueue", Type: "bind", Source: "/dev/mqueue", Options: []string{"rbind", "nosuid", "noexec", "nodev"}}
	}
	return specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}}
}

func shm(in *specInput) (specs.Mount, bool) {
	switch {
	case in.Host.IpcMode.IsNone():
		return specs.Mount{}, false
	case in.Host.IpcMode.IsHost():
		return specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "rprivate"}}, true
	case in.ShmPath != "":
		return specs.Mount{Destination: "/dev/shm", Type: "bind", Source: in.ShmPath, Options: []string{"rbind", "rprivate"}}, true
	}
	return specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: shmOptions(in.Host.ShmSize)}, true
}

func shmOptions(size int64) []string {
	return []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(size, 10)}
}
