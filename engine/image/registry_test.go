package image

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/registry"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/oci/ocitest"
)

var noTime time.Time

func plainRegistry() http.Handler { return ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))) }

func serve(t testing.TB, h http.Handler) (*httptest.Server, string) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv, strings.TrimPrefix(srv.URL, "http://")
}

// basic asks for a user and password.
func basic(user, password string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// token asks for a bearer token, which /token gives for a user and password.
func token(user, password string, h http.Handler, refresh bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			giveToken(w, r, user, password, refresh)
			return
		}
		want := "Bearer token-for-" + user
		if r.Header.Get("Authorization") != want {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test",scope="repository:lib/demo:pull,push"`, r.Host))
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func giveToken(w http.ResponseWriter, r *http.Request, user, password string, refresh bool) {
	u, p, _ := r.BasicAuth()
	identity := ""
	if r.Method == http.MethodPost {
		if !refresh {
			http.Error(w, "no", http.StatusMethodNotAllowed)
			return
		}
		u, p, identity = r.FormValue("username"), r.FormValue("password"), r.FormValue("refresh_token")
	}
	if identity != "identity-"+user && (u != user || p != password) {
		http.Error(w, `{"details":"incorrect username or password"}`, http.StatusUnauthorized)
		return
	}
	out := map[string]any{"token": "token-for-" + user, "access_token": "token-for-" + user, "expires_in": 300}
	if refresh {
		out["refresh_token"] = "identity-" + user
	}
	if err := json.NewEncoder(w).Encode(out); err != nil {
		panic(err)
	}
}

func TestAuthentication(t *testing.T) {
	good := &registry.AuthConfig{Username: "anna", Password: "secret"}
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"basic":    func(h http.Handler) http.Handler { return basic("anna", "secret", h) },
		"token":    func(h http.Handler) http.Handler { return token("anna", "secret", h, false) },
		"identity": func(h http.Handler) http.Handler { return token("anna", "secret", h, true) },
	} {
		t.Run(name, func(t *testing.T) {
			_, host := serve(t, wrap(plainRegistry()))
			f := newFixture(t, nil)
			f.load(t, two(host+"/lib/demo:1"))
			ref := host + "/lib/demo:1"
			for _, auth := range []*registry.AuthConfig{nil, {Username: "anna", Password: "wrong"}} {
				if err := f.Push(t.Context(), PushOptions{Ref: ref, Auth: auth}); err == nil {
					t.Errorf("push with %+v succeeded", auth)
				}
				if err := f.Pull(t.Context(), PullOptions{Ref: ref, Auth: auth}); err == nil {
					t.Errorf("pull with %+v succeeded", auth)
				}
			}
			must(t, f.Push(t.Context(), PushOptions{Ref: ref, Auth: good}))
			must(t, f.Pull(t.Context(), PullOptions{Ref: ref, Auth: good}))
			must(t, f.Pull(t.Context(), PullOptions{Ref: host + "/lib/demo", AllTags: true, Auth: good}))

			a, err := f.Login(t.Context(), registry.AuthConfig{Username: "anna", Password: "secret", ServerAddress: host})
			if err != nil || a.Status != "Login Succeeded" || (a.IdentityToken != "") != (name == "identity") {
				t.Errorf("login %+v %v", a, err)
			}
			_, err = f.Login(t.Context(), registry.AuthConfig{Username: "anna", Password: "wrong", ServerAddress: "https://" + host + "/v1/"})
			if errdefs.HTTPStatus(err) != http.StatusUnauthorized || !strings.Contains(err.Error(), "unauthorized: incorrect username or password") {
				t.Errorf("login with a wrong password: %v", err)
			}
			if a.IdentityToken != "" {
				must(t, f.Pull(t.Context(), PullOptions{Ref: ref, Auth: &registry.AuthConfig{IdentityToken: a.IdentityToken}}))
			}
		})
	}
}

// flaky cuts responses that carry a large blob after some bytes, and counts
// Range requests.
type flaky struct {
	http.Handler
	cuts   atomic.Int32 // how many more to cut
	ranges atomic.Int32
	after  int
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
		if r.Header.Get("Range") != "" {
			f.ranges.Add(1)
		}
		w = &cutWriter{ResponseWriter: w, f: f, left: f.after}
	}
	f.Handler.ServeHTTP(w, r)
}

