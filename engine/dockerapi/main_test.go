package dockerapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/engine/dockerapi"
	"github.com/cleatlabs/cleat/internal/testx"
)

// rig is a server with fake backends on a unix socket.
type rig struct {
	*fakes
	t        testing.TB
	socket   string
	listener *dockerapi.Listener
	http     *http.Client
	log      *lockedBuffer
}

type lockedBuffer struct {
	mu  chan struct{}
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu <- struct{}{}
	defer func() { <-b.mu }()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu <- struct{}{}
	defer func() { <-b.mu }()
	return b.buf.String()
}

func newRig(t testing.TB, change ...func(*dockerapi.ListenConfig)) *rig {
	t.Helper()
	r := &rig{fakes: newFakes(), t: t, log: &lockedBuffer{mu: make(chan struct{}, 1)}}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv, err := dockerapi.New(dockerapi.Config{ServerVersion: "1.2.3", MaxBody: 1 << 20}, r.backends(), log)
	if err != nil {
		t.Fatal(err)
	}
	r.socket = filepath.Join(testx.TempRun(t), "engine.sock")
	cfg := dockerapi.ListenConfig{Socket: r.socket}
	for _, f := range change {
		f(&cfg)
	}
	if r.listener, err = dockerapi.NewListener(cfg, srv.Handler(), log); err != nil {
		t.Fatal(err)
	}
	if err := r.listener.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.http != nil {
			r.http.CloseIdleConnections()
		}
		if err := r.listener.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	r.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", r.socket)
		},
	}}
	return r
}

// docker is the real client.
func (r *rig) docker() *client.Client {
	r.t.Helper()
	c, err := client.New(client.WithHost("unix://" + r.socket))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// do sends one request; path has the version.
func (r *rig) do(method, path, body string, header ...string) *http.Response {
	r.t.Helper()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://engine"+path, rd)
	if err != nil {
		r.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	r.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// text is the body of an answer, whose status must be as given.
func (r *rig) text(status int, method, path, body string, header ...string) string {
	r.t.Helper()
	resp := r.do(method, path, body, header...)
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	if resp.StatusCode != status {
		r.t.Fatalf("%s %s: status %d, want %d; body %s", method, path, resp.StatusCode, status, b)
	}
	return string(b)
}

// object is the body as a JSON object.
func (r *rig) object(status int, method, path, body string, header ...string) map[string]any {
	r.t.Helper()
	text := r.text(status, method, path, body, header...)
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		r.t.Fatalf("%s %s: %v in %s", method, path, err, text)
	}
	return m
}

// dial opens a raw connection and sends a request on it.
func (r *rig) dial(request string) (*net.UnixConn, *bufio.Reader) {
	r.t.Helper()
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, request); err != nil {
		r.t.Fatal(err)
	}
	return c.(*net.UnixConn), bufio.NewReader(c)
}

// ownGoroutines counts the goroutines that run code of the package under test.
func ownGoroutines() int {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	n := 0
	for g := range bytes.SplitSeq(buf, []byte("\n\n")) {
		for _, f := range []string{"dockerapi.join", "dockerapi.pump", "dockerapi.(*promptWriter)", "dockerapi.(*Server)", "dockerapi.(*hangupWatch)"} {
			if bytes.Contains(g, []byte(f)) {
				n++
				break
			}
		}
	}
	return n
}

// settle waits until no handler of the package is at work.
func settle(t *testing.T) {
	t.Helper()
	for range 1000 {
		if ownGoroutines() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Fatalf("goroutines are left:\n%s", buf[:runtime.Stack(buf, true)])
}
