package wire_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	for _, id := range []string{"one", "two"} {
		if err := wire.WriteFrame(&b, wire.Hello{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	b.WriteString("raw")
	for _, id := range []string{"one", "two"} {
		var h wire.Hello
		if err := wire.ReadFrame(&b, &h); err != nil || h.ID != id {
			t.Errorf("%+v, %v", h, err)
		}
	}
	// Not a byte more than the frames was read.
	if b.String() != "raw" {
		t.Errorf("left: %q", b.String())
	}
}

// FuzzReadFrame: a peer can send anything.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Add([]byte("\x00\xff\x00\x00{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r wire.Request
		if err := wire.ReadFrame(bytes.NewReader(data), &r); err == nil && len(data) < 6 {
			t.Errorf("%q is no frame", data)
		}
	})
}

func TestErrorsKeepTheirClass(t *testing.T) {
	inner := wire.Errorf(wire.NotFound, "no %s", "x")
	e := wire.FromError(errors.Join(inner))
	if e.Class != wire.NotFound || e.Message != "no x" {
		t.Errorf("%+v", e)
	}
	if e := wire.FromError(io.EOF); e.Class != "" {
		t.Errorf("%+v", e)
	}
	if wire.FromError(nil) != nil {
		t.Error("nil is an error")
	}
}

// TestClient: answers come in any order, and the end of the connection ends
// every call.
func TestClient(t *testing.T) {
	ours, theirs := net.Pipe()
	c := wire.NewClient(ours)
	var first wire.Request
	results := make(chan error, 2)
	go func() { results <- c.Call(context.Background(), "slow", nil, nil) }()
	if err := wire.ReadFrame(theirs, &first); err != nil {
		t.Fatal(err)
	}
	quick := make(chan error, 1)
	go func() {
		var h wire.Hello
		err := c.Call(context.Background(), "quick", nil, &h)
		if err == nil && h.ID != "x" {
			err = errors.New("wrong answer")
		}
		quick <- err
	}()
	var second wire.Request
	if err := wire.ReadFrame(theirs, &second); err != nil {
		t.Fatal(err)
	}
	if err := wire.WriteFrame(theirs, wire.Response{Seq: second.Seq, Body: []byte(`{"id":"x","unknown":1}`)}); err != nil {
		t.Fatal(err)
	}
	if err := <-quick; err != nil {
		t.Error(err)
	}
	theirs.Close()
	if err := <-results; !errors.Is(err, wire.ErrClosed) {
		t.Errorf("%v", err)
	}
	if err := c.Call(context.Background(), "late", nil, nil); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("%v", err)
	}
	<-c.Done()
}

// TestLongPaths: a run folder may be deeper than a socket address is long.
func TestLongPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120), strings.Repeat("e", 120))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a socket that is left over is replaced
		l, err := wire.Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		accepted := make(chan bool, 1)
		go func() {
			conn, err := l.AcceptUnix()
			if err != nil {
				accepted <- false
				return
			}
			ok, err := wire.PeerAllowed(conn)
			conn.Close()
			accepted <- ok && err == nil
		}()
		conn, err := wire.Dial(dir)
		if err != nil {
			t.Fatal(err)
		}
		if !<-accepted {
			t.Error("we may not talk to ourselves")
		}
		conn.Close()
		l.Close()
	}
	info, err := os.Stat(filepath.Join(dir, wire.SocketFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
