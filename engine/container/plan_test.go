package container

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

func TestPlanEnding(t *testing.T) {
	for _, tt := range []struct {
		name     string
		policy   container.RestartPolicy
		code     int
		failures int
		ran      time.Duration
		what     intent
		want     ending
	}{
		{"no policy", container.RestartPolicy{Name: "no"}, 1, 0, 0, intentNone, ending{}},
		{"always", container.RestartPolicy{Name: "always"}, 0, 0, 0, intentNone, ending{true, 100 * time.Millisecond, 1}},
		{"doubles", container.RestartPolicy{Name: "always"}, 0, 3, 0, intentNone, ending{true, 800 * time.Millisecond, 4}},
		{"a minute at most", container.RestartPolicy{Name: "always"}, 0, 99, 0, intentNone, ending{true, time.Minute, 100}},
		{"a long run forgives", container.RestartPolicy{Name: "always"}, 0, 9, 10 * time.Second, intentNone, ending{true, 100 * time.Millisecond, 1}},
		{"success", container.RestartPolicy{Name: "on-failure"}, 0, 0, 0, intentNone, ending{}},
		{"failure", container.RestartPolicy{Name: "on-failure"}, 1, 0, 0, intentNone, ending{true, 100 * time.Millisecond, 1}},
		{"too often", container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}, 1, 2, 0, intentNone, ending{}},
		{"stopped", container.RestartPolicy{Name: "always"}, 1, 0, 0, intentStop, ending{}},
		{"being restarted", container.RestartPolicy{Name: "always"}, 1, 0, 0, intentRestart, ending{}},
	} {
		if got := planEnding(tt.policy, tt.code, tt.failures, tt.failures, tt.ran, tt.what); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestPlanFate(t *testing.T) {
	rec := func(s state, auto bool) *record {
		return &record{State: s, HostConfig: &container.HostConfig{AutoRemove: auto}}
	}
	alive, dead := &runtime.State{Live: true}, &runtime.State{Exit: &runtime.Exit{}}
	for _, tt := range []struct {
		name  string
		rec   *record
		st    *runtime.State
		layer bool
		want  fate
	}{
		{"created", rec("created", false), nil, true, fateKeep},
		{"half created", rec("created", false), nil, false, fatePurge},
		{"half started", rec("created", false), alive, true, fateClean},
		{"running", rec("running", false), alive, true, fateAdopt},
		{"paused", rec("paused", false), alive, true, fateAdopt},
		{"ended unseen", rec("running", false), dead, true, fateEnd},
		{"machine went down", rec("running", false), nil, true, fateEnd},
		{"auto-remove ended", rec("running", true), dead, true, fatePurge},
		{"half removed", rec("removing", false), nil, true, fatePurge},
		{"dead", rec("dead", false), nil, true, fatePurge},
		{"waits for its restart", rec("restarting", false), nil, true, fateKeep},
	} {
		if got := planFate(tt.rec, tt.st, tt.layer); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestTransitions(t *testing.T) {
	for _, tt := range []struct {
		from  state
		v     verb
		to    state
		class error
		words string
	}{
		{"created", verbStart, "running", nil, ""},
		{"running", verbStart, "", errdefs.ErrNotModified, ""},
		{"paused", verbStart, "", errdefs.ErrConflict, "cannot start a paused container, try unpause instead"},
		{"exited", verbStop, "", errdefs.ErrNotModified, ""},
		{"exited", verbExec, "", errdefs.ErrConflict, "container ID is not running"},
		{"paused", verbPause, "", errdefs.ErrConflict, "container ID is already paused"},
		{"running", verbUnpause, "", errdefs.ErrConflict, "container ID is not paused"},
		{"paused", verbExec, "", errdefs.ErrConflict, "is paused, unpause the container before exec"},
		{"restarting", verbAttach, "", errdefs.ErrConflict, "is restarting, wait until the container is running"},
		{"removing", verbForceRemove, "", errdefs.ErrConflict, "removal of container NAME is already in progress"},
	} {
		to, err := next(tt.from, tt.v, "ID", "NAME")
		if tt.class != nil {
			wantClass(t, err, tt.class, tt.words)
		} else if err != nil || to != tt.to {
			t.Errorf("%s, verb %d: %s, %v", tt.from, tt.v, to, err)
		}
	}
}

func TestStatusText(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	base := record{StartedAt: now.Add(-5 * time.Minute), FinishedAt: now.Add(-2 * time.Hour), ExitCode: 3}
	for _, tt := range []struct {
		s      state
		health container.HealthStatus
		want   string
	}{
		{"created", "", "Created"}, {"running", "", "Up 5 minutes"}, {"running", "healthy", "Up 5 minutes (healthy)"},
		{"running", "starting", "Up 5 minutes (health: starting)"}, {"paused", "", "Up 5 minutes (Paused)"},
		{"restarting", "", "Restarting (3) 2 hours ago"}, {"exited", "", "Exited (3) 2 hours ago"},
		{"removing", "", "Removal In Progress"}, {"dead", "", "Dead"},
	} {
		r := base
		r.State, r.Health = tt.s, tt.health
		if got := statusText(&r, now); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.s, got, tt.want)
		}
	}
}

func testInput(edit func(*specInput)) *specInput {
	c := &container.Config{Cmd: []string{"sh"}, Hostname: "h"}
	h := &container.HostConfig{}
	d := &Config{Root: "/r"}
	if err := d.Validate(); err != nil {
		panic(err)
	}
	in := &specInput{ID: "id", Config: c, Host: h, Daemon: d, Facts: testFacts(), NetPath: "/netns", Hostname: "h", Account: account{home: "/root"}}
	in.Caps = defaultCapabilities()
	if edit != nil {
		edit(in)
	}
	completeHost(h, d, in.Facts)
	return in
}

func TestPlanSpec(t *testing.T) {
	spec := func(edit func(*specInput)) *specs.Spec {
		t.Helper()
		s, err := planSpec(testInput(edit))
		must(t, err)
		return s
	}
	mountAt := func(s *specs.Spec, dest string) *specs.Mount {
		for i := range s.Mounts {
			if s.Mounts[i].Destination == dest {
				return &s.Mounts[i]
			}
		}
		return nil
	}
	s := spec(nil)
	if s.Linux.CgroupsPath != "/cleat/id" || s.Process.Args[0] != "sh" || s.Hostname != "h" {
		t.Errorf("defaults: %+v", s.Process)
	}
	if !slices.Contains(s.Process.Env, "HOME=/root") || !slices.Contains(s.Process.Env, "HOSTNAME=h") {
		t.Errorf("environment: %v", s.Process.Env)
	}
	if s.Linux.Resources.Devices[0].Allow || len(s.Linux.MaskedPaths) == 0 {
		t.Error("devices are open or nothing is masked")
	}
	s = spec(func(in *specInput) { in.Host.Privileged = true })
	if !s.Linux.Resources.Devices[0].Allow || len(s.Linux.MaskedPaths) > 0 || !slices.Contains(mountAt(s, "/sys").Options, "rw") {
		t.Error("privileged is not")
	}
	s = spec(func(in *specInput) { in.Host.PidMode, in.Host.IpcMode, in.NetPath = "host", "host", "" })
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace || ns.Type == specs.IPCNamespace || ns.Type == specs.NetworkNamespace {
			t.Errorf("has a namespace of its own: %s", ns.Type)
		}
	}
	s = spec(func(in *specInput) {
		in.Files = []specs.Mount{{Destination: "/etc/hosts", Source: "ours"}}
		in.Volumes = []specs.Mount{{Destination: "/etc/hosts", Source: "theirs"}, {Destination: "/dev/shm", Type: "tmpfs", Source: "x"}}
	})
	if mountAt(s, "/etc/hosts").Source != "theirs" || mountAt(s, "/dev/shm").Source != "x" {
		t.Error("the user's own mounts do not win")
	}
	s = spec(func(in *specInput) { in.ServeInit = "/host/init" })
	if !slices.Equal(s.Process.Args, []string{initInside, "--", "sh"}) {
		t.Errorf("%v", s.Process.Args)
	}
	s = spec(func(in *specInput) { in.Account.uid = 7 })
	if len(s.Process.Capabilities.Effective) > 0 {
		t.Error("a user other than root has capabilities")
	}
}

