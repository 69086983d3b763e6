package cli_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cleatlabs/cleat/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"cleat":                  func() { os.Exit(cli.Main(os.Args[1:])) },
		"docker-credential-fake": credentialHelper,
	})
}

// TestSessions runs the real program against a small daemon in memory.
func TestSessions(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			f := newFake(t)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("CLEAT_HOST", f.host)
			env.Setenv("FAKE", f.host)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits runs a program and wants an exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// credentialHelper is docker-credential-fake: it keeps one login in ~/helper.json.
func credentialHelper() {
	file := filepath.Join(os.Getenv("HOME"), "helper.json")
	in, _ := io.ReadAll(os.Stdin)
	switch os.Args[1] {
	case "store":
		_ = os.WriteFile(file, in, 0o600)
	case "get":
		b, err := os.ReadFile(file)
		if err != nil {
			fmt.Println("credentials not found in native keychain")
			os.Exit(1)
		}
		fmt.Println(string(b))
	case "erase":
		_ = os.Remove(file)
	}
}

// fake is a daemon with two containers, two images and a volume. Container
// exit code and output follow from the command: "exit N" and "echo WORDS".
type fake struct {
	host string
	mu   sync.Mutex
	// created is the latest create request; started is closed when it starts.
	created struct {
		Cmd        []string
		Tty        bool
		OpenStdin  bool
		HostConfig struct{ AutoRemove bool }
	}
	started chan struct{}
	pulled  bool
	files   []byte // the latest archive put
}

func newFake(t *testing.T) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("", "fake")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{host: "unix://" + filepath.Join(dir, "s"), started: make(chan struct{})}
	srv := &http.Server{Handler: f.routes()}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done; _ = os.RemoveAll(dir) })
	return f
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, status int, message, hint string) {
	answer(w, status, map[string]string{"message": message, "hint": hint})
}

const webID = "1111111111111111111111111111111111111111111111111111111111111111"

