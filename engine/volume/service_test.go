package volume

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/testx"
)

var ctx = context.Background()

// recorder is a Publisher that remembers "action name".
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (r *recorder) Publish(_ events.Type, a events.Action, id string, attrs map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := string(a) + " " + id
	if c := attrs["container"]; c != "" {
		line += " " + c
	}
	r.seen = append(r.seen, line)
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.seen
	r.seen = nil
	return s
}

func config(t *testing.T) Config {
	dir := testx.TempRun(t)
	return Config{Root: dir + "/volumes", Run: dir + "/run", PluginSockets: []string{dir + "/plugins"}, PluginSpecs: []string{dir + "/specs"}}
}

func start(t *testing.T, cfg Config) (*Service, *recorder) {
	t.Helper()
	rec := &recorder{}
	s, err := New(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)), rec)
	must(t, err)
	must(t, s.Start(ctx))
	t.Cleanup(func() { must(t, s.Stop(ctx)) })
	return s, rec
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refused(t testing.TB, err, class error, words string) {
	t.Helper()
	if !errors.Is(err, class) || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v; want %v: ...%s...", err, class, words)
	}
}

func names(t *testing.T, s *Service, f filter.Args) []string {
	t.Helper()
	l, err := s.List(ctx, f)
	must(t, err)
	if len(l.Warnings) > 0 {
		t.Error(l.Warnings)
	}
	var n []string
	for _, v := range l.Volumes {
		n = append(n, v.Name)
	}
	return n
}

