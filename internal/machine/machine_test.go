package machine

import (
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"testing"
)

// good is a machine on which everything works.
func good() Facts {
	return Facts{
		OS: "linux", Kernel: "6.1.0-18-amd64", Arch: "amd64", Root: true, Cgroups: "v2", Controllers: []string{"memory", "pids", "cpu", "cpuset"},
		Filesystems: map[string]bool{"overlay": true, "btrfs": true}, Seccomp: true, UserNS: true, IDMapped: true, Pidfd: true, Openat2: true,
		AppArmor: true, SysResource: true, Forwarding: true, OpenFiles: 1 << 20, Inotify: 1024, Dir: "/var/lib/cleat", Free: 60e9, Total: 100e9,
	}
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Facts)
		check  string
		want   Status
	}{
		"all well":            {func(*Facts) {}, "", OK},
		"old kernel":          {func(f *Facts) { f.Kernel = "5.4.0" }, "kernel", Fail},
		"kernel 5.15":         {func(f *Facts) { f.Kernel = "5.15.0-91-generic" }, "kernel", OK},
		"kernel unread":       {func(f *Facts) { f.Kernel = "strange" }, "kernel", OK},
		"not root":            {func(f *Facts) { f.Root = false }, "privileges", Fail},
		"no cgroups":          {func(f *Facts) { f.Cgroups = "" }, "cgroups", Fail},
		"no pids":             {func(f *Facts) { f.Controllers = []string{"memory", "cpu"} }, "cgroup pids", Warn},
		"no overlay":          {func(f *Facts) { f.Overlay = errors.New("no such device") }, "overlayfs", Warn},
		"no btrfs":            {func(f *Facts) { f.Filesystems = nil }, "btrfs", OK},
		"no nftables":         {func(f *Facts) { f.Nftables = errors.New("no") }, "nftables", Fail},
		"no forwarding":       {func(f *Facts) { f.Forwarding = false }, "forwarding", Warn},
		"no seccomp":          {func(f *Facts) { f.Seccomp = false }, "seccomp", Warn},
		"no AppArmor":         {func(f *Facts) { f.AppArmor = false }, "apparmor", OK},
		"no user namespaces":  {func(f *Facts) { f.UserNS = false }, "user namespaces", Warn},
		"no openat2":          {func(f *Facts) { f.Openat2 = false }, "openat2", Fail},
		"no CAP_SYS_RESOURCE": {func(f *Facts) { f.SysResource = false }, "resource limits", Warn},
		"few instances":       {func(f *Facts) { f.Inotify = 8 }, "inotify", Warn},
		"disk nearly full":    {func(f *Facts) { f.Free = 9e9 }, "disk", Warn},
		"disk unknown":        {func(f *Facts) { f.Total = 0 }, "", OK},
		"a client":            {func(f *Facts) { f.OS = "darwin" }, "system", Warn},
	} {
		t.Run(name, func(t *testing.T) {
			f := good()
			c.change(&f)
			found := c.check == ""
			for _, ch := range Judge(f).Checks {
				want := OK
				if ch.Name == c.check {
					want, found = c.want, true
				}
				if ch.Status != want {
					t.Errorf("%+v, want %s", ch, want)
				}
				if ch.Detail == "" || (ch.Status == OK) != (ch.Remedy == "") {
					t.Errorf("%+v: a detail always, a remedy when it is needed", ch)
				}
			}
			if !found {
				t.Errorf("no check %q", c.check)
			}
			if _, err := json.Marshal(Judge(f)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestGather(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only what Gather does on Linux is more than constants")
	}
	f := Gather(t.TempDir() + "/not/yet")
	if f.OS != "linux" || f.Kernel == "" || f.Total == 0 || f.Inotify == 0 || !f.Pidfd || !f.Openat2 || f.Root != (os.Geteuid() == 0) {
		t.Errorf("%+v", f)
	}
	for _, c := range Judge(f).Checks {
		t.Logf("%-4s %-20s %s %s", c.Status, c.Name, c.Detail, c.Remedy)
	}
}
