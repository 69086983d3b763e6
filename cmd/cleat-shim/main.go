// Command cleat-shim stands between cleatd and one container. It is started by
// cleatd, never by hand; see docs/design/shim.md.
package main

import (
	"os"
	"runtime/debug"

	"github.com/opencontainers/runc/libcontainer"
	// The C part of a container's start, which runs before Go does.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"

	"github.com/cleatlabs/cleat/engine/runtime/shim"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		// This process becomes the container's program in some milliseconds.
		debug.SetGCPercent(-1)
		libcontainer.Init()
		return
	}
	os.Exit(shim.Main())
}
