package cgroup

import (
	"slices"
	"testing"
)

func TestJoin(t *testing.T) {
	roots := []string{"/c/pids", "/c/memory"}
	for path, want := range map[string]Dirs{
		"/a/b":     {"/c/pids/a/b", "/c/memory/a/b"},
		"a":        {"/c/pids/a", "/c/memory/a"},
		"../../x":  {"/c/pids/x", "/c/memory/x"},
		"/":        nil, // never everything
		"":         nil,
		"/a/../..": nil,
	} {
		if got := join(roots, path); !slices.Equal(got, want) {
			t.Errorf("%q: %v", path, got)
		}
	}
}

func TestField(t *testing.T) {
	data := "low 0\noom 3\noom_kill 12\n"
	if n, ok := field(data, "oom_kill"); !ok || n != 12 {
		t.Error(n, ok)
	}
	if _, ok := field(data, "kill"); ok {
		t.Error("found a field that is not there")
	}
}

func TestProcsFile(t *testing.T) {
	for line, want := range map[string]string{
		"8:pids:/a":          Mountpoint + "/pids/a/cgroup.procs",
		"9:name=systemd:/":   Mountpoint + "/systemd/cgroup.procs",
		"0::/x/y":            Mountpoint + "/x/y/cgroup.procs",
		"1:cpu,cpuacct:/a:b": Mountpoint + "/cpu,cpuacct/a:b/cgroup.procs",
	} {
		if got := procsFile(line); got != want {
			t.Errorf("%s: %s", line, got)
		}
	}
}