func same(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLife(t *testing.T) {
	cfg := config(t)
	s, rec := start(t, cfg)
	v, err := s.Create(ctx, volume.CreateRequest{Name: "data", Labels: map[string]string{"a": "b"}})
	must(t, err)
	if v.Driver != "local" || v.Scope != "local" || v.Mountpoint != cfg.Root+"/data/_data" || v.CreatedAt == "" || v.Labels["a"] != "b" {
		t.Errorf("%+v", v)
	}
	again, err := s.Create(ctx, volume.CreateRequest{Name: "data"})
	must(t, err)
	if again.Labels["a"] != "b" {
		t.Errorf("%+v", again)
	}
	anon, err := s.Create(ctx, volume.CreateRequest{})
	must(t, err)
	if _, ok := anon.Labels[anonymousLabel]; !ok || !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(anon.Name) {
		t.Errorf("%+v", anon)
	}
	path, err := s.Mount(ctx, "data", "c1")
	must(t, err)
	must(t, os.WriteFile(path+"/f", []byte("x"), 0o600))
	must(t, s.Unmount(ctx, "data", "c1"))
	must(t, s.Unmount(ctx, "data", "c1"))
	same(t, rec.take(), "create data", "create "+anon.Name, "mount data c1", "unmount data c1")

	// Another daemon on the same folders finds all.
	s, rec = start(t, cfg)
	v2, err := s.Inspect(ctx, "data")
	must(t, err)
	if v2.CreatedAt != v.CreatedAt || v2.Labels["a"] != "b" {
		t.Errorf("%+v", v2)
	}
	s.Hold("data", "c1")
	s.Hold("data", "c1")
	refused(t, s.Remove(ctx, "data", true), errdefs.ErrConflict, "remove data: volume is in use - [c1]")
	same(t, names(t, s, filter.Args{"dangling": {"true"}}), anon.Name)
	same(t, names(t, s, filter.Args{"dangling": {"false"}}), "data")
	same(t, names(t, s, filter.Args{"label": {"a=b"}}), "data")
	same(t, names(t, s, filter.Args{"driver": {"other"}}))
	same(t, names(t, s, filter.Args{"name": {"^dat"}}), "data")
	usage, err := s.Usage(ctx)
	must(t, err)
	if i := slices.IndexFunc(usage, func(v volume.Volume) bool { return v.Name == "data" }); usage[i].UsageData.RefCount != 1 || usage[i].UsageData.Size <= 0 {
		t.Errorf("%+v", usage[i].UsageData)
	}
	rep, err := s.Prune(ctx, nil)
	must(t, err)
	same(t, rep.VolumesDeleted, anon.Name)
	s.Release("data", "c1")
	rep, err = s.Prune(ctx, nil)
	must(t, err)
	same(t, rep.VolumesDeleted)
	rep, err = s.Prune(ctx, filter.Args{"all": {"1"}, "label!": {"a"}})
	must(t, err)
	same(t, rep.VolumesDeleted)
	rec.take()
	must(t, s.Remove(ctx, "data", false))
	same(t, rec.take(), "destroy data")
	refused(t, s.Remove(ctx, "data", false), errdefs.ErrNotFound, "get data: no such volume")
	must(t, s.Remove(ctx, "data", true))
	left, err := os.ReadDir(cfg.Root)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRefusals(t *testing.T) {
	s, _ := start(t, config(t))
	_, err := s.Create(ctx, volume.CreateRequest{Name: "have", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs"}})
	must(t, err)
	for _, c := range []struct {
		req   volume.CreateRequest
		class error
		words string
	}{
		{volume.CreateRequest{Name: "a/b"}, errdefs.ErrInvalidArgument, `create a/b: "a/b" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed`},
		{volume.CreateRequest{Name: "../x"}, errdefs.ErrInvalidArgument, "includes invalid characters"},
		{volume.CreateRequest{Name: ".new-x"}, errdefs.ErrInvalidArgument, "includes invalid characters"},
		{volume.CreateRequest{Name: strings.Repeat("n", 256)}, errdefs.ErrInvalidArgument, "includes invalid characters"},
		{volume.CreateRequest{Name: "x"}, errdefs.ErrInvalidArgument, "volume name is too short, names should be at least two alphanumeric characters"},
		{volume.CreateRequest{Name: "xx", DriverOpts: map[string]string{"foo": "1"}}, errdefs.ErrInvalidArgument, `invalid option: "foo"`},
		{volume.CreateRequest{Name: "xx", DriverOpts: map[string]string{"size": "1"}}, errdefs.ErrInvalidArgument, "quota size requested but no quota support"},
		{volume.CreateRequest{Name: "xx", DriverOpts: map[string]string{"type": "nfs"}}, errdefs.ErrInvalidArgument, `missing required option: "device"`},
		{volume.CreateRequest{Name: "xx", DriverOpts: map[string]string{"o": "ro"}}, errdefs.ErrInvalidArgument, `missing required option: "device"`},
		{volume.CreateRequest{Name: "xx", Driver: "nope"}, errdefs.ErrNotFound, `create xx: error looking up volume plugin nope: plugin "nope" not found`},
		{volume.CreateRequest{Name: "xx", Driver: "../nope"}, errdefs.ErrNotFound, "not found"},
		{volume.CreateRequest{Name: "have", Driver: "nope"}, errdefs.ErrConflict, "driver 'local' already has volume 'have': volume name must be unique"},
		{volume.CreateRequest{Name: "have", DriverOpts: map[string]string{"type": "none", "device": "/x"}}, errdefs.ErrConflict, "other options"},
		{volume.CreateRequest{Name: "xx", ClusterVolumeSpec: &volume.ClusterVolumeSpec{}}, errdefs.ErrNotImplemented, "cluster volumes"},
	} {
		_, err := s.Create(ctx, c.req)
		refused(t, err, c.class, c.words)
	}
	same(t, names(t, s, nil), "have")
	_, err = s.List(ctx, filter.Args{"foo": {"x"}})
	refused(t, err, errdefs.ErrInvalidArgument, "invalid filter 'foo'")
	_, err = s.List(ctx, filter.Args{"dangling": {"perhaps"}})
	refused(t, err, errdefs.ErrInvalidArgument, "invalid filter 'dangling=perhaps'")
	_, err = s.Prune(ctx, filter.Args{"all": {"perhaps"}})
	refused(t, err, errdefs.ErrInvalidArgument, "invalid filter 'all=perhaps'")
	_, err = s.Mount(ctx, "nope", "c")
	refused(t, err, errdefs.ErrNotFound, "get nope: no such volume")
	_, err = s.Inspect(ctx, "../../etc")
	refused(t, err, errdefs.ErrNotFound, "no such volume")
}

func mounted(t *testing.T, dir string) int {
	t.Helper()
	m, err := mountsBelow(dir)
	must(t, err)
	return len(m)
}

func TestMountOptions(t *testing.T) {
	testx.Root(t)
	cfg := config(t)
	testx.NoLeaks(t, cfg.Root)
	s, _ := start(t, cfg)
	host := t.TempDir()
	must(t, os.WriteFile(host+"/precious", []byte("x"), 0o600))
	_, err := s.Create(ctx, volume.CreateRequest{Name: "bind", DriverOpts: map[string]string{"type": "none", "o": "bind", "device": host}})
	must(t, err)
	_, err = s.Create(ctx, volume.CreateRequest{Name: "tmp", DriverOpts: map[string]string{"type": "tmpfs", "o": "size=1m,uid=7", "device": "tmpfs"}})
	must(t, err)
	_, err = s.Create(ctx, volume.CreateRequest{Name: "bad", DriverOpts: map[string]string{"type": "none", "o": "bind", "device": host + "/absent"}})
	must(t, err)
	_, err = s.Mount(ctx, "bad", "c1")
	refused(t, err, errdefs.ErrInternal, "error while mounting volume '"+cfg.Root+"/bad/_data': failed to mount local volume")
	if len(s.users("bad")) > 0 {
		t.Error("a failed mount is counted")
	}

	p, err := s.Mount(ctx, "bind", "c1")
	must(t, err)
	_, err = s.Mount(ctx, "bind", "c1")
	must(t, err)
	_, err = s.Mount(ctx, "bind", "c2")
	must(t, err)
	q, err := s.Mount(ctx, "tmp", "c1")
	must(t, err)
	if _, err := os.Stat(p + "/precious"); err != nil || mounted(t, cfg.Root) != 2 {
		t.Error(err, mounted(t, cfg.Root))
	}
	var st unix.Stat_t
	must(t, unix.Stat(q, &st))
	if st.Uid != 7 {
		t.Errorf("options are lost: owner %d", st.Uid)
	}

	// The daemon restarts; c2 ended meanwhile, c1 lives on.
	_, err = s.Mount(ctx, "tmp", "x-populate") // an operation that dies with it
	must(t, err)
	s, _ = start(t, cfg)
	same(t, s.users("tmp"), "c1")
	must(t, s.Unmount(ctx, "bind", "c2"))
	must(t, s.Unmount(ctx, "bind", "c1"))
	if mounted(t, cfg.Root+"/bind") != 1 {
		t.Error("unmounted under c1, which had mounted twice")
	}
	refused(t, s.Remove(ctx, "bind", true), errdefs.ErrConflict, "volume is in use - [c1]")
	must(t, s.Unmount(ctx, "bind", "c1"))
	must(t, s.Unmount(ctx, "bind", "c1"))
	must(t, s.Unmount(ctx, "tmp", "c1"))
	if mounted(t, cfg.Root) != 0 {
		t.Error("still mounted")
	}
	_, err = s.Mount(ctx, "bind", "c3")
	must(t, err)

	// kill -9 and loss of the run folder: the mount has no user any more.
	must(t, os.RemoveAll(cfg.Run))
	s, _ = start(t, cfg)
	if mounted(t, cfg.Root) != 0 {
		t.Error("a leftover stayed mounted")
	}
	must(t, s.Remove(ctx, "bind", false))
	if _, err := os.Stat(host + "/precious"); err != nil {
		t.Error("removing the volume removed the host's file:", err)
	}
}

// TestNeverThroughMounts: whatever is mounted below a volume that is removed,
// its content stays.
func TestNeverThroughMounts(t *testing.T) {
	testx.Root(t)
	cfg := config(t)
	s, _ := start(t, cfg)
	host := t.TempDir()
	must(t, os.WriteFile(host+"/precious", []byte("x"), 0o600))
	v, err := s.Create(ctx, volume.CreateRequest{Name: "vol"})
	must(t, err)
	must(t, os.Mkdir(v.Mountpoint+"/sub", 0o755))
	must(t, unix.Mount(host, v.Mountpoint+"/sub", "", unix.MS_BIND, ""))
	must(t, s.Remove(ctx, "vol", false))
	if _, err := os.Stat(host + "/precious"); err != nil {
		t.Error("removed through a mount:", err)
	}
	points, err := mountsBelow(cfg.Root)
	must(t, err)
	for _, p := range points {
		must(t, unix.Unmount(p, 0))
	}
	_, _ = start(t, cfg) // sweeps what is free now
	left, err := os.ReadDir(cfg.Root)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat(host + "/precious"); err != nil {
		t.Error("removed by the sweep:", err)
	}
}

func TestCrashLeftovers(t *testing.T) {
	cfg := config(t)
	s, _ := start(t, cfg)
	_, err := s.Create(ctx, volume.CreateRequest{Name: "good"})
	must(t, err)
	must(t, os.MkdirAll(cfg.Root+"/.new-1/_data/x", 0o755))
	must(t, os.MkdirAll(cfg.Root+"/.old-2/_data/x", 0o755))
	must(t, os.MkdirAll(cfg.Root+"/adopted/_data", 0o755))
	must(t, os.MkdirAll(cfg.Root+"/broken/_data", 0o755))
	must(t, os.WriteFile(cfg.Root+"/broken/volume.json", []byte("{"), 0o600))
	must(t, os.WriteFile(cfg.Root+"/good/.volume.json.cleat-tmp-abc", nil, 0o600))
	must(t, os.WriteFile(cfg.Run+"/mounts.json", []byte("{"), 0o600))
	s, _ = start(t, cfg)
	same(t, names(t, s, nil), "adopted", "good")
	left, err := os.ReadDir(cfg.Root)
	must(t, err)
	var n []string
	for _, e := range left {
		n = append(n, e.Name())
	}
	same(t, n, "adopted", "broken", "good")
	// The broken one's data is the user's: a volume of that name is not made
	// over it.
	if _, err := s.Create(ctx, volume.CreateRequest{Name: "broken"}); err == nil {
		t.Error("a volume was made over unreadable data")
	}
}

func TestConcurrentUse(t *testing.T) {
	cfg := config(t)
	s, _ := start(t, cfg)
	var wg sync.WaitGroup
	for i := range 8 {
		user := string(rune('a' + i))
		wg.Go(func() {
			for range 30 {
				s.Hold("shared", user)
				if _, err := s.Create(ctx, volume.CreateRequest{Name: "shared"}); err != nil {
					t.Error(err)
				}
				p, err := s.Mount(ctx, "shared", user)
				if err != nil {
					t.Error(err)
				} else if _, err := os.Stat(p); err != nil {
					t.Error("a held and mounted volume is not there:", err)
				}
				if err := s.Unmount(ctx, "shared", user); err != nil {
					t.Error(err)
				}
				s.Release("shared", user)
				if err := s.Remove(ctx, "shared", true); err != nil && !errors.Is(err, errdefs.ErrConflict) {
					t.Error(err)
				}
				if _, err := s.Prune(ctx, filter.Args{"all": {"true"}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	must(t, s.Remove(ctx, "shared", true))
	if left, err := os.ReadDir(cfg.Root); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestConfig(t *testing.T) {
	c := Config{Root: "relative", Run: "/x"}
	if c.Validate() == nil {
		t.Error("relative root accepted")
	}
	c = Config{Root: "/a", Run: "/b"}
	must(t, c.Validate())
	if len(c.PluginSockets) == 0 || c.PluginTimeout == 0 {
		t.Errorf("%+v", c)
	}
}
