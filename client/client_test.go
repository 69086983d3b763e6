package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/registry"
	moby "github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

func TestParseHost(t *testing.T) {
	good := map[string]Address{
		"unix:///run/x.sock":               {Proto: "unix", Addr: "/run/x.sock"},
		"/run/x.sock":                      {Proto: "unix", Addr: "/run/x.sock"},
		"tcp://h:2375":                     {Proto: "tcp", Addr: "h", Port: "2375"},
		"h:2375":                           {Proto: "tcp", Addr: "h", Port: "2375"},
		"tcp://[::1]:5/p/":                 {Proto: "tcp", Addr: "::1", Port: "5", Path: "/p"},
		"tcp://:2375":                      {Proto: "tcp", Addr: "localhost", Port: "2375"},
		"ssh://me@host:22/run/docker.sock": {Proto: "ssh", Addr: "host", User: "me", Port: "22", Path: "/run/docker.sock"},
		"ssh://host":                       {Proto: "ssh", Addr: "host"},
		"npipe:////./pipe/docker_engine":   {Proto: "npipe", Addr: "//./pipe/docker_engine"},
	}
	for in, want := range good {
		got, err := ParseHost(in)
		if err != nil || got != want {
			t.Errorf("ParseHost(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "unix://", "ftp://x", "ssh://", "ssh://u:p@h", "ssh://-oProxyCommand=x", "ssh://-u@h", "tcp://", "tcp://a:b:c", "tcp://h?x=y", "fd://", "ssh://h?x"} {
		if a, err := ParseHost(in); err == nil {
			t.Errorf("ParseHost(%q) = %+v, want an error", in, a)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	for _, s := range []string{"unix:///x", "tcp://h:1", "ssh://u@h:1/p", "ssh://-x", "://", "ssh://%2d@h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseHost(s)
		if err != nil || a.Proto != "ssh" {
			return
		}
		for i, arg := range sshArgs(a) {
			if strings.HasPrefix(arg, "-") && arg != "-T" && arg != "-o" && arg != "-l" && arg != "-p" && arg != "--" && arg != "-c" {
				t.Errorf("argument %d of ssh for %q is an option: %q", i, s, arg)
			}
		}
	})
}

func TestResolveOrder(t *testing.T) {
	dir := t.TempDir()
	c := NewContexts(dir)
	for _, n := range []string{"current", "named", "fromenv"} {
		if err := c.Create(Context{Name: n, Host: "tcp://" + n + ":1"}, TLSMaterial{}); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		name string
		sel  Selection
		env  map[string]string
		use  string
		want string
	}{
		{name: "nothing", want: DefaultHost},
		{name: "current", use: "current", want: "tcp://current:1"},
		{name: "DOCKER_CONTEXT", use: "current", env: map[string]string{"DOCKER_CONTEXT": "fromenv"}, want: "tcp://fromenv:1"},
		{name: "CLEAT_CONTEXT", env: map[string]string{"DOCKER_CONTEXT": "named", "CLEAT_CONTEXT": "fromenv"}, want: "tcp://fromenv:1"},
		{name: "DOCKER_HOST", use: "current", env: map[string]string{"DOCKER_HOST": "tcp://d:1", "CLEAT_CONTEXT": "fromenv"}, want: "tcp://d:1"},
		{name: "CLEAT_HOST", env: map[string]string{"DOCKER_HOST": "tcp://d:1", "CLEAT_HOST": "tcp://c:1"}, want: "tcp://c:1"},
		{name: "--context", sel: Selection{Context: "named"}, env: map[string]string{"CLEAT_HOST": "tcp://c:1"}, want: "tcp://named:1"},
		{name: "--context default", sel: Selection{Context: "default"}, use: "current", want: DefaultHost},
		{name: "--host", sel: Selection{Host: "tcp://h:1"}, env: map[string]string{"CLEAT_HOST": "tcp://c:1"}, want: "tcp://h:1"},
	}
	for _, s := range steps {
		use := s.use
		if use == "" {
			use = DefaultContext
		}
		if err := c.Use(use); err != nil {
			t.Fatal(err)
		}
		ep, err := Resolve(s.sel, func(k string) string { return s.env[k] }, c)
		if err != nil || ep.Host != s.want {
			t.Errorf("%s: %q, %v; want %q", s.name, ep.Host, err, s.want)
		}
	}
}

func TestSettingsAreKept(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, []byte(`{"detachKeys":"ctrl-x","other":{"a":1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := NewContexts(dir)
	if err := c.Create(Context{Name: "lab", Host: "unix:///x"}, TLSMaterial{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Use("lab"); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(file)
	for _, want := range []string{`"other"`, `"detachKeys"`, `"currentContext"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s lost: %s", want, b)
		}
	}
}

func TestAuthFile(t *testing.T) {
	home := t.TempDir()
	f := OpenAuthFile(func(k string) string { return map[string]string{"HOME": home}[k] })
	if a, err := f.Get("r.example.com"); err != nil || a.Username != "" {
		t.Errorf("without a file: %+v, %v", a, err)
	}
	want := registry.AuthConfig{ServerAddress: "r.example.com", Username: "me", Password: "with:colon"}
	if _, err := f.Store(want); err != nil {
		t.Fatal(err)
	}
	got, err := f.Get("r.example.com")
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("Get = %+v, %v", got, err)
	}
	if st, _ := os.Stat(f.Path()); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	for ref, key := range map[string]string{
		"busybox": IndexServer, "a/b:1": IndexServer, "docker.io/a": IndexServer, "r.example.com/a": "r.example.com", "localhost:5000/a@sha256:" + strings.Repeat("a", 64): "localhost:5000",
	} {
		if got, err := ServerOf(ref); err != nil || got != key {
			t.Errorf("ServerOf(%q) = %q, %v; want %q", ref, got, err, key)
		}
	}
	// docker writes URLs as keys, too
	if err := os.WriteFile(f.Path(), []byte(`{"auths":{"https://old.example.com/v1/":{"auth":"YTpi"},"broken.example.com":{"auth":"%"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err := f.Get("old.example.com"); err != nil || a.Username != "a" || a.Password != "b" {
		t.Errorf("by URL: %+v, %v", a, err)
	}
	if _, err := f.Get("broken.example.com"); err == nil {
		t.Error("a broken entry is no login")
	}
	if found, err := f.Erase("old.example.com"); !found || err != nil {
		t.Errorf("Erase = %v, %v", found, err)
	}
}

// TestLongSocketPath dials a socket whose path does not fit into an address.
func TestLongSocketPath(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a Linux matter")
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("long-", 24))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	serve(t, "unix", "s", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.50") }), nil)
	e, err := Open(Endpoint{Host: "unix://" + filepath.Join(dir, "s")}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Ping(context.Background(), moby.PingOptions{NegotiateAPIVersion: true}); err != nil || e.ClientVersion() != "1.50" {
		t.Errorf("ping: %v, version %s", err, e.ClientVersion())
	}
}

func serve(t *testing.T, network, addr string, h http.Handler, c *tls.Config) net.Addr {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	if c != nil {
		l = tls.NewListener(l, c)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return l.Addr()
}

// TestMutualTLS goes through requests and an upgraded stream over TLS with
// certificates on both sides.
func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	addr := serve(t, "tcp", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.50")
		if !strings.HasSuffix(r.URL.Path, "/attach") {
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello")
		_ = conn.Close()
	}), &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})

	contexts := NewContexts(dir)
	if err := contexts.Create(Context{Name: "tls", Host: "tcp://" + addr.String(), UseTLS: true}, TLSMaterial{CA: certPEM, Cert: certPEM, Key: keyPEM}); err != nil {
		t.Fatal(err)
	}
	c, err := contexts.Get("tls")
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(c.Endpoint(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	res, err := e.ContainerAttach(context.Background(), "x", moby.ContainerAttachOptions{Stream: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	if b, _ := io.ReadAll(res.Reader); string(b) != "hello" {
		t.Errorf("stream: %q", b)
	}
	// Without the client's certificate nothing works, and the error is clear.
	bare, err := Open(Endpoint{Host: "tcp://" + addr.String(), TLS: &TLSFiles{CA: filepath.Join(dir, "contexts", "tls", "ca.pem")}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bare.Info(context.Background(), moby.InfoOptions{}); err == nil {
		t.Error("no error without a certificate")
	}
}

// TestErrorsOfStreams wants the daemon's words, class and hint from a refused attach.
func TestErrorsOfStreams(t *testing.T) {
	addr := serve(t, "tcp", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/_ping") {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"message":"container is paused","hint":"unpause it"}`)
	}), nil)
	e, err := Open(Endpoint{Host: "tcp://" + addr.String()}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	_, err = e.ContainerAttach(context.Background(), "x", moby.ContainerAttachOptions{})
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "container is paused") || e.Hint(err) != "unpause it" {
		t.Errorf("attach: %v, hint %q", err, e.Hint(err))
	}
	_, err = e.ContainerStart(context.Background(), "x", moby.ContainerStartOptions{})
	if !errors.Is(err, errdefs.ErrConflict) || e.Hint(err) != "unpause it" {
		t.Errorf("start: %v, hint %q", err, e.Hint(err))
	}
	if e.Hint(errors.New("other")) != "" {
		t.Error("a hint for an error it does not belong to")
	}
}

// TestSSH puts a program in place of ssh that speaks for the other side.
func TestSSH(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"$@\" > " + dir + "/args\nread request\nprintf 'HTTP/1.1 200 OK\\r\\nApi-Version: 1.50\\r\\nContent-Length: 0\\r\\n\\r\\n'\ncat >/dev/null\n"
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	e, err := Open(Endpoint{Host: "ssh://me@far:2222/run/o'x.sock"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Ping(context.Background(), moby.PingOptions{NegotiateAPIVersion: true}); err != nil {
		t.Fatal(err)
	}
	_ = e.Close()
	b, _ := os.ReadFile(filepath.Join(dir, "args"))
	for _, want := range []string{"-l me", "-p 2222", "-- far sh -c", "system dial-stdio"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("ssh was not given %q: %s", want, b)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte("#!/bin/sh\necho no route >&2; exit 255\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	e, err = Open(Endpoint{Host: "ssh://far"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Info(context.Background(), moby.InfoOptions{}); err == nil || !strings.Contains(err.Error(), "no route") {
		t.Errorf("the words of ssh are missing: %v", err)
	}
}