func (f *fake) containers() []map[string]any {
	return []map[string]any{
		{
			"Id": webID, "Names": []string{"/web"}, "Image": "nginx", "ImageID": "sha256:aa", "Command": "nginx -g 'daemon off;' and more",
			"Created": time.Now().Add(-3 * time.Hour).Unix(), "State": "running", "Status": "Up 3 hours (healthy)",
			"Labels": map[string]string{"tier": "front", "com.example.x": "y"},
			"Ports": []map[string]any{
				{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}, {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
				{"PrivatePort": 443, "Type": "tcp"},
			},
			"Mounts":          []map[string]any{{"Type": "volume", "Name": "data", "Driver": "local", "Destination": "/data"}},
			"NetworkSettings": map[string]any{"Networks": map[string]any{"bridge": map[string]any{}}}, "Health": map[string]any{"Status": "healthy"},
		},
		{
			"Id": strings.Repeat("2", 64), "Names": []string{"/job"}, "Image": "busybox", "ImageID": "sha256:bb", "Command": "true",
			"Created": time.Now().Add(-50 * time.Hour).Unix(), "State": "exited", "Status": "Exited (0) 2 days ago",
		},
	}
}

func (f *fake) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containers/json", func(w http.ResponseWriter, r *http.Request) {
		all := f.containers()
		if r.URL.Query().Get("all") == "" {
			all = all[:1]
		}
		answer(w, 200, all)
	})
	mux.HandleFunc("GET /containers/{name}/json", f.inspect)
	mux.HandleFunc("POST /containers/create", f.create)
	mux.HandleFunc("POST /containers/{name}/start", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		cmd := strings.Join(f.created.Cmd, " ")
		f.mu.Unlock()
		switch {
		case cmd == "missing":
			fail(w, 400, `failed to create task: exec: "missing": executable file not found in $PATH`, "")
		case cmd == "forbidden":
			fail(w, 400, `exec: "forbidden": permission denied`, "")
		default:
			close(f.started)
			w.WriteHeader(http.StatusNoContent)
		}
	})
	mux.HandleFunc("POST /containers/{name}/wait", f.wait)
	mux.HandleFunc("POST /containers/{name}/attach", f.attach)
	mux.HandleFunc("POST /containers/{name}/kill", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) })
	mux.HandleFunc("DELETE /containers/{name}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("name") == "web" {
			fail(w, 409, `cannot remove container "web": container is running: stop the container before removing or force remove`, "try --force, says the daemon")
			return
		}
		if r.PathValue("name") != "job" {
			fail(w, 404, "No such container: "+r.PathValue("name"), "")
			return
		}
		w.WriteHeader(204)
	})
	mux.HandleFunc("GET /containers/{name}/logs", func(w http.ResponseWriter, r *http.Request) {
		_, _ = framed{w, 1}.Write([]byte("to stdout\n"))
		_, _ = framed{w, 2}.Write([]byte("to stderr\n"))
	})
	mux.HandleFunc("/containers/{name}/archive", f.archive)
	mux.HandleFunc("GET /images/json", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, []map[string]any{
			{"Id": "sha256:" + strings.Repeat("a", 64), "RepoTags": []string{"nginx:latest", "nginx:1.27"}, "RepoDigests": []string{"nginx@sha256:" + strings.Repeat("d", 64)}, "Created": time.Now().Add(-72 * time.Hour).Unix(), "Size": 123456789, "Containers": -1, "SharedSize": -1},
			{"Id": "sha256:" + strings.Repeat("b", 64), "Created": time.Now().Add(-time.Hour).Unix(), "Size": 4200000, "Containers": 1, "SharedSize": 200000},
		})
	})
	mux.HandleFunc("POST /images/create", func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Query().Get("fromImage"), "private") {
			auth, _ := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Auth"))
			if !bytes.Contains(auth, []byte(`"password":"secret"`)) {
				fail(w, 401, "unauthorized: authentication required", "")
				return
			}
		}
		f.mu.Lock()
		f.pulled = true
		f.mu.Unlock()
		for _, m := range []string{
			`{"status":"Pulling from library/x","id":"latest"}`, `{"status":"Pulling fs layer","id":"abc"}`,
			`{"status":"Downloading","progressDetail":{"current":10,"total":100},"id":"abc"}`, `{"status":"Pull complete","id":"abc"}`,
			`{"status":"Status: Downloaded newer image"}`,
		} {
			_, _ = io.WriteString(w, m+"\n")
		}
		if strings.Contains(r.URL.Query().Get("fromImage"), "broken") {
			_, _ = io.WriteString(w, `{"errorDetail":{"message":"layer is broken"},"error":"layer is broken","hint":"pull again"}`+"\n")
		}
	})
	mux.HandleFunc("POST /images/load", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, `{"stream":"Loaded image: x:1 (%d bytes)\n"}`+"\n", n)
	})
	mux.HandleFunc("GET /images/get", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "archive") })
	mux.HandleFunc("POST /auth", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if !bytes.Contains(b, []byte("secret")) {
			fail(w, 401, "incorrect username or password", "")
			return
		}
		answer(w, 200, map[string]string{"Status": "Login Succeeded"})
	})
	mux.HandleFunc("GET /networks", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, []map[string]any{{"Id": strings.Repeat("9", 64), "Name": "bridge", "Driver": "bridge", "Scope": "local", "EnableIPv4": true, "Created": "2026-01-02T03:04:05Z"}})
	})
	mux.HandleFunc("GET /volumes", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"Volumes": []map[string]any{{"Name": "data", "Driver": "local", "Scope": "local", "Mountpoint": "/m", "Labels": map[string]string{"a": "b"}}}})
	})
	mux.HandleFunc("GET /volumes/{name}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("name") == "data" {
			answer(w, 200, map[string]any{"Name": "data", "Driver": "local"})
			return
		}
		fail(w, 404, "get "+r.PathValue("name")+": no such volume", "")
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"Version": "9.9", "ApiVersion": "1.50", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64", "Components": []map[string]any{{"Name": "Engine", "Version": "9.9", "Details": map[string]string{"GoVersion": "go1.26"}}}})
	})
	mux.HandleFunc("GET /cleat/v1/doctor", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"kernel": "6.18"})
	})
	mux.HandleFunc("GET /cleat/v1/volumes/{name}/export", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "volume archive") })
	mux.HandleFunc("POST /cleat/v1/volumes/{name}/clone", func(w http.ResponseWriter, r *http.Request) {
		var b struct{ Target string }
		_ = json.NewDecoder(r.Body).Decode(&b)
		answer(w, 201, map[string]string{"Name": b.Target})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/images/") || strings.Contains(r.URL.Path, "/networks/") {
			fail(w, 404, "No such image: "+r.URL.Path, "")
			return
		}
		fail(w, 404, "page not found", "")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.50")
		if r.URL.Path == "/_ping" {
			return
		}
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v1.50"); ok {
			r.URL.Path = rest
		}
		mux.ServeHTTP(w, r)
	})
}

func (f *fake) inspect(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if name != "web" && name != webID && name != "job" && name != "new" {
		fail(w, 404, "No such container: "+name, "")
		return
	}
	answer(w, 200, map[string]any{
		"Id": webID, "Name": "/" + name, "State": map[string]any{"Status": "running", "Running": name == "web", "ExitCode": 0},
		"Config": map[string]any{"Tty": false, "Env": []string{"A=1"}}, "HostConfig": map[string]any{"AutoRemove": false},
		"NetworkSettings": map[string]any{"IPAddress": "172.17.0.2", "Ports": map[string]any{"80/tcp": []map[string]string{{"HostIp": "0.0.0.0", "HostPort": "8080"}}, "443/tcp": nil}},
	})
}

