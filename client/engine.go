package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-connections/sockets"
	"github.com/moby/moby/api/types/container"
	moby "github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/api/enginev1"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Engine is a daemon that speaks the Docker API. Its methods are those of the
// moby client, of which it replaces the upgraded streams, and ours beyond it.
// It is safe for concurrent use. Close drops idle connections.
type Engine struct {
	*moby.Client
	ep     Endpoint
	addr   Address
	tls    *tls.Config
	dial   func(ctx context.Context) (net.Conn, error)
	http   *http.Client
	hints  *hints
	scheme string
}

// Options are those of Open.
type Options struct {
	// Version pins the API version; empty means to agree with the daemon at the first request.
	Version   string
	UserAgent string
	// Trace, if set, is told of every exchange; status is 0 where none came.
	Trace func(method, path string, status int, took time.Duration)
}

// Open prepares an Engine; the first request dials.
func Open(ep Endpoint, o Options) (*Engine, error) {
	addr, err := ParseHost(ep.Host)
	if err != nil {
		return nil, err
	}
	tc, err := ep.TLS.config()
	if err != nil {
		return nil, err
	}
	e := &Engine{ep: ep, addr: addr, tls: tc, hints: &hints{}, scheme: "http"}
	base := &http.Transport{
		MaxIdleConns: 6, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
		TLSClientConfig: tc, ReadBufferSize: 32 << 10, WriteBufferSize: 32 << 10,
	}
	if e.dial, err = dialer(addr, tc != nil, base); err != nil {
		return nil, err
	}
	dial := e.dial
	e.dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			e.hints.setDial(err)
		}
		return conn, err
	}
	base.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return e.dial(ctx) }
	if tc != nil {
		e.scheme = "https"
	}
	e.http = &http.Client{Transport: &transport{base: base, hints: e.hints, trace: o.Trace}, CheckRedirect: moby.CheckRedirect}

	opts := []moby.Opt{moby.WithHost(mobyHost(addr, tc != nil)), moby.WithHTTPClient(e.http), moby.WithScheme(e.scheme), moby.WithUserAgent(o.UserAgent)}
	if o.Version != "" {
		e.hints.negotiated = true
		opts = append(opts, moby.WithAPIVersion(o.Version))
	}
	if e.Client, err = moby.New(opts...); err != nil {
		return nil, err
	}
	return e, nil
}

// mobyHost words the address so that the moby client makes right URLs. What
// it would dial by itself is not used: the HTTP client and Hijack dial here.
func mobyHost(a Address, secure bool) string {
	switch a.Proto {
	case "unix":
		return "unix:///sock"
	case "npipe":
		return "npipe://" + a.Addr
	case "ssh":
		return "tcp://" + a.Addr
	default:
		return "tcp://" + a.hostPort(secure) + a.Path
	}
}

func dialer(a Address, secure bool, tr *http.Transport) (func(context.Context) (net.Conn, error), error) {
	switch a.Proto {
	case "unix":
		return func(ctx context.Context) (net.Conn, error) { return dialUnix(ctx, a.Addr) }, nil
	case "npipe":
		if err := sockets.ConfigureTransport(tr, "npipe", a.Addr); err != nil {
			return nil, err
		}
		d := tr.DialContext
		return func(ctx context.Context) (net.Conn, error) { return d(ctx, "npipe", a.Addr) }, nil
	case "ssh":
		return func(ctx context.Context) (net.Conn, error) { return dialSSH(ctx, a) }, nil
	default:
		d := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}
		return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", a.hostPort(secure)) }, nil
	}
}

// Endpoint says where the daemon is.
func (e *Engine) Endpoint() Endpoint { return e.ep }

// Close drops idle connections.
func (e *Engine) Close() error {
	e.http.CloseIdleConnections()
	return nil
}

