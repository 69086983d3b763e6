package runtime_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/engine/runtime"
)

// dockerLike makes r what the engine asks for by default: Docker's mounts,
// capabilities, masked paths, limits and seccomp profile.
func dockerLike(t testing.TB, r *runtime.CreateRequest) {
	t.Helper()
	s := r.Spec
	caps := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	s.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
	}
	s.Linux.MaskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	s.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	profile, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		t.Fatal(err)
	}
	s.Linux.Seccomp = profile
}

// BenchmarkRun is Create, Start, Wait and Delete of /bin/true as the engine
// runs it by default, and how its time is divided.
func BenchmarkRun(b *testing.B) {
	h := newHost(b)
	spent := map[string][]time.Duration{}
	for b.Loop() {
		r := h.request("true")
		dockerLike(b, &r)
		if err := os.MkdirAll(r.Log.Dir, 0o755); err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		last := begin
		step := func(name string, err error) {
			b.Helper()
			if err != nil {
				b.Fatal(name, err)
			}
			now := time.Now()
			spent[name] = append(spent[name], now.Sub(last))
			last = now
		}
		task, err := h.Create(b.Context(), r)
		step("create", err)
		step("start", task.Start(b.Context()))
		_, err = task.Wait(b.Context())
		step("wait", err)
		step("delete", task.Delete(b.Context()))
		spent["all"] = append(spent["all"], time.Since(begin))
	}
	// Medians: other work on the machine shows in the mean.
	for name, d := range spent {
		slices.Sort(d)
		b.ReportMetric(float64(d[len(d)/2].Microseconds())/1000, "ms-"+name)
	}
	b.ReportMetric(float64(spent["all"][len(spent["all"])/10].Microseconds())/1000, "ms-best-tenth")
}
