package shim

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

func TestDegrade(t *testing.T) {
	adj := func(n int) *int { return &n }
	poor := privileges{hard: func(int) (uint64, error) { return 1000, nil }, oomScoreAdj: 10}
	p := specs.Process{
		OOMScoreAdj: adj(-5),
		Rlimits: []specs.POSIXRlimit{
			{Type: "RLIMIT_NOFILE", Soft: 2000, Hard: 3000}, {Type: "RLIMIT_NPROC", Soft: 5, Hard: 1000},
			{Type: "RLIMIT_CORE", Soft: 7, Hard: 5000}, {Type: "RLIMIT_BOGUS", Soft: 1, Hard: 1 << 40},
		},
	}
	warnings := degrade(&p, poor)
	want := []specs.POSIXRlimit{
		{Type: "RLIMIT_NOFILE", Soft: 1000, Hard: 1000}, {Type: "RLIMIT_NPROC", Soft: 5, Hard: 1000},
		{Type: "RLIMIT_CORE", Soft: 7, Hard: 1000}, {Type: "RLIMIT_BOGUS", Soft: 1, Hard: 1 << 40},
	}
	if d := cmp.Diff(want, p.Rlimits); d != "" || p.OOMScoreAdj != nil || len(warnings) != 3 {
		t.Errorf("%s %v %q", d, p.OOMScoreAdj, warnings)
	}
	p = specs.Process{OOMScoreAdj: adj(10)}
	if w := degrade(&p, poor); len(w) != 0 || p.OOMScoreAdj == nil {
		t.Errorf("%q", w)
	}
	p = specs.Process{OOMScoreAdj: adj(-999), Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1 << 30}}}
	if w := degrade(&p, privileges{sysResource: true}); len(w) != 0 || p.OOMScoreAdj == nil || p.Rlimits[0].Hard != 1<<30 {
		t.Errorf("with the capability: %q", w)
	}
}

func TestClassify(t *testing.T) {
	for msg, want := range map[string]wire.Class{
		`error during container init: exec: "foo": executable file not found in $PATH`:    wire.NotFound,
		`error during container init: exec: "/foo": stat /foo: no such file or directory`: wire.NotFound,
		"crun create failed: executable file `none` not found in $PATH":                   wire.NotFound,
		`error during container init: exec: "/etc": permission denied`:                    wire.PermissionDenied,
		`exec: "/x": is a directory`: wire.PermissionDenied,
		`error mounting "/none" to rootfs at "/x": stat /none: no such file or directory`:           "",
		`chdir to cwd ("/none") set in config.json failed: no such file or directory`:               "",
		`unable to apply cgroup configuration: open /sys/fs/cgroup/pids: no such file or directory`: "",
		`failed to write "x": permission denied`:                                                    "",
	} {
		var e *wire.Error
		if err := classify(errors.New(msg)); !errors.As(err, &e) || e.Class != want || e.Message != msg {
			t.Errorf("%s: %+v", msg, e)
		}
	}
	if classify(nil) != nil {
		t.Error("nil has a class")
	}
}

func TestMountOptions(t *testing.T) {
	o := parseMountOptions([]string{"ro", "nosuid", "lowerdir=/a:/b", "rprivate", "defaults", "", "index=off", "rbind"})
	want := uintptr(unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_BIND | unix.MS_REC)
	if o.flags != want || o.propagation != unix.MS_PRIVATE|unix.MS_REC || strings.Join(o.data, ",") != "lowerdir=/a:/b,index=off" {
		t.Errorf("%+v", o)
	}
	if o := parseMountOptions([]string{"ro", "rw", "noexec", "exec"}); o.flags != 0 {
		t.Errorf("%+v", o)
	}
}

func TestShortenLayers(t *testing.T) {
	for in, want := range map[string]string{
		"lowerdir=/s/1/fs:/s/22/fs": "/s lowerdir=1/fs:22/fs",
		"lowerdir=/s/1/fs":          "/s/1 lowerdir=fs",
		"lowerdir=/a/x:/b/y":        " lowerdir=/a/x:/b/y",
		"lowerdir=/s/a\\:b:/s/c":    " lowerdir=/s/a\\:b:/s/c",
		"upperdir=/u":               " upperdir=/u",
		"lowerdir=/s/ab/x:/s/a/x":   "/s lowerdir=ab/x:a/x",
	} {
		dir, out := shortenLayers([]string{in})
		if got := dir + " " + strings.Join(out, ","); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func TestMountTarget(t *testing.T) {
	for target, ok := range map[string]bool{"": true, "/etc": true, "etc/x": true, "../x": false, "/a/../../x": false} {
		if _, err := mountTarget("/root", wire.Mount{Target: target}); (err == nil) != ok {
			t.Errorf("%q: %v", target, err)
		}
	}
}

func TestMergeResources(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	u := func(v uint64) *uint64 { return &v }
	cur := specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: n(1), Swap: n(2)}, CPU: &specs.LinuxCPU{Shares: u(3), Cpus: "0"},
		Pids: &specs.LinuxPids{Limit: n(4)}, Devices: []specs.LinuxDeviceCgroup{{Allow: true}},
	}
	got := mergeResources(cur, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: n(10)}, CPU: &specs.LinuxCPU{Quota: n(5)}, BlockIO: &specs.LinuxBlockIO{},
	})
	want := specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: n(10), Swap: n(2)}, CPU: &specs.LinuxCPU{Shares: u(3), Cpus: "0", Quota: n(5)},
		Pids: &specs.LinuxPids{Limit: n(4)}, Devices: []specs.LinuxDeviceCgroup{{Allow: true}}, BlockIO: &specs.LinuxBlockIO{},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if *cur.Memory.Limit != 1 || cur.CPU.Quota != nil {
		t.Error("the present limits were changed")
	}
}
