//go:build linux && cgo

// Command cleat-shim stands between cleatd and one container. It is started by
// cleatd, never by hand; see docs/design/shim.md. Called docker-init, it is
// process 1 of a container that asks for an init.
package main

import (
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/opencontainers/runc/libcontainer"
	// The C part of a container's start, which runs before Go does.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"

	"github.com/cleatlabs/cleat/engine/runtime/reaper"
	"github.com/cleatlabs/cleat/engine/runtime/seccomp"
	"github.com/cleatlabs/cleat/engine/runtime/shim"
)

func main() {
	switch {
	case filepath.Base(os.Args[0]) == reaper.Name:
		os.Exit(reaper.Run(os.Args[1:]))
	case len(os.Args) > 1 && os.Args[1] == "init":
		// This process becomes the container's program in some milliseconds.
		debug.SetGCPercent(-1)
		seccomp.Adopt()
		libcontainer.Init()
	default:
		os.Exit(shim.Main())
	}
}