func TestParseBind(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want mountPoint
		bad  string
	}{
		{"/a:/b", mountPoint{Type: mount.TypeBind, Source: "/a", Destination: "/b", Create: true, Propagation: "rprivate"}, ""},
		{"/a/../c:/b:ro,rslave", mountPoint{Type: mount.TypeBind, Source: "/c", Destination: "/b", Mode: "ro,rslave", ReadOnly: true, Create: true, Propagation: "rslave"}, ""},
		{"vol:/b:nocopy", mountPoint{Type: mount.TypeVolume, Name: "vol", Destination: "/b", Mode: "nocopy", NoCopy: true}, ""},
		{"/b", mountPoint{Type: mount.TypeVolume, Destination: "/b", Anonymous: true}, ""},
		{"", mountPoint{}, "invalid volume specification"},
		{"/a:/b:/c:/d", mountPoint{}, "invalid volume specification"},
		{"/a:b", mountPoint{}, "must be absolute"},
		{"/a:/", mountPoint{}, "destination can't be '/'"},
		{"/a:/b:ro,rw", mountPoint{}, "invalid mode"},
		{"./x:/b", mountPoint{}, "includes invalid characters"},
	} {
		got, err := parseBind(tt.in, "")
		switch {
		case tt.bad != "":
			wantClass(t, err, errdefs.ErrInvalidArgument, tt.bad)
		case err != nil || got.Type != tt.want.Type || got.Source != tt.want.Source || got.Name != tt.want.Name || got.Destination != tt.want.Destination ||
			got.ReadOnly != tt.want.ReadOnly || got.NoCopy != tt.want.NoCopy || got.Anonymous != tt.want.Anonymous || got.Propagation != tt.want.Propagation:
			t.Errorf("%q: %+v, %v", tt.in, got, err)
		}
	}
}

