package logs

import (
	"context"
	"io"
	"time"
)

// Stream is the standard stream an entry came from.
type Stream uint8

// The two streams; with a terminal everything is Stdout.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// Config names a container's log. It is stored with the container and handed
// to its shim, which is the only writer; readers may be many, in any process.
type Config struct {
	// Driver is "local" (the default), "json-file" or "none".
	Driver string `json:"driver"`
	// Dir is the folder of this container's log files; the driver owns it.
	Dir string `json:"dir"`
	// Options are the driver's, as Docker names them: max-size, max-file,
	// compress, labels, env, tag, mode, max-buffer-size.
	Options map[string]string `json:"options,omitempty"`
	// Attrs go with every line of drivers that record them (json-file).
	Attrs map[string]string `json:"attrs,omitempty"`
}

// Entry is one line, or a part of a line longer than 16 KiB.
type Entry struct {
	Time   time.Time
	Stream Stream
	// Line has its newline removed.
	Line []byte
	// Partial says that the line goes on in the next entry of the stream.
	Partial bool
	Attrs   map[string]string
}

// Writer appends entries. It is safe for concurrent use; WriteEntry does not
// keep Line.
type Writer interface {
	WriteEntry(Entry) error
	io.Closer
}

// ReadOptions select entries.
type ReadOptions struct {
	Since, Until   time.Time // zero: no bound
	Tail           int       // last n lines; negative: all
	Stdout, Stderr bool
	// Follow keeps reading until ctx is done, Until has passed, or Done is
	// closed and everything written before it has been read.
	Follow bool
	Done   <-chan struct{}
}

// Reader reads the logs of containers.
type Reader interface {
	// Read calls emit for each entry in order until it returns an error,
	// which Read then returns. Entry.Line is valid only during the call.
	Read(ctx context.Context, cfg Config, opts ReadOptions, emit func(Entry) error) error
}
