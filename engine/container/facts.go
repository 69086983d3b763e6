package container

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Facts are what planning needs to know of the machine.
type Facts struct {
	Cgroup2 bool
	// Controllers are the cgroup controllers that can be used.
	Controllers map[string]bool
	// Seccomp and AppArmor say that the kernel has them.
	Seccomp, AppArmor bool
	// SwapLimit says that swap can be limited.
	SwapLimit bool
	// RecursiveReadOnly says that the kernel has mount_setattr (5.12).
	RecursiveReadOnly bool
	// CanRaiseLimits is CAP_SYS_RESOURCE. Without it, Limits are the highest
	// hard limits that can be given and OOMScoreAdj the lowest adjustment.
	CanRaiseLimits bool
	Limits         map[string]uint64
	OOMScoreAdj    int
	// Capabilities are the daemon's own: no container can have more.
	Capabilities []string
	CPUs         int
	MemoryTotal  uint64
}

func probeFacts() *Facts {
	f := &Facts{Controllers: map[string]bool{}, CPUs: countCPUs(), MemoryTotal: memTotal()}
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		f.Cgroup2 = true
	}
	f.controllers()
	_, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_GET_SECCOMP, 0, 0)
	f.Seccomp = errno == 0
	if b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil && bytes.HasPrefix(b, []byte("Y")) {
		_, err := os.Stat("/sys/kernel/security/apparmor")
		f.AppArmor = err == nil
	}
	err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{})
	f.RecursiveReadOnly = err != unix.ENOSYS
	f.capabilities()
	f.Limits = map[string]uint64{}
	for name, res := range rlimitNumbers() {
		var l unix.Rlimit
		if unix.Getrlimit(res, &l) == nil {
			f.Limits[name] = l.Max
		}
	}
	if b, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		f.OOMScoreAdj, _ = strconv.Atoi(strings.TrimSpace(string(b))) // the kernel writes a number
	}
	return f
}

func (f *Facts) controllers() {
	if f.Cgroup2 {
		b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
		if err == nil {
			for _, c := range strings.Fields(string(b)) {
				f.Controllers[c] = true
			}
		}
		f.Controllers["devices"], f.Controllers["freezer"] = true, true
		f.SwapLimit = f.Controllers["memory"]
		return
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) < 3 || parts[0] == "0" {
			continue
		}
		for _, c := range strings.Split(parts[1], ",") {
			if _, err := os.Stat("/sys/fs/cgroup/" + c); err == nil {
				f.Controllers[c] = true
			}
		}
	}
	_, err = os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	f.SwapLimit = err == nil
}

func (f *Facts) capabilities() {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		if hex, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			if err != nil {
				return
			}
			for i, name := range capabilityNames() {
				if bits&(1<<i) != 0 {
					f.Capabilities = append(f.Capabilities, name)
				}
			}
			f.CanRaiseLimits = bits&(1<<unix.CAP_SYS_RESOURCE) != 0
		}
	}
}

// capabilityNames are in the order of the kernel's numbers.
func capabilityNames() []string {
	return strings.Fields(`CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID
		CAP_SETUID CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW
		CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN
		CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE
		CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND
		CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE`)
}

// rlimitNumbers are by the name that `--ulimit` takes.
func rlimitNumbers() map[string]int {
	return map[string]int{
		"core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE,
		"locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE,
		"nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS,
		"rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING,
		"stack": unix.RLIMIT_STACK,
	}
}

// countCPUs counts the processors that are online, as the kernel numbers them.
func countCPUs() int {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 1
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "cpu") && len(line) > 3 && line[3] >= '0' && line[3] <= '9' {
			n++
		}
	}
	return max(n, 1)
}

func memTotal() uint64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		if f := strings.Fields(sc.Text()); len(f) >= 2 && f[0] == "MemTotal:" {
			kb, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil {
				return 0
			}
			return kb * 1024
		}
	}
	return 0
}
