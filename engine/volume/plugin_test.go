package volume

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/testx"
)

// plugin runs the test plugin until the end of the test, or stop.
func runPlugin(t *testing.T, socket, dir string) (stop func()) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(socket), 0o755))
	cmd := exec.Command(testx.BuildBinary(t, "./engine/volume/plugintest", "", false), socket, dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatal(line, err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // says that it was killed
		must(t, os.Remove(socket))
	}
	t.Cleanup(stop)
	return stop
}

func TestPlugin(t *testing.T) {
	testx.Root(t)
	cfg := config(t)
	dir := t.TempDir()
	testx.NoLeaks(t, dir)
	stop := runPlugin(t, cfg.PluginSockets[0]+"/demo.sock", dir)
	s, _ := start(t, cfg)

	v, err := s.Create(ctx, volume.CreateRequest{Name: "pv", Driver: "demo", DriverOpts: map[string]string{"a": "b"}, Labels: map[string]string{"l": "1"}})
	must(t, err)
	if v.Driver != "demo" || v.Scope != "global" || v.Labels["l"] != "1" || v.Options["a"] != "b" || v.Status["mounts"] != 0.0 {
		t.Errorf("%+v", v)
	}
	_, err = s.Create(ctx, volume.CreateRequest{Name: "pv"})
	refused(t, err, errdefs.ErrConflict, "driver 'demo' already has volume 'pv'")
	_, err = s.Create(ctx, volume.CreateRequest{Name: "bad", Driver: "demo", DriverOpts: map[string]string{"fail": "now"}})
	refused(t, err, errdefs.ErrInternal, "create bad: VolumeDriver.Create: asked to fail: now")
	must(t, os.Mkdir(dir+"/data/foreign", 0o755))
	same(t, names(t, s, nil), "foreign", "pv")
	if f, err := s.Inspect(ctx, "foreign"); err != nil || f.Driver != "demo" {
		t.Errorf("%+v, %v", f, err)
	}

	p1, err := s.Mount(ctx, "pv", "c1")
	must(t, err)
	p2, err := s.Mount(ctx, "pv", "c1")
	must(t, err)
	_, err = s.Mount(ctx, "pv", "c2")
	must(t, err)
	if p1 != dir+"/mnt/pv" || p2 != p1 {
		t.Error(p1, p2)
	}
	must(t, os.WriteFile(p1+"/f", []byte("x"), 0o600))

	s, rec := start(t, cfg) // the daemon is restarted
	if v, err := s.Inspect(ctx, "pv"); err != nil || v.Mountpoint != p1 || v.Labels["l"] != "1" {
		t.Errorf("%+v, %v", v, err)
	}
	must(t, s.Unmount(ctx, "pv", "c1"))
	must(t, s.Unmount(ctx, "pv", "c1"))
	must(t, s.Unmount(ctx, "pv", "c1"))
	refused(t, s.Remove(ctx, "pv", false), errdefs.ErrConflict, "volume is in use - [c2]")
	must(t, s.Unmount(ctx, "pv", "c2"))
	if n := mounted(t, dir); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
	if c, err := s.Clone(ctx, "pv", "copy"); err != nil || c.Driver != "local" {
		t.Errorf("%+v, %v", c, err)
	} else if b, err := os.ReadFile(c.Mountpoint + "/f"); err != nil || string(b) != "x" {
		t.Error(string(b), err)
	}
	rec.take()
	must(t, s.Remove(ctx, "pv", false))
	must(t, s.Remove(ctx, "foreign", false))
	same(t, rec.take(), "destroy pv", "destroy foreign")

	// The plugin goes away: its volumes do, unless the record is forced out.
	_, err = s.Create(ctx, volume.CreateRequest{Name: "late", Driver: "demo"})
	must(t, err)
	stop()
	_, err = s.Mount(ctx, "late", "c1")
	refused(t, err, errdefs.ErrNotFound, `plugin "demo" not found`)
	same(t, names(t, s, nil), "copy", "late")
	if err := s.Remove(ctx, "late", false); err == nil {
		t.Error("removed without its plugin")
	}
	must(t, s.Remove(ctx, "late", true))
}

