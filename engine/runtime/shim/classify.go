package shim

import (
	"slices"
	"strings"

	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

// aboutCommand says whether runc or crun complains about the program of a
// process, as opposed to mounts and the like, of which errors contain the same
// words.
func aboutCommand(msg string) bool {
	if strings.Contains(msg, "mount") {
		return false
	}
	words := []string{`exec: "`, "exec /", "executable file ", "open executable", "execve", ": stat "}
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(msg, w) })
}

// classify finds the class of an error that a runtime returned as text.
func classify(err error) error {
	if err == nil {
		return nil
	}
	msg := err.Error()
	class := wire.Class("")
	switch {
	case strings.Contains(msg, "executable file not found"),
		strings.Contains(msg, "executable file `") && strings.Contains(msg, "not found"):
		class = wire.NotFound
	case !aboutCommand(msg):
	case strings.Contains(msg, "no such file or directory"):
		class = wire.NotFound
	case strings.Contains(msg, "permission denied"), strings.Contains(msg, "is a directory"):
		class = wire.PermissionDenied
	}
	return &wire.Error{Class: class, Message: msg}
}
