package remote

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

func TestInsecure(t *testing.T) {
	c := Config{Insecure: []string{"reg.lan:5000", "bare.lan", "10.1.0.0/16", "fd00::/8"}}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"127.0.0.1:5000": true, "127.9.9.9": true, "localhost:1": true, "localhost": true, "[::1]:5000": true,
		"reg.lan:5000": true, "reg.lan": false, "reg.lan:5001": false, "bare.lan:1": true, "bare.lan": true,
		"10.1.2.3:5000": true, "10.2.2.3": false, "[fd00::1]:80": true, "example.com": false, "localhost.evil.com": false,
		"127.0.0.1.evil.com": false,
	} {
		if got := c.insecure(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, bad := range []Config{
		{Insecure: []string{"10.0.0.0/99"}}, {Mirrors: map[string][]string{"x": {"mirror.lan"}}},
		{Mirrors: map[string][]string{"x": {"ftp://m"}}}, {Mirrors: map[string][]string{"x": {"https://u:p@m"}}},
		{CertsDir: "relative"},
	} {
		if err := bad.Validate(); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestServerHost(t *testing.T) {
	for in, want := range map[string]string{
		"": "registry-1.docker.io", "https://index.docker.io/v1/": "registry-1.docker.io", "docker.io": "registry-1.docker.io",
		"reg.lan:5000": "reg.lan:5000", "http://reg.lan/v2/": "reg.lan", "reg.lan/path": "reg.lan",
	} {
		if got, err := serverHost(in); err != nil || got != want {
			t.Errorf("%q: %q %v", in, got, err)
		}
	}
	if _, err := serverHost("https://"); err == nil {
		t.Error("an empty host was accepted")
	}
}

// TestCertificates: a registry on an address that is not insecure is trusted
// only with its authority in CertsDir, and gets the client's certificate.
func TestCertificates(t *testing.T) {
	addr := hostAddress(t)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Skip(err)
	}
	srv.Listener.Close()
	srv.Listener = l
	srv.StartTLS()
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "https://")
	dir := t.TempDir()
	c, err := New(Config{CertsDir: dir}, "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Login(t.Context(), host, Credentials{}); err == nil {
		t.Fatal("an unknown authority was trusted")
	}
	conf, err := c.tlsConfig(host)
	if err != nil || conf.InsecureSkipVerify {
		t.Fatalf("%v %v", conf.InsecureSkipVerify, err)
	}
	if err := os.Mkdir(filepath.Join(dir, host), 0o755); err != nil {
		t.Fatal(err)
	}
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, host, "ca.crt"), crt, 0o644); err != nil {
		t.Fatal(err)
	}
	if conf, err = c.tlsConfig(host); err != nil || conf.RootCAs == nil {
		t.Fatalf("%v %v", conf, err)
	}
	if _, err := srv.Certificate().Verify(x509.VerifyOptions{Roots: conf.RootCAs}); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, host, "bad.crt"), []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := c.tlsConfig(host); err == nil {
		t.Error("nonsense was accepted as a certificate")
	}
}

// hostAddress is an address of this machine that is not loopback.
func hostAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback")
	return ""
}

func TestTagsPages(t *testing.T) {
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("last") {
		case "":
			w.Header().Set("Link", `</v2/a/tags/list?last=two>; rel="next"`)
			_, _ = w.Write([]byte(`{"tags":["one","two"]}`)) // the client tells
		case "two":
			_, _ = w.Write([]byte(`{"tags":["three"]}`))
		default:
			w.Header().Set("Link", `<http://evil.example/x>; rel="next"`)
			_, _ = w.Write([]byte(`{"tags":[]}`))
		}
	}))
	t.Cleanup(srv.Close)
	c, err := New(Config{}, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	got, err := c.Session(Credentials{}).Tags(t.Context(), strings.TrimPrefix(srv.URL, "http://"), "a")
	if err != nil || !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("%v %v", got, err)
	}
}

func TestClassify(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
		text   string
	}{
		{docker.Errors{docker.Error{Code: docker.ErrorCodeDenied}}, 403, "error from registry: requested access to the resource is denied"},
		{docker.Error{Code: docker.ErrorCodeUnauthorized, Message: "no"}, 401, "error from registry: no"},
		{errors.Join(docker.ErrInvalidAuthorization, errors.New("x")), 404, "pull access denied for a/b, repository does not exist or may require 'docker login'"},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, 503, "refused"},
		{context.Canceled, 500, "canceled"},
	} {
		got := Classify(tc.err, "a/b")
		if errdefs.HTTPStatus(got) != tc.status || !strings.Contains(got.Error(), tc.text) {
			t.Errorf("%v: %d %v", tc.err, errdefs.HTTPStatus(got), got)
		}
	}
	if Classify(nil, "") != nil {
		t.Error("nil is an error")
	}
}
