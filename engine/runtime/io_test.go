package runtime_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/moby/moby/api/pkg/stdcopy"

	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/engine/runtime"
)

// terminal is an attachment whose output, both streams in one, can be awaited.
type terminal struct {
	runtime.Attachment
	t    testing.TB
	done chan struct{}

	mu   sync.Mutex
	cond *sync.Cond
	all  []byte
	seen int // how much expect has consumed
	eof  bool
}

// attach opens an attachment to a process without a terminal and reads it.
func (h *host) attach(p runtime.Process, o runtime.AttachOptions) *terminal {
	h.t.Helper()
	return h.reading(p, o, func(dst io.Writer, src io.Reader) error {
		_, err := stdcopy.StdCopy(dst, dst, src)
		return err
	})
}

// attachRaw is attach for a process with a terminal.
func (h *host) attachRaw(p runtime.Process, o runtime.AttachOptions) *terminal {
	h.t.Helper()
	return h.reading(p, o, func(dst io.Writer, src io.Reader) error {
		_, err := io.Copy(dst, src)
		return err
	})
}

func (h *host) reading(p runtime.Process, o runtime.AttachOptions, read func(io.Writer, io.Reader) error) *terminal {
	h.t.Helper()
	a, err := p.Attach(h.t.Context(), o)
	if err != nil {
		h.t.Fatal(err)
	}
	x := &terminal{Attachment: a, t: h.t, done: make(chan struct{})}
	x.cond = sync.NewCond(&x.mu)
	go func() {
		defer close(x.done)
		// An error is the end as well; what is missing then is reported.
		_ = read(x, a.Output())
		x.mu.Lock()
		x.eof = true
		x.cond.Broadcast()
		x.mu.Unlock()
	}()
	h.t.Cleanup(func() {
		a.Close()
		<-x.done
	})
	return x
}

func (x *terminal) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all = append(x.all, p...)
	x.cond.Broadcast()
	return len(p), nil
}

// expect waits for text in the output after what was expected before.
func (x *terminal) expect(text string) {
	x.t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		if i := bytes.Index(x.all[x.seen:], []byte(text)); i >= 0 {
			x.seen += i + len(text)
			return
		}
		if x.eof {
			x.t.Fatalf("output ended without %q: %q", text, x.all[x.seen:])
		}
		x.cond.Wait()
	}
}

// rest waits for the end and returns everything.
func (x *terminal) rest() string {
	<-x.done
	return string(x.all)
}

func (x *terminal) send(text string) {
	x.t.Helper()
	if _, err := io.WriteString(x.Input(), text); err != nil {
		x.t.Fatal(err)
	}
}

