package e2e

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/cleatlabs/cleat/test/lab"
)

// guarded is go-containerregistry's registry behind a password, counting the
// bytes of blobs that it takes.
type guarded struct {
	next  http.Handler
	taken atomic.Int64
}

func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, password, ok := r.BasicAuth(); !ok || user != "ann" || password != "secret" {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodPatch || r.Method == http.MethodPut {
		g.taken.Add(max(0, r.ContentLength))
	}
	g.next.ServeHTTP(w, r)
}

// TestRegistry pushes to and pulls from an independent registry with both clients.
func TestRegistry(t *testing.T) {
	guard := &guarded{next: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	srv := httptest.NewServer(guard)
	defer srv.Close()
	host := srv.Listener.Addr().(*net.TCPAddr).String()

	d := lab.StartDaemon(t)
	d.Cleat("load", "-q", "-i", lab.Busybox(t))
	for _, cli := range []string{"docker", "cleat"} {
		t.Run(cli, func(t *testing.T) {
			home := t.TempDir()
			call := func(args ...string) (string, error) {
				name := cli
				if cli == "cleat" {
					name = filepath.Join(d.Bin, cli)
				}
				cmd := exec.Command(name, args...)
				cmd.Env = append(d.Env(), "HOME="+home, "DOCKER_CONFIG="+home+"/.docker")
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			must := func(args ...string) string {
				t.Helper()
				out, err := call(args...)
				if err != nil {
					t.Fatalf("%s %s: %v\n%s", cli, strings.Join(args, " "), err, out)
				}
				return out
			}
			name := host + "/team/" + cli + ":v1"
			must("tag", "busybox", name)
			if out, err := call("push", name); err == nil {
				t.Fatalf("push without login worked: %s", out)
			}
			if out, err := call("login", "-u", "ann", "-p", "wrong", host); err == nil {
				t.Fatalf("login with a wrong password worked: %s", out)
			}
			must("login", "-u", "ann", "-p", "secret", host)
			if out := must("push", name); !strings.Contains(out, "digest: sha256:") {
				t.Errorf("push said: %s", out)
			}
			if guard.taken.Load() == 0 {
				t.Error("the registry took nothing")
			}
			must("rmi", name)
			if out := must("pull", name); !strings.Contains(out, "Digest: sha256:") {
				t.Errorf("pull said: %s", out)
			}
			if out := must("run", "--rm", name, "echo", "pulled"); !strings.Contains(out, "pulled") {
				t.Errorf("run said: %s", out)
			}
			if _, err := call("pull", host+"/team/none:v1"); err == nil {
				t.Error("pull of what is not there worked")
			}
			must("logout", host)
			must("rmi", name)
			if _, err := call("pull", name); err == nil {
				t.Error("pull after logout worked")
			}
			if data, err := os.ReadFile(home + "/.docker/config.json"); err == nil && strings.Contains(string(data), "c2VjcmV0") {
				t.Error("the password is still in the configuration")
			}
		})
	}
}