func TestDiscovery(t *testing.T) {
	cfg := config(t)
	must(t, cfg.Validate())
	sockets, specs := cfg.PluginSockets[0], cfg.PluginSpecs[0]
	must(t, os.MkdirAll(sockets+"/sub", 0o755))
	must(t, os.MkdirAll(specs, 0o755))
	for _, p := range []string{"/a.sock", "/sub/sub.sock"} {
		l, err := net.Listen("unix", sockets+p)
		must(t, err)
		defer l.Close()
	}
	must(t, os.WriteFile(sockets+"/file.sock", nil, 0o600)) // no socket
	must(t, os.WriteFile(specs+"/b.spec", []byte("tcp://127.0.0.1:1\n"), 0o600))
	must(t, os.WriteFile(specs+"/c.json", []byte(`{"Name":"c","Addr":"https://127.0.0.1:1","TLSConfig":{"InsecureSkipVerify":true}}`), 0o600))
	must(t, os.WriteFile(specs+"/a.spec", []byte("tcp://127.0.0.1:2"), 0o600))
	ps := newPlugins(cfg)
	same(t, ps.names(), "a", "b", "c", "sub")
	for name, want := range map[string]string{
		"a": "unix://" + sockets + "/a.sock", "sub": "unix://" + sockets + "/sub/sub.sock",
		"b": "tcp://127.0.0.1:1", "c": "https://127.0.0.1:1",
	} {
		if a, err := ps.locate(name); err != nil || a.URL != want || (a.TLS != nil) != (name == "c") {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	_, err := ps.get(ctx, "b")
	refused(t, err, errdefs.ErrUnavailable, `volume plugin "b" cannot be reached`)
}

// TestBadPlugins: what a plugin answers is not trusted.
func TestBadPlugins(t *testing.T) {
	for name, c := range map[string]struct{ activate, mount, want string }{
		"no volume driver": {`{"Implements":["authz"]}`, ``, "does not implement VolumeDriver"},
		"no JSON":          {`<html>`, ``, "answered no JSON"},
		"relative path":    {`{"Implements":["VolumeDriver"]}`, `{"Mountpoint":"etc"}`, "no absolute mount point"},
		"no path":          {`{"Implements":["VolumeDriver"]}`, `{}`, "no absolute mount point"},
		"error":            {`{"Implements":["VolumeDriver"]}`, `{"Err":"disk on fire"}`, "VolumeDriver.Mount: disk on fire"},
		"hangs":            {`{"Implements":["VolumeDriver"]}`, `hang`, "cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			cfg.PluginTimeout = time.Second
			must(t, cfg.Validate())
			must(t, os.MkdirAll(cfg.PluginSockets[0], 0o755))
			l, err := net.Listen("unix", cfg.PluginSockets[0]+"/p.sock")
			must(t, err)
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body := c.mount
				if strings.HasSuffix(r.URL.Path, "Plugin.Activate") {
					body = c.activate
				}
				if body == "hang" {
					<-r.Context().Done()
					return
				}
				_, _ = w.Write([]byte(body)) // the client may be gone
			})}
			go func() { _ = srv.Serve(l) }() // until Close
			defer srv.Close()
			p, err := newPlugins(cfg).get(ctx, "p")
			if err == nil {
				_, err = p.mount(ctx, "v", "u")
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func FuzzSpec(f *testing.F) {
	f.Add(".json", []byte(`{"Addr":"unix:///x","TLSConfig":{}}`))
	f.Add(".spec", []byte("tcp://[::1]:99\n"))
	f.Fuzz(func(t *testing.T, ext string, data []byte) {
		if a, err := parseSpec(ext, data); err == nil {
			_, _ = newPlugin("p", a, time.Second) // must not panic
		}
	})
}