func FuzzParseBind(f *testing.F) {
	for _, s := range []string{"/a:/b", "v:/b:ro", "/b", "::", "/a:/b:ro,z,rshared", "a\x00:/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseBind(s, "")
		if err != nil {
			return
		}
		if !strings.HasPrefix(m.Destination, "/") || m.Destination == "/" || strings.Contains(m.Destination, "/../") || strings.ContainsRune(m.Source+m.Destination, 0) {
			t.Fatalf("%q gives %+v", s, m)
		}
	})
}

func TestHealthJudge(t *testing.T) {
	p := &healthPlan{retries: 2, startPeriod: 10 * time.Second, interval: time.Minute, startInterval: time.Second}
	for _, tt := range []struct {
		was    container.HealthStatus
		streak int
		code   int
		age    time.Duration
		want   container.HealthStatus
		after  int
	}{
		{"starting", 0, 0, 0, "healthy", 0},
		{"starting", 0, 1, time.Second, "starting", 0},
		{"starting", 0, 1, time.Minute, "starting", 1},
		{"starting", 1, 1, time.Minute, "unhealthy", 2},
		{"healthy", 0, 1, time.Second, "healthy", 1},
		{"unhealthy", 5, 0, time.Minute, "healthy", 0},
	} {
		if got, n := p.judge(tt.was, tt.streak, tt.code, tt.age); got != tt.want || n != tt.after {
			t.Errorf("%+v: %s %d", tt, got, n)
		}
	}
	if p.wait("starting", time.Second) != time.Second || p.wait("healthy", time.Second) != time.Minute {
		t.Error("wrong wait")
	}
}

func TestProcReaders(t *testing.T) {
	p, ok := parseProcStat("12 (a) b) S 3 4 5 34816 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 1000 0 0")
	if !ok || p.name != "a) b" || p.ppid != 3 || p.cpu != 200 || p.start != 1000 {
		t.Fatalf("%+v, %v", p, ok)
	}
	row := p.row("root", 12, "", time.Unix(1_800_000_000, 0), 30*time.Second)
	if got := strings.Join(append(row[:4:4], row[5:]...), "|"); got != "root|12|3|10|pts/0|00:00:02|[a) b]" {
		t.Error(got)
	}
	n := parseNetDev([]byte("Inter-| x\n face | y\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"))
	if len(n) != 1 || n["eth0"].RxBytes != 1 || n["eth0"].TxBytes != 9 || n["eth0"].TxDropped != 12 {
		t.Errorf("%+v", n)
	}
	if got := parseCPULine("cpu  1 2 3 4 5 6 7 8 9"); got != 28*uint64(time.Second/100) {
		t.Error(got)
	}
	top, err := parsePs("UID PID CMD\nroot 1 init\nbob 7 sleep 5\n", []int{7})
	must(t, err)
	if len(top.Processes) != 1 || !slices.Equal(top.Processes[0], []string{"bob", "7", "sleep 5"}) {
		t.Errorf("%+v", top)
	}
}

func TestValidateResources(t *testing.T) {
	for _, tt := range []struct {
		r   container.Resources
		bad string
	}{
		{container.Resources{Memory: 1}, "Minimum memory limit allowed is 6MB"},
		{container.Resources{Memory: 64 << 20, MemorySwap: 1 << 20}, "memoryswap limit should be larger"},
		{container.Resources{NanoCPUs: math.MaxInt64}, "range of CPUs"},
		{container.Resources{CpusetCpus: "9"}, "Requested CPUs are not available"},
		{container.Resources{Memory: 64 << 20, CPUShares: 5}, ""},
	} {
		_, err := validateResources(&tt.r, testFacts())
		if tt.bad != "" {
			wantClass(t, err, errdefs.ErrInvalidArgument, tt.bad)
		} else if err != nil {
			t.Error(err)
		}
	}
}
