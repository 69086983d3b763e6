package shim

import (
	"regexp"
	"strings"

	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

// commandError matches how runc and crun say that the program of a process
// cannot be executed, as opposed to errors of mounts and the like that
// contain the same system errors.
var commandError = regexp.MustCompile(`exec: "|exec /|executable file |open executable|exec format|execve|: stat `)

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
	case !commandError.MatchString(msg) || strings.Contains(msg, "mount"):
	case strings.Contains(msg, "no such file or directory"):
		class = wire.NotFound
	case strings.Contains(msg, "permission denied"), strings.Contains(msg, "is a directory"):
		class = wire.PermissionDenied
	}
	return &wire.Error{Class: class, Message: msg}
}
