package dockerapi

import (
	"net/http"
	"sync"

	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// jsonStream answers a sequence of JSON documents, each sent at once. It is
// safe for concurrent use, as progress comes from many goroutines.
type jsonStream struct {
	c     *call
	media string
	seq   bool // each document begins with a record separator (RFC 7464)

	mu     sync.Mutex
	opened bool
	closed bool
	err    error
}

func newJSONStream(c *call, media string) *jsonStream {
	return &jsonStream{c: c, media: media}
}

// begun says whether the answer has begun, so that its status is settled.
func (s *jsonStream) begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

// open sends the header.
func (s *jsonStream) open() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin()
	return s.c.FlushError()
}

func (s *jsonStream) begin() {
	if !s.opened {
		s.opened = true
		s.c.Header().Set("Content-Type", s.media)
		s.c.WriteHeader(http.StatusOK)
	}
}

// send writes one document; after close it does nothing.
func (s *jsonStream) send(v any) error {
	e := getEncoder()
	defer e.release()
	if s.seq {
		e.buf.WriteByte(0x1e)
	}
	if err := e.enc.Encode(v); err != nil {
		return errdefs.Internalf("encode answer: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.err != nil {
		return s.err
	}
	s.begin()
	if _, s.err = s.c.Write(e.buf.Bytes()); s.err == nil {
		s.err = s.c.FlushError()
	}
	return s.err
}

// progressMessage is a jsonstream.Message with the field in which older
// clients look for the error, and our hint.
type progressMessage struct {
	jsonstream.Message
	ErrorText string `json:"error,omitempty"`
	Hint      string `json:"hint,omitempty"`
}

// progress is send as an image.Progress; an error shows at the end.
func (s *jsonStream) progress(m jsonstream.Message) {
	_ = s.send(progressMessage{Message: m}) // the same error ends the operation: its context is done
}

// finish ends the stream of an operation that ended with err. What it returns
// is for the server to answer.
func (s *jsonStream) finish(err error) error {
	if err != nil && s.begun() {
		status := errdefs.HTTPStatus(err)
		m := progressMessage{
			Message:   jsonstream.Message{Error: &jsonstream.Error{Message: err.Error()}},
			ErrorText: err.Error(), Hint: errdefs.Hint(err),
		}
		if status == http.StatusUnauthorized {
			m.Error.Code = status // makes clients ask for credentials
		}
		err = s.send(m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if err == nil {
		s.begin() // an operation without progress
	}
	return err
}