// DialRaw opens a plain byte stream to the daemon, for dial-stdio.
func (e *Engine) DialRaw(ctx context.Context) (net.Conn, error) {
	conn, err := e.dial(ctx)
	if err != nil || e.tls == nil {
		return conn, err
	}
	c := e.tls.Clone()
	if c.ServerName == "" {
		c.ServerName = e.addr.Addr
	}
	t := tls.Client(conn, c)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error is the one to report
		return nil, err
	}
	return t, nil
}

// DialError is why the latest attempt to dial failed, nil if none did. The moby
// client's errors leave it out.
func (e *Engine) DialError() error {
	e.hints.mu.Lock()
	defer e.hints.mu.Unlock()
	return e.hints.dial
}

// Hint gives what the daemon advised with this error, or "".
func (e *Engine) Hint(err error) string { return e.hints.find(err) }

// ContainerAttach attaches to the streams of a container. Unlike the moby
// client's, its errors carry the daemon's message and class.
func (e *Engine) ContainerAttach(ctx context.Context, id string, o moby.ContainerAttachOptions) (moby.ContainerAttachResult, error) {
	q := url.Values{}
	for name, on := range map[string]bool{"stream": o.Stream, "stdin": o.Stdin, "stdout": o.Stdout, "stderr": o.Stderr, "logs": o.Logs} {
		if on {
			q.Set(name, "1")
		}
	}
	if o.DetachKeys != "" {
		q.Set("detachKeys", o.DetachKeys)
	}
	r, err := e.hijack(ctx, "/containers/"+url.PathEscape(id)+"/attach", q, nil)
	return moby.ContainerAttachResult{HijackedResponse: r}, err
}

// ExecAttach starts an exec and attaches to it.
func (e *Engine) ExecAttach(ctx context.Context, id string, o moby.ExecAttachOptions) (moby.ExecAttachResult, error) {
	req := container.ExecStartRequest{Tty: o.TTY}
	if o.TTY && (o.ConsoleSize.Height != 0 || o.ConsoleSize.Width != 0) {
		req.ConsoleSize = &[2]uint{o.ConsoleSize.Height, o.ConsoleSize.Width}
	}
	r, err := e.hijack(ctx, "/exec/"+url.PathEscape(id)+"/start", nil, req)
	return moby.ExecAttachResult{HijackedResponse: r}, err
}