func (f *fake) create(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	var image struct{ Image string }
	_ = json.Unmarshal(b, &image)
	f.mu.Lock()
	defer f.mu.Unlock()
	if strings.HasPrefix(image.Image, "remote") && !f.pulled {
		fail(w, 404, "No such image: "+image.Image, "")
		return
	}
	if r.URL.Query().Get("name") == "web" {
		fail(w, 409, `Conflict. The container name "/web" is already in use by container "`+webID+`". You have to remove (or rename) that container to be able to reuse that name.`, "")
		return
	}
	f.created.Cmd = nil
	_ = json.Unmarshal(b, &f.created)
	f.started = make(chan struct{})
	answer(w, 201, map[string]any{"Id": "new", "Warnings": []string{}})
}

func (f *fake) wait(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	started, cmd := f.started, f.created.Cmd
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(200)
	_ = http.NewResponseController(w).Flush()
	if len(cmd) > 0 && (cmd[0] == "missing" || cmd[0] == "forbidden") {
		_, _ = io.WriteString(w, `{"StatusCode":127}`)
		return
	}
	select {
	case <-started:
	case <-r.Context().Done():
		return
	}
	code := "0"
	if len(cmd) == 2 && cmd[0] == "exit" {
		code = cmd[1]
	}
	_, _ = io.WriteString(w, `{"StatusCode":`+code+`}`)
}

func (f *fake) attach(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	started, cmd := f.started, f.created.Cmd
	f.mu.Unlock()
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if len(cmd) == 1 && cmd[0] == "cat" {
			_, _ = io.Copy(framed{conn, 1}, rw)
			return
		}
		_, _ = io.Copy(io.Discard, rw)
	}()
	if len(cmd) > 0 && (cmd[0] == "missing" || cmd[0] == "forbidden") {
		return
	}
	<-started
	if len(cmd) > 0 && cmd[0] == "cat" {
		<-ended
		return
	}
	if len(cmd) > 1 && cmd[0] == "echo" {
		_, _ = framed{conn, 1}.Write([]byte(strings.Join(cmd[1:], " ") + "\n"))
		_, _ = framed{conn, 2}.Write([]byte("warning\n"))
	}
}

func (f *fake) archive(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Query().Get("path")
	stat := func(name string, mode os.FileMode) {
		b, _ := json.Marshal(map[string]any{"name": name, "mode": mode, "size": 5, "mtime": time.Unix(1e9, 0)})
		w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(b))
	}
	switch {
	case r.Method == http.MethodPut:
		f.mu.Lock()
		f.files, _ = io.ReadAll(r.Body)
		f.mu.Unlock()
	case path == "/last":
		// The names in what was put last.
		f.mu.Lock()
		tr := tar.NewReader(bytes.NewReader(f.files))
		f.mu.Unlock()
		var names []string
		for h, err := tr.Next(); err == nil; h, err = tr.Next() {
			names = append(names, h.Name)
		}
		stat("last", 0o644)
		writeTar(w, "last", strings.Join(names, "\n")+"\n")
	case path == "/dir" || path == "/dir/.":
		stat("dir", os.ModeDir|0o755)
		if r.Method == http.MethodGet {
			writeTar(w, "dir/", "", "dir/file", "inner\n", "dir/sub/", "", "dir/sub/deep", "deep\n")
		}
	case path == "/evil":
		stat("evil", os.ModeDir|0o755)
		writeTar(w, "evil/", "", "evil/../../out", "bad\n")
	case path == "/file":
		stat("file", 0o644)
		if r.Method == http.MethodGet {
			writeTar(w, "file", "content\n")
		}
	default:
		fail(w, 404, "Could not find the file "+path+" in container web", "")
	}
}

func writeTar(w io.Writer, pairs ...string) {
	tw := tar.NewWriter(w)
	for i := 0; i < len(pairs); i += 2 {
		h := &tar.Header{Name: pairs[i], Mode: 0o644, Size: int64(len(pairs[i+1])), ModTime: time.Unix(1e9, 0)}
		if strings.HasSuffix(pairs[i], "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		_ = tw.WriteHeader(h)
		_, _ = io.WriteString(tw, pairs[i+1])
	}
	_ = tw.Close()
}

// framed writes frames of one stream, as daemons do for containers without a terminal.
type framed struct {
	w      io.Writer
	stream byte
}

func (f framed) Write(p []byte) (int, error) {
	head := [8]byte{0: f.stream}
	binary.BigEndian.PutUint32(head[4:], uint32(len(p)))
	if _, err := f.w.Write(append(head[:], p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}
