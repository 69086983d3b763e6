package image

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/engine/snapshot"
	"github.com/cleatlabs/cleat/oci/ocitest"
	"github.com/cleatlabs/cleat/oci/store"
)

// recorder keeps events and progress messages.
type recorder struct {
	mu     sync.Mutex
	events []string
	lines  []string
}

func (r *recorder) Publish(_ events.Type, a events.Action, id string, attrs map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, string(a)+" "+attrs["name"])
}

func (r *recorder) progress(m jsonstream.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := strings.TrimSpace(strings.TrimSpace(m.ID+" "+m.Status) + m.Stream)
	r.lines = append(r.lines, line)
}

func (r *recorder) has(line string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.lines, line)
}

func (r *recorder) take() (events, lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	events, lines = r.events, r.lines
	r.events, r.lines = nil, nil
	return events, lines
}

type fixture struct {
	*Service
	rec  *recorder
	st   *store.Store
	root string
	// driver is the snapshot driver's, "auto" when empty.
	driver string
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("layers are unpacked with their owners, which needs root")
	}
}

func newFixture(t testing.TB, edit func(*Config)) *fixture {
	t.Helper()
	needRoot(t)
	f := &fixture{rec: &recorder{}, root: t.TempDir()}
	f.open(t, edit)
	t.Cleanup(func() { f.shut(t) })
	return f
}

func (f *fixture) open(t testing.TB, edit func(*Config)) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	name, sn, err := snapshot.Open(snapshot.Config{Root: filepath.Join(f.root, "snapshots"), Driver: cmp.Or(f.driver, "auto")}, log)
	if err != nil {
		t.Fatal(err)
	}
	f.st, err = store.Open(context.Background(), store.Config{Root: f.root}, map[string]snapshots.Snapshotter{name: sn}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.st.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	var cfg Config
	if edit != nil {
		edit(&cfg)
	}
	f.Service, err = New(cfg, f.st, name, f.rec, time.Now, log)
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) shut(t testing.TB) {
	t.Helper()
	if err := f.Service.Close(); err != nil {
		t.Error(err)
	}
	if err := f.st.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

func (f *fixture) load(t testing.TB, images ...ocitest.Image) {
	t.Helper()
	var buf bytes.Buffer
	if err := ocitest.WriteOCI(&buf, images...); err != nil {
		t.Fatal(err)
	}
	if err := f.Load(t.Context(), &buf, nil, f.rec.progress); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) writable(t testing.TB, key, ref string) string {
	t.Helper()
	img, err := f.Get(t.Context(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.PrepareSnapshot(t.Context(), key, img); err != nil {
		t.Fatal(err)
	}
	return f.mounted(t, key)
}

// mounted mounts a writable layer for the time of the test.
func (f *fixture) mounted(t testing.TB, key string) string {
	t.Helper()
	m, err := f.SnapshotMounts(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(f.root, "mnt-"+key)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := mount.All(m, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.UnmountAll(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// two is an image of two layers; the upper one removes and replaces.
func two(names ...string) ocitest.Image {
	return ocitest.Image{Names: names, Layers: []ocitest.Layer{
		{Files: []ocitest.File{
			{Path: "etc/"}, {Path: "etc/conf", Data: []byte("one\n")}, {Path: "etc/gone", Data: []byte("x")},
			{Path: "dir/"}, {Path: "dir/old", Data: []byte("old")},
		}},
		{Compression: "zstd", Files: []ocitest.File{
			{Path: "etc/"}, {Path: "etc/conf", Data: []byte("two\n")}, {Path: "etc/.wh.gone"},
			{Path: "dir/"}, {Path: "dir/.wh..wh..opq"}, {Path: "dir/new", Data: []byte("new")},
		}},
	}}
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func checkTwo(t testing.TB, root string) {
	t.Helper()
	if got := read(t, filepath.Join(root, "etc/conf")); got != "two\n" {
		t.Errorf("etc/conf is %q", got)
	}
	for _, gone := range []string{"etc/gone", "dir/old"} {
		if _, err := os.Lstat(filepath.Join(root, gone)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	if got := read(t, filepath.Join(root, "dir/new")); got != "new" {
		t.Errorf("dir/new is %q", got)
	}
}

func TestLoadAndPrepare(t *testing.T) {
	f := newFixture(t, nil)
	f.load(t, two("demo:1"))
	checkTwo(t, f.writable(t, "c1", "demo:1"))
	if !f.rec.has("Loaded image: demo:1") {
		t.Errorf("messages: %q", f.rec.lines)
	}
	keys, err := f.SnapshotKeys(t.Context())
	if err != nil || !slices.Equal(keys, []string{"c1"}) {
		t.Errorf("keys %v, %v", keys, err)
	}
}

func TestLoadDockerArchive(t *testing.T) {
	f := newFixture(t, nil)
	var buf bytes.Buffer
	if err := ocitest.WriteDocker(&buf, two("demo:1", "other:2")); err != nil {
		t.Fatal(err)
	}
	if err := f.Load(t.Context(), &buf, nil, nil); err != nil {
		t.Fatal(err)
	}
	checkTwo(t, f.writable(t, "c1", "other:2"))
}

func newRegistry(t testing.TB) (*httptest.Server, string) {
	t.Helper()
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	return srv, strings.TrimPrefix(srv.URL, "http://")
}

func build(t testing.TB, i ocitest.Image) *ocitest.Built {
	t.Helper()
	b, err := i.Build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPull(t *testing.T) {
	srv, host := newRegistry(t)
	b := build(t, two())
	if err := ocitest.Push(srv.Client(), srv.URL, "lib/demo", "1", b); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, nil)
	ref := host + "/lib/demo:1"
	if err := f.Pull(t.Context(), PullOptions{Ref: ref, Progress: f.rec.progress}); err != nil {
		t.Fatal(err)
	}
	checkTwo(t, f.writable(t, "c1", ref))
	_, lines := f.rec.take()
	t.Log(strings.Join(lines, "\n"))
	if err := f.Pull(t.Context(), PullOptions{Ref: ref, Progress: f.rec.progress}); err != nil {
		t.Fatal(err)
	}
	if !f.rec.has("Status: Image is up to date for " + ref) {
		t.Errorf("messages of the second pull: %q", f.rec.lines)
	}
}
