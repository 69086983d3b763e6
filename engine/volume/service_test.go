package volume_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	api "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/engine/events"
	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/engine/volume"
	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/testx"
)

func newService(t *testing.T, dir string) *volume.Service {
	t.Helper()
	bus := events.NewBus(time.Now)
	s, err := volume.New(volume.Config{
		Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"),
		PluginSockets: []string{filepath.Join(dir, "plugins")}, PluginSpecs: []string{},
	}, slog.New(slog.NewTextHandler(io.Discard, nil)), bus)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestLife(t *testing.T) {
	dir := testx.TempRun(t)
	s := newService(t, dir)
	ctx := t.Context()
	v, err := s.Create(ctx, api.CreateRequest{Name: "data", Labels: map[string]string{"tier": "db"}})
	if err != nil || v.Driver != "local" {
		t.Fatal(v, err)
	}
	if again, err := s.Create(ctx, api.CreateRequest{Name: "data"}); err != nil || again.Mountpoint != v.Mountpoint {
		t.Errorf("create twice: %v %v", again, err)
	}
	for _, bad := range []string{"../x", "a/b", "-x", "x y"} {
		if _, err := s.Create(ctx, api.CreateRequest{Name: bad}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("name %q: %v", bad, err)
		}
	}
	path, err := s.Mount(ctx, "data", "c1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "f"), []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Hold("data", "c1")
	if err := s.Remove(ctx, "data", false); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("remove in use: %v", err)
	}
	if err := s.Unmount(ctx, "data", "c1"); err != nil {
		t.Fatal(err)
	}
	s.Release("data", "c1")

	// The next life of the daemon finds it.
	next := newService(t, dir)
	found, err := next.Inspect(ctx, "data")
	if err != nil || found.Labels["tier"] != "db" {
		t.Fatal(found, err)
	}
	list, err := next.List(ctx, filter.Args{"label": {"tier=db"}})
	if err != nil || len(list.Volumes) != 1 {
		t.Errorf("%+v %v", list, err)
	}
	if _, err := next.Clone(ctx, "data", "copy"); err != nil {
		t.Fatal(err)
	}
	var tar bytes.Buffer
	if err := next.Export(ctx, "copy", &tar); err != nil {
		t.Fatal(err)
	}
	if err := next.Import(ctx, "third", &tar); err != nil {
		t.Fatal(err)
	}
	third, err := next.Inspect(ctx, "third")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(third.Mountpoint, "f")); err != nil || string(got) != "kept" {
		t.Errorf("%q %v", got, err)
	}
	for _, name := range []string{"data", "copy", "third"} {
		if err := next.Remove(ctx, name, false); err != nil {
			t.Error(err)
		}
	}
	if _, err := next.Inspect(ctx, "data"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("after removal: %v", err)
	}
}

// TestLocalOptions mounts a tmpfs on first use and takes it away after the last.
func TestLocalOptions(t *testing.T) {
	testx.Root(t)
	s := newService(t, testx.TempRun(t))
	ctx := t.Context()
	_, err := s.Create(ctx, api.CreateRequest{Name: "ram", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}})
	if err != nil {
		t.Fatal(err)
	}
	path, err := s.Mount(ctx, "ram", "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mount(ctx, "ram", "b"); err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(ctx, "ram", "a"); err != nil {
		t.Fatal(err)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || !bytes.Contains(mounts, []byte(path)) {
		t.Errorf("not mounted while in use: %v", err)
	}
	if err := s.Unmount(ctx, "ram", "b"); err != nil {
		t.Fatal(err)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || bytes.Contains(mounts, []byte(path)) {
		t.Errorf("mounted after the last use: %v", err)
	}
}

// plugin is a small volume plugin: volumes are folders.
type plugin struct {
	dir string

	mu  sync.Mutex
	has map[string]bool
}

func (p *plugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q struct{ Name, ID string }
	// An empty body is a request without a name.
	_ = json.NewDecoder(r.Body).Decode(&q)
	p.mu.Lock()
	defer p.mu.Unlock()
	answer := map[string]any{"Err": ""}
	at := filepath.Join(p.dir, q.Name)
	switch r.URL.Path {
	case "/Plugin.Activate":
		answer = map[string]any{"Implements": []string{"VolumeDriver"}}
	case "/VolumeDriver.Capabilities":
		answer["Capabilities"] = map[string]string{"Scope": "local"}
	case "/VolumeDriver.Create":
		p.has[q.Name] = true
		if err := os.MkdirAll(at, 0o755); err != nil {
			answer["Err"] = err.Error()
		}
	case "/VolumeDriver.Get":
		if !p.has[q.Name] {
			answer["Err"] = "no such volume"
			break
		}
		answer["Volume"] = map[string]string{"Name": q.Name, "Mountpoint": at}
	case "/VolumeDriver.List":
		var all []map[string]string
		for n := range p.has {
			all = append(all, map[string]string{"Name": n})
		}
		answer["Volumes"] = all
	case "/VolumeDriver.Mount", "/VolumeDriver.Path":
		answer["Mountpoint"] = at
	case "/VolumeDriver.Unmount":
	case "/VolumeDriver.Remove":
		delete(p.has, q.Name)
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.1+json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func TestPlugin(t *testing.T) {
	dir := testx.TempRun(t)
	if err := os.MkdirAll(filepath.Join(dir, "plugins"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "plugins", "folders.sock"))
	if err != nil {
		t.Fatal(err)
	}
	p := &plugin{dir: t.TempDir(), has: map[string]bool{}}
	srv := &http.Server{Handler: p}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		srv.Close()
		wg.Wait()
	})
	s := newService(t, dir)
	ctx := t.Context()
	if _, err := s.Create(ctx, api.CreateRequest{Name: "far", Driver: "folders"}); err != nil {
		t.Fatal(err)
	}
	path, err := s.Mount(ctx, "far", "c")
	if err != nil || path != filepath.Join(p.dir, "far") {
		t.Fatalf("%q %v", path, err)
	}
	if err := s.Unmount(ctx, "far", "c"); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Inspect(ctx, "far"); err != nil || v.Driver != "folders" {
		t.Errorf("%+v %v", v, err)
	}
	if err := s.Remove(ctx, "far", false); err != nil || p.has["far"] {
		t.Errorf("remove: %v, plugin still has %v", err, p.has)
	}
	if _, err := s.Create(ctx, api.CreateRequest{Name: "x", Driver: "nosuch"}); err == nil {
		t.Error("a driver that is not there made a volume")
	}
}