type cutWriter struct {
	http.ResponseWriter
	f    *flaky
	left int
}

func (c *cutWriter) Write(b []byte) (int, error) {
	if len(b) > c.left && c.f.cuts.Add(-1) >= 0 {
		n, err := c.ResponseWriter.Write(b[:c.left])
		if err != nil {
			return n, err
		}
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(b)
	return c.ResponseWriter.Write(b)
}

// big is an image with a layer that does not compress.
func big(names ...string) ocitest.Image {
	data := make([]byte, 600<<10)
	x := uint32(1)
	for i := range data {
		x = x*1664525 + 1013904223
		data[i] = byte(x >> 24)
	}
	i := two(names...)
	i.Layers = append(i.Layers, ocitest.Layer{Files: []ocitest.File{{Path: "big", Data: data}}})
	return i
}

func TestPullResumesWithinOnePull(t *testing.T) {
	fl := &flaky{Handler: rangeRegistry(t, big()), after: 200 << 10}
	_, host := serve(t, fl)
	fl.cuts.Store(2)
	f := newFixture(t, nil)
	must(t, f.Pull(t.Context(), PullOptions{Ref: host + "/lib/demo:1"}))
	if fl.ranges.Load() == 0 {
		t.Error("the download was not resumed with a Range request")
	}
	checkTwo(t, f.writable(t, "c", host+"/lib/demo:1"))
}

// rangeRegistry serves one image and understands Range, which the registry
// library does not for manifests and blobs alike.
func rangeRegistry(t testing.TB, i ocitest.Image) http.Handler {
	t.Helper()
	b := build(t, i)
	return serveBlobs(func(d string) ([]byte, string, bool) {
		for k, v := range b.Blobs {
			if k.String() == d {
				if k == b.Manifest.Digest {
					return v, b.Manifest.MediaType, true
				}
				return v, "application/octet-stream", true
			}
		}
		if d == "1" {
			return b.Blobs[b.Manifest.Digest], b.Manifest.MediaType, true
		}
		return nil, "", false
	}, b.Manifest.Digest.String())
}

func serveBlobs(find func(string) ([]byte, string, bool), manifest string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		data, mediaType, ok := find(filepath.Base(r.URL.Path))
		if !ok {
			http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`, http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", mediaType)
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Docker-Content-Digest", manifest)
		}
		http.ServeContent(w, r, "", noTime, strings.NewReader(string(data)))
	})
}

func TestPullResumesAfterFailure(t *testing.T) {
	fl := &flaky{Handler: rangeRegistry(t, big()), after: 300 << 10}
	_, host := serve(t, fl)
	fl.cuts.Store(1000)
	f := newFixture(t, nil)
	ref := host + "/lib/demo:1"
	fl.after = 300 << 10
	if err := f.Pull(t.Context(), PullOptions{Ref: ref}); err == nil {
		t.Skip("every cut was made good within one pull")
	}
	must(t, f.st.Collect(t.Context())) // what can be resumed is kept
	statuses, err := f.st.Content().ListStatuses(f.st.Context(t.Context()))
	if err != nil || len(statuses) == 0 {
		t.Fatalf("no ingest is left to resume: %v %v", statuses, err)
	}
	fl.cuts.Store(0)
	fl.ranges.Store(0)
	must(t, f.Pull(t.Context(), PullOptions{Ref: ref}))
	if fl.ranges.Load() == 0 {
		t.Error("the second pull began again")
	}
	checkTwo(t, f.writable(t, "c", ref))
}

func TestPullRefusesWrongDigest(t *testing.T) {
	b := build(t, two())
	for _, what := range []string{"layer", "config", "manifest"} {
		t.Run(what, func(t *testing.T) {
			bad := map[string][]byte{}
			for d, data := range b.Blobs {
				bad[d.String()] = data
			}
			target := b.Layers[0].Digest
			switch what {
			case "config":
				target = b.Config.Digest
			case "manifest":
				target = b.Manifest.Digest
			}
			changed := append([]byte(nil), bad[target.String()]...)
			changed[len(changed)/2] ^= 1
			bad[target.String()] = changed
			_, host := serve(t, serveBlobs(func(d string) ([]byte, string, bool) {
				if d == "1" {
					d = b.Manifest.Digest.String()
				}
				data, ok := bad[d]
				mt := "application/octet-stream"
				if d == b.Manifest.Digest.String() {
					mt = b.Manifest.MediaType
				}
				return data, mt, ok
			}, b.Manifest.Digest.String()))
			f := newFixture(t, nil)
			ref := host + "/lib/demo:1"
			err := f.Pull(t.Context(), PullOptions{Ref: ref})
			if err == nil || !strings.Contains(err.Error(), "does not match its digest") {
				t.Errorf("error %v", err)
			}
			if _, err := f.Get(t.Context(), ref, nil); errdefs.HTTPStatus(err) != http.StatusNotFound {
				t.Errorf("the image has a name: %v", err)
			}
		})
	}
}

func TestMirrors(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	count := func(name string, h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked[name]++
			if a := r.Header.Get("Authorization"); a != "" && name != "origin" {
				asked["credentials sent to "+name]++
			}
			mu.Unlock()
			h.ServeHTTP(w, r)
		})
	}
	_, origin := serve(t, count("origin", basic("anna", "secret", rangeRegistry(t, two()))))
	empty, _ := serve(t, count("empty", plainRegistry()))
	full, _ := serve(t, count("full", rangeRegistry(t, two())))
	auth := &registry.AuthConfig{Username: "anna", Password: "secret"}
	use := func(urls ...string) *fixture {
		return newFixture(t, func(c *Config) { c.Registries.Mirrors = map[string][]string{origin: urls} })
	}
	f := use("http://127.0.0.1:1", empty.URL, full.URL)
	must(t, f.Pull(t.Context(), PullOptions{Ref: origin + "/lib/demo:1", Auth: auth}))
	checkTwo(t, f.writable(t, "c", origin+"/lib/demo:1"))
	if asked["full"] == 0 || asked["empty"] == 0 || asked["origin"] != 0 {
		t.Errorf("asked: %v", asked)
	}
	f = use(empty.URL)
	must(t, f.Pull(t.Context(), PullOptions{Ref: origin + "/lib/demo:1", Auth: auth}))
	if asked["origin"] == 0 {
		t.Errorf("asked: %v", asked)
	}
	for k := range asked {
		if strings.HasPrefix(k, "credentials") {
			t.Error(k)
		}
	}
}

func TestSchema1IsRefused(t *testing.T) {
	body := []byte(`{"schemaVersion":1,"name":"lib/demo","tag":"1"}`)
	_, host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
		http.ServeContent(w, r, "", noTime, strings.NewReader(string(body)))
	}))
	f := newFixture(t, nil)
	err := f.Pull(t.Context(), PullOptions{Ref: host + "/lib/demo:1"})
	if err == nil || !strings.Contains(err.Error(), "manifest version 2, schema 1 are not supported") {
		t.Errorf("error %v", err)
	}
}

func TestCrossRepositoryMount(t *testing.T) {
	var mounts atomic.Int32
	reg := plainRegistry()
	_, host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Query().Get("mount") != "" {
			mounts.Add(1)
		}
		// The registry library has one set of blobs for all repositories.
		if r.Method == http.MethodHead && strings.HasPrefix(r.URL.Path, "/v2/lib/b/blobs/") {
			http.NotFound(w, r)
			return
		}
		reg.ServeHTTP(w, r)
	}))
	f := newFixture(t, nil)
	f.load(t, two("demo:1"))
	for _, repo := range []string{"a", "b"} {
		ref := host + "/lib/" + repo + ":1"
		must(t, f.Tag(t.Context(), "demo:1", ref))
		must(t, f.Push(t.Context(), PushOptions{Ref: ref, Progress: f.rec.progress}))
	}
	if mounts.Load() == 0 {
		t.Error("no blob was mounted from the first repository")
	}
}

func TestInsecureOnlyWhereConfigured(t *testing.T) {
	srv := httptest.NewTLSServer(rangeRegistry(t, two())) // a certificate that nobody signed
	t.Cleanup(srv.Close)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	host := strings.TrimPrefix(srv.URL, "https://")
	f := newFixture(t, nil)
	must(t, f.Pull(t.Context(), PullOptions{Ref: host + "/lib/demo:1"})) // 127.0.0.1 is insecure by default
}

func TestConcurrentPullsShareWork(t *testing.T) {
	_, host := serve(t, rangeRegistry(t, big()))
	f := newFixture(t, nil)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if err := f.Pull(t.Context(), PullOptions{Ref: host + "/lib/demo:1", Progress: f.rec.progress}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	checkTwo(t, f.writable(t, "c", host+"/lib/demo:1"))
}

func TestPullByDigest(t *testing.T) {
	b := build(t, two())
	_, host := serve(t, rangeRegistry(t, two()))
	f := newFixture(t, nil)
	ref := host + "/lib/demo@" + b.Manifest.Digest.String()
	must(t, f.Pull(t.Context(), PullOptions{Ref: ref, Progress: f.rec.progress}))
	in, err := f.Inspect(t.Context(), ref, nil, false)
	must(t, err)
	if len(in.RepoTags) != 0 || len(in.RepoDigests) != 1 || in.RepoDigests[0] != ref || in.ID != b.Manifest.Digest.String() {
		t.Errorf("%v %v %s", in.RepoTags, in.RepoDigests, in.ID)
	}
	if !f.rec.has(b.Manifest.Digest.String() + " Pulling from lib/demo") {
		t.Errorf("messages %q", f.rec.lines)
	}
	rs, err := f.Remove(t.Context(), ref, RemoveOptions{})
	if err != nil || len(rs) != 2 || rs[0].Untagged != ref {
		t.Errorf("%+v %v", rs, err)
	}
}

func TestInspect(t *testing.T) {
	f := newFixture(t, nil)
	i := two("demo:1", "quay.io/x/demo:1")
	i.Config.Env = []string{"A=1"}
	i.Config.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD", "x"}}
	f.load(t, i)
	in, err := f.Inspect(t.Context(), "demo:1", nil, true)
	must(t, err)
	b := build(t, i)
	if in.ID != b.Manifest.Digest.String() || in.Os != "linux" || in.Architecture != runtime.GOARCH || in.Size <= 0 ||
		in.Created != "2024-01-02T03:04:05Z" || in.RootFS.Type != "layers" || len(in.RootFS.Layers) != 2 ||
		!slices.Equal(in.RepoTags, []string{"demo:1", "quay.io/x/demo:1"}) || len(in.RepoDigests) != 2 ||
		in.Config.Env[0] != "A=1" || in.Config.Healthcheck == nil || in.GraphDriver.Name == "" || in.Metadata.LastTagTime.IsZero() {
		t.Errorf("%+v", in)
	}
	if len(in.Manifests) != 1 || !in.Manifests[0].Available || in.Manifests[0].Kind != "image" || in.Manifests[0].ImageData.Size.Unpacked <= 0 {
		t.Errorf("%+v", in.Manifests)
	}
	if _, err := f.Inspect(t.Context(), "nothing", nil, false); err == nil || err.Error() != "No such image: nothing:latest" {
		t.Errorf("error %v", err)
	}
}
