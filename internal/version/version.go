// Package version says which build this is. Every program prints it; the
// Docker API reports it. The linker sets it (see the Makefile).
package version

import (
	"runtime"
	"runtime/debug"
)

// version is set with -ldflags -X; a plain `go build` leaves it empty.
var version string

// Version is the release or commit of this build, "dev" when unknown.
func Version() string {
	if version != "" {
		return version
	}
	return "dev"
}

// Commit is the revision that the Go tool recorded, or "".
func Commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

// Go is the Go release that built this program.
func Go() string { return runtime.Version() }