func (h *host) start(p runtime.Process) {
	h.t.Helper()
	if err := p.Start(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) wait(p runtime.Process) runtime.Exit {
	h.t.Helper()
	e, err := p.Wait(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

// logged reads a container's log: entries as stream:line, parts joined by "+".
func (h *host) logged(r runtime.CreateRequest) []string {
	h.t.Helper()
	reader := logs.NewReader(slog.New(slog.DiscardHandler))
	defer reader.Close()
	var lines []string
	err := reader.Read(h.t.Context(), r.Log, logs.ReadOptions{Tail: -1, Stdout: true, Stderr: true}, func(e logs.Entry) error {
		line := map[logs.Stream]string{logs.Stdout: "out:", logs.Stderr: "err:"}[e.Stream] + string(e.Line)
		if e.Partial {
			line += "+"
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return lines
}

func TestLogHasStreamsAndLongLines(t *testing.T) {
	h := newHost(t)
	r := h.request("sh", "-c", "head -c 20000 /dev/zero | tr '\\0' x; echo; echo err >&2; sleep 0; printf end")
	h.output(r)
	var out []string
	for _, l := range h.logged(r) {
		if strings.HasPrefix(l, "out:") {
			out = append(out, l)
		} else if l != "err:err" {
			t.Errorf("unexpected line %q", l)
		}
	}
	if len(out) != 3 || out[0] != "out:"+strings.Repeat("x", 16<<10)+"+" || len(out[1]) != 4+20000-16<<10 || out[2] != "out:end" {
		t.Errorf("%d entries", len(out))
	}
}

// TestSeveralAttached: each of several clients gets all output from when it
// attached; one that goes away disturbs nobody.
func TestSeveralAttached(t *testing.T) {
	h := newHost(t)
	r := h.request("sh", "-c", "while read l; do echo got $l; done; echo bye >&2")
	r.OpenStdin = true
	task := h.create(r)
	both := runtime.AttachOptions{Stdin: true, Stdout: true, Stderr: true}
	first, second := h.attach(task, both), h.attach(task, both)
	errOnly := h.attach(task, runtime.AttachOptions{Stderr: true})
	h.start(task)
	first.send("one\n")
	first.expect("got one")
	second.expect("got one")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second.send("two\n")
	second.expect("got two")
	third := h.attach(task, both)
	third.send("three\n")
	third.expect("got three")
	// Without StdinOnce, the end of a client's input is not the process's.
	if err := third.CloseInput(); err != nil {
		t.Fatal(err)
	}
	second.send("four\n")
	third.expect("got four")
	if err := task.SignalAll(t.Context(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := third.rest(); got != "got three\ngot four\n" {
		t.Errorf("third got %q", got)
	}
	if got := errOnly.rest(); got != "" {
		t.Errorf("standard error alone: %q", got)
	}
}

func TestStdinOnce(t *testing.T) {
	h := newHost(t)
	r := h.request("cat")
	r.OpenStdin, r.StdinOnce = true, true
	task := h.create(r)
	a := h.attach(task, runtime.AttachOptions{Stdin: true, Stdout: true})
	h.start(task)
	a.send("some text")
	if err := a.CloseInput(); err != nil {
		t.Fatal(err)
	}
	if got := a.rest(); got != "some text" {
		t.Errorf("got %q", got)
	}
	if e := h.wait(task); e.Code != 0 {
		t.Errorf("%+v", e)
	}
	_, err := io.WriteString(a.Input(), "more")
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("writing after the end: %v", err)
	}
}

// TestClosedStdin: a process that was given no stdin reads its end.
func TestClosedStdin(t *testing.T) {
	h := newHost(t)
	out, _, e := h.output(h.request("sh", "-c", "cat; echo over"))
	if out != "over\n" || e.Code != 0 {
		t.Errorf("%q, %+v", out, e)
	}
}

func TestTerminal(t *testing.T) {
	h := newHost(t)
	r := h.request("sh", "-c", "stty size; read x; stty size; exit 3")
	r.Spec.Process.Terminal, r.OpenStdin = true, true
	r.ConsoleSize = runtime.Size{Width: 90, Height: 31}
	task := h.create(r)
	a := h.attachRaw(task, runtime.AttachOptions{Stdin: true, Stdout: true})
	h.start(task)
	a.expect("31 90")
	if err := task.Resize(t.Context(), runtime.Size{Width: 120, Height: 40}); err != nil {
		t.Fatal(err)
	}
	a.send("x\n")
	a.expect("40 120")
	a.rest()
	if e := h.wait(task); e.Code != 3 {
		t.Errorf("%+v", e)
	}
}

// TestStuckClient: a client that reads nothing delays the container for the
// stall timeout only, and the log has every line.
func TestStuckClient(t *testing.T) {
	h := newHost(t)
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.cfg.StallTimeout = 1 // as short as can be: any wait is too long
	h.Driver = h.daemon()
	r := h.request("sh", "-c", "i=0; while [ $i -lt 40000 ]; do echo a line of thirty-two characters $i; i=$((i+1)); done")
	r.Log.Options = map[string]string{"max-size": "100m", "max-file": "1"}
	task := h.create(r)
	stuck, err := task.Attach(t.Context(), runtime.AttachOptions{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	h.start(task)
	if e := h.wait(task); e.Code != 0 {
		t.Errorf("%+v", e)
	}
	if n := len(h.logged(r)); n != 40000 {
		t.Errorf("the log has %d lines", n)
	}
}

// TestSlowClient: one that reads slowly, but reads, gets everything.
func TestSlowClient(t *testing.T) {
	h := newHost(t)
	r := h.request("sh", "-c", "head -c 3000000 /dev/zero")
	task := h.create(r)
	a, err := task.Attach(t.Context(), runtime.AttachOptions{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	h.start(task)
	// The container fills every buffer before the client begins.
	total, buf := 0, make([]byte, 1<<10)
	for {
		n, err := a.Output().Read(buf)
		total += n
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if total < 3000000 {
		t.Errorf("got %d bytes", total)
	}
	h.wait(task)
	if err := task.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}