// hijack posts and takes the connection over as a byte stream. Until the
// daemon answers, ctx ends the attempt; afterwards the caller owns the stream.
func (e *Engine) hijack(ctx context.Context, path string, q url.Values, body any) (moby.HijackedResponse, error) {
	var none moby.HijackedResponse
	version, err := e.version(ctx)
	if err != nil {
		return none, err
	}
	payload := []byte{}
	if body != nil {
		if payload, err = json.Marshal(body); err != nil {
			return none, err
		}
	}
	// The path holds escapes already; parsing keeps them.
	u, err := url.Parse(e.scheme + "://" + e.urlHost() + e.prefix() + "/v" + version + path + "?" + q.Encode())
	if err != nil {
		return none, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(payload))
	if err != nil {
		return none, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	req.Header.Set("Content-Type", "application/json")
	conn, err := e.DialRaw(ctx)
	if err != nil {
		return none, fmt.Errorf("error during connect: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks the exchange below
	r := bufio.NewReader(conn)
	resp, err := exchange(conn, r, req)
	if !stop() || err != nil {
		_ = conn.Close() // the cause is reported instead
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return none, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != http.StatusOK {
		defer func() { _ = conn.Close() }()
		return none, e.errorOf(resp)
	}
	h := moby.NewHijackedResponse(conn, resp.Header.Get("Content-Type"))
	h.Reader = r
	return h, nil
}

func exchange(w io.Writer, r *bufio.Reader, req *http.Request) (*http.Response, error) {
	if err := req.Write(w); err != nil {
		return nil, err
	}
	return http.ReadResponse(r, req)
}

// urlHost is the name in URLs: TLS checks the certificate against it.
func (e *Engine) urlHost() string {
	if e.addr.Proto == "tcp" {
		return e.addr.hostPort(e.tls != nil)
	}
	return moby.DummyHost
}

func (e *Engine) prefix() string {
	if e.addr.Proto == "tcp" {
		return e.addr.Path
	}
	return ""
}

// version agrees on the API version if that did not happen yet.
func (e *Engine) version(ctx context.Context) (string, error) {
	e.hints.mu.Lock()
	done := e.hints.negotiated
	e.hints.mu.Unlock()
	if !done {
		if _, err := e.Ping(ctx, moby.PingOptions{NegotiateAPIVersion: true}); err != nil {
			return "", err
		}
	}
	return e.ClientVersion(), nil
}

// errorOf turns an answer into an error of the class of its status.
func (e *Engine) errorOf(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorSize))
	if err != nil && len(body) == 0 {
		return err
	}
	msg := strings.TrimSpace(string(body))
	var parsed enginev1.Error
	if json.Unmarshal(body, &parsed) == nil && parsed.Message != "" {
		msg = parsed.Message
		e.hints.add(parsed.Message, parsed.Hint)
	}
	if msg == "" {
		msg = "the daemon answered " + resp.Status
	}
	return errdefs.As(classOf(resp.StatusCode), errors.New("Error response from daemon: "+msg)) //nolint:staticcheck // Docker's words
}

func classOf(status int) error {
	switch status {
	case http.StatusNotFound:
		return errdefs.ErrNotFound
	case http.StatusConflict:
		return errdefs.ErrConflict
	case http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated
	case http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	case http.StatusNotImplemented:
		return errdefs.ErrNotImplemented
	case http.StatusServiceUnavailable:
		return errdefs.ErrUnavailable
	case http.StatusNotModified:
		return errdefs.ErrNotModified
	}
	if status < http.StatusInternalServerError {
		return errdefs.ErrInvalidArgument
	}
	return errdefs.ErrInternal
}

// IsUnreachable says that no daemon answered at the address.
func IsUnreachable(err error) bool {
	if moby.IsErrConnectionFailed(err) {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

const maxErrorSize = 1 << 20

// hints remembers the advice that came with the latest errors, by message,
// because the moby client keeps nothing of an error's body but the message.
type hints struct {
	mu         sync.Mutex
	latest     []enginev1.Error
	negotiated bool
	dial       error
}

func (h *hints) setDial(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dial = err
}

func (h *hints) add(message, hint string) {
	if hint == "" || message == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.latest) == 16 {
		h.latest = h.latest[1:]
	}
	h.latest = append(h.latest, enginev1.Error{Message: strings.TrimSpace(message), Hint: hint})
}

func (h *hints) find(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.latest) - 1; i >= 0; i-- {
		if strings.Contains(text, h.latest[i].Message) {
			return h.latest[i].Hint
		}
	}
	return ""
}

// transport reads the bodies of errors in passing, for their hints.
type transport struct {
	base  *http.Transport
	hints *hints
	trace func(method, path string, status int, took time.Duration)
}

func (t *transport) CloseIdleConnections() { t.base.CloseIdleConnections() }

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	begun := time.Now()
	resp, err := t.base.RoundTrip(req)
	if t.trace != nil {
		status := 0
		if resp != nil {
			status = resp.StatusCode
		}
		t.trace(req.Method, req.URL.RequestURI(), status, time.Since(begun))
	}
	if err != nil {
		return resp, err
	}
	if strings.HasSuffix(req.URL.Path, "/_ping") && resp.StatusCode == http.StatusOK {
		t.hints.mu.Lock()
		t.hints.negotiated = true
		t.hints.mu.Unlock()
	}
	if resp.StatusCode < http.StatusBadRequest || req.Method == http.MethodHead {
		return resp, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorSize))
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), rest), rest}
	var parsed enginev1.Error
	if err == nil && json.Unmarshal(body, &parsed) == nil {
		t.hints.add(parsed.Message, parsed.Hint)
	}
	return resp, nil
}
