package shim

import (
	"github.com/opencontainers/runtime-spec/specs-go"
)

// launcher makes and drives the processes of one container. There are two:
// libct (libcontainer, in this process) and command (another OCI runtime).
// The shim calls create once, and everything else after it.
type launcher interface {
	// create makes the container with its init waiting, and returns init's
	// pid, a child of the shim. It opens io's streams.
	create(io *stdio) (pid int, err error)
	// start lets init run the container's program.
	start() error
	// exec starts an additional process, a child of the shim too.
	exec(id string, p *specs.Process, openStdin bool, io *stdio) (pid int, err error)
	pause() error
	resume() error
	update(r *specs.LinuxResources) error
	// destroy removes what the launcher made. All processes have ended.
	destroy() error
}
