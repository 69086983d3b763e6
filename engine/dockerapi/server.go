package dockerapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// call is one request: the ResponseWriter that handlers see, and what they ask
// about the request. It belongs to the request's goroutine.
type call struct {
	http.ResponseWriter
	r *http.Request
	v version
	// status is what was answered; 0 while nothing was. Once it is set, an
	// error can only be told inside the stream.
	status   int
	hijacked bool
	query    url.Values
}

func (c *call) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *call) Write(b []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	return c.ResponseWriter.Write(b)
}

// FlushError sends what was written, and the header in any case.
func (c *call) FlushError() error {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	return http.NewResponseController(c.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController reach the connection.
func (c *call) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// ctx ends when the client hangs up or the listener stops: for reads and streams.
func (c *call) ctx() context.Context { return c.r.Context() }

// lasting does not end with the client: for changes, which must not be cut in half.
func (c *call) lasting() context.Context { return contextsOf(c.r.Context()).changes }

// attached does not end with the client's input: for connections taken over.
func (c *call) attached() context.Context { return contextsOf(c.r.Context()).streams }

// handler serves one route. An error is answered by the server, unless the
// answer has begun.
type handler func(*call) error

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{ResponseWriter: w, r: r, v: newestVersion}
	h := w.Header()
	h["Server"], h["Api-Version"], h["Ostype"], h["Docker-Experimental"] = s.server, s.apiVersion, s.osType, s.experimental
	var began time.Time
	if s.log.Enabled(r.Context(), slog.LevelDebug) {
		began = s.now()
	}
	defer s.finish(c, began)

	path := r.URL.Path
	text, rest, versioned := cutVersion(path)
	if versioned {
		v, ok := parseVersion(text)
		if !ok {
			s.fail(c, errNoPage)
			return
		}
		c.v = v
		if err := s.supported(text, v); err != nil {
			if v < oldestVersion { // such clients print a JSON error as it is
				http.Error(c, err.Error(), http.StatusBadRequest)
				return
			}
			s.fail(c, err)
			return
		}
	}
	clean, ok := cleanPath(rest)
	if !ok {
		s.fail(c, errNoPage)
		return
	}
	if clean != path {
		r = withPath(r, clean, path[:max(0, len(path)-len(rest))])
		c.r = r
	}
	s.mux.ServeHTTP(c, r)
}

// errNoPage is Docker's answer to a path or method that it does not know.
var errNoPage = errdefs.NotFoundf("page not found")

// cleanPath merges slashes, as `docker inspect /name` needs, and refuses dot
// segments, which ServeMux would answer with a redirect.
func cleanPath(p string) (string, bool) {
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	if strings.Contains(p, "/.") {
		for seg := range strings.SplitSeq(p, "/") {
			if seg == "." || seg == ".." {
				return p, false
			}
		}
	}
	return p, true
}

// withPath is r with another path; prefix is what was cut off the escaped form.
func withPath(r *http.Request, path, prefix string) *http.Request {
	u := *r.URL
	u.Path = path
	if raw, ok := strings.CutPrefix(u.RawPath, prefix); ok && u.RawPath != "" {
		u.RawPath, _ = cleanPath(raw) // a dot segment would be one in path too
	}
	r2 := *r
	r2.URL = &u
	return &r2
}

// finish recovers from a panic and logs the request.
func (s *Server) finish(c *call, began time.Time) {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler {
			panic(p)
		}
		s.log.Error("request handler panicked", "method", c.r.Method, "path", c.r.URL.Path, "panic", p, "stack", string(debug.Stack()))
		if c.hijacked || c.status != 0 {
			panic(http.ErrAbortHandler)
		}
		s.fail(c, errdefs.Internalf("internal error in %s %s", c.r.Method, c.r.URL.Path))
	}
	if !began.IsZero() {
		s.log.Debug("request", "method", c.r.Method, "path", c.r.URL.Path, "status", c.status, "took", s.now().Sub(began))
	}
}

// errorBody is Docker's error with our hint.
type errorBody struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// fail answers err.
func (s *Server) fail(c *call, err error) {
	var big *http.MaxBytesError
	status := errdefs.HTTPStatus(err)
	if errors.As(err, &big) {
		status = http.StatusRequestEntityTooLarge
	}
	if c.status != 0 || c.hijacked {
		s.log.Debug("request failed after its answer began", "path", c.r.URL.Path, "error", err)
		return
	}
	gone := c.r.Context().Err() != nil
	if status >= http.StatusInternalServerError && status != http.StatusNotImplemented && !gone {
		s.log.Error("request failed", "method", c.r.Method, "path", c.r.URL.Path, "status", status, "error", err)
	}
	c.Header().Del("Content-Length")
	if status == http.StatusNotModified {
		c.WriteHeader(status)
		return
	}
	if err := c.json(status, errorBody{Message: err.Error(), Hint: errdefs.Hint(err)}); err != nil {
		s.log.Debug("error answer not delivered", "path", c.r.URL.Path, "error", err)
	}
}

// run serves one matched route.
func (s *Server) run(w http.ResponseWriter, r *http.Request, method string, h handler) {
	c, ok := w.(*call)
	if !ok {
		panic("dockerapi: ServeMux changed the ResponseWriter")
	}
	c.r = r
	if r.Method != method { // HEAD, which ServeMux gives to GET
		s.fail(c, errNoPage)
		return
	}
	if err := h(c); err != nil {
		s.fail(c, err)
	}
}
