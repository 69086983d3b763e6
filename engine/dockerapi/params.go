package dockerapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// path is a segment named in the route's pattern.
func (c *call) path(name string) string { return c.r.PathValue(name) }

// params are the query parameters; malformed pairs are left out, as in net/http.
func (c *call) params() url.Values {
	if c.query == nil {
		c.query = c.r.URL.Query()
	}
	return c.query
}

func (c *call) param(name string) string { return c.params().Get(name) }

// flag reads a boolean: absent, "", 0, no, false and none are false.
func (c *call) flag(name string) bool { return truth(c.param(name)) }

// flagOr is flag with another default.
func (c *call) flagOr(name string, def bool) bool {
	if !c.params().Has(name) {
		return def
	}
	return c.flag(name)
}

func truth(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// number reads an integer; ok says whether it was given.
func (c *call) number(name string) (n int, ok bool, err error) {
	s := c.param(name)
	if s == "" {
		return 0, false, nil
	}
	if n, err = strconv.Atoi(s); err != nil {
		return 0, false, errdefs.Invalidf("invalid value for %q: %q is not a number", name, s)
	}
	return n, true, nil
}

func (c *call) filters() (filter.Args, error) { return filter.Parse(c.param("filters")) }

// readJSON decodes the body into out, which an empty body leaves as it is. It
// reads the body to its end, so that the connection can be hijacked after.
func (s *Server) readJSON(c *call, out any) error {
	body, err := s.readBody(c)
	if err != nil || len(body) == 0 {
		return err
	}
	return decodeJSON(body, out)
}

func (s *Server) readBody(c *call) ([]byte, error) {
	ct := c.r.Header.Get("Content-Type")
	if c.r.Body == nil || c.r.ContentLength == 0 {
		if ct == "" {
			return nil, nil
		}
		return nil, isJSON(ct)
	}
	if err := isJSON(ct); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.ResponseWriter, c.r.Body, s.cfg.MaxBody))
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	return body, nil
}

func isJSON(contentType string) error {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return errdefs.Invalidf("malformed Content-Type header (%s): %w", contentType, err)
	}
	if media != "application/json" {
		return errdefs.Invalidf("unsupported Content-Type header (%s): must be 'application/json'", contentType)
	}
	return nil
}

// decodeJSON reads exactly one document.
func decodeJSON(body []byte, out any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(out); err != nil {
		if errors.Is(err, io.EOF) {
			return errdefs.Invalidf("invalid JSON: got EOF while reading request body")
		}
		return errdefs.Invalidf("invalid JSON: %w", err)
	}
	if dec.More() {
		return errdefs.Invalidf("unexpected content after JSON")
	}
	return nil
}

// encoder is a JSON encoder with its buffer, kept for reuse.
type encoder struct {
	buf bytes.Buffer
	enc *json.Encoder
}

// encoders holds encoders between requests; it is a cache, not state.
var encoders = sync.Pool{New: func() any {
	e := new(encoder)
	e.enc = json.NewEncoder(&e.buf)
	e.enc.SetEscapeHTML(false)
	return e
}}

const keepBuffer = 1 << 20 // larger buffers are not kept

func getEncoder() *encoder { return encoders.Get().(*encoder) }

func (e *encoder) release() {
	if e.buf.Cap() > keepBuffer {
		return
	}
	e.buf.Reset()
	encoders.Put(e)
}

// json answers v.
func (c *call) json(status int, v any) error {
	e := getEncoder()
	defer e.release()
	if err := e.enc.Encode(v); err != nil {
		return errdefs.Internalf("encode answer: %w", err)
	}
	h := c.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(e.buf.Len()))
	c.WriteHeader(status)
	_, err := c.Write(e.buf.Bytes())
	return err
}

// empty answers without a body.
func (c *call) empty(status int) error {
	c.WriteHeader(status)
	return nil
}

// list makes nil an empty JSON array.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
