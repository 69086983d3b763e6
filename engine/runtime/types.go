package runtime

import (
	"context"
	"io"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/engine/logs"
)

// CreateRequest is everything a shim needs to make a container. It is written
// to the container's run folder, so that what was asked for survives.
type CreateRequest struct {
	ID string
	// Spec is the complete OCI runtime spec. Spec.Root.Path is set by the
	// driver; Spec.Process.Terminal asks for a pty.
	Spec *specs.Spec
	// Rootfs are the mounts that make up the root file system. The shim makes
	// them in a mount namespace of its own, so that they end with it, unless
	// SharedMounts is set.
	Rootfs []mount.Mount
	// SharedMounts asks for the root to be mounted in the daemon's mount
	// namespace; needed when a bind mount is "rshared" or "shared".
	SharedMounts bool
	// OpenStdin keeps standard input open for attachments; StdinOnce closes
	// it when the first of them ends.
	OpenStdin, StdinOnce bool
	// ConsoleSize is the initial terminal size; zero is the kernel's default.
	ConsoleSize Size
	Log         logs.Config
	// Runtime is "" for the built-in one (libcontainer), else the path of an
	// OCI runtime program such as crun, with RuntimeArgs before the verb.
	Runtime     string
	RuntimeArgs []string
}

// Size is a terminal's, in characters.
type Size struct{ Width, Height uint16 }

// ExecRequest is an additional process in a running container.
type ExecRequest struct {
	ID          string // unique within the container
	Process     specs.Process
	OpenStdin   bool
	ConsoleSize Size
}

// Exit is how a process ended.
type Exit struct {
	// Code is the exit status, 128+n after signal n.
	Code int       `json:"code"`
	At   time.Time `json:"at"`
	// OOMKilled says that the kernel killed a process of the container for
	// exceeding its memory limit.
	OOMKilled bool `json:"oomKilled,omitempty"`
	// Lost says that the shim died before it could see the end; Code is 137.
	Lost bool `json:"lost,omitempty"`
}

// Attachment is a live connection to a process's standard streams.
type Attachment interface {
	// Output is raw bytes with a terminal and Docker's multiplexed framing
	// (8-byte headers, as moby/api/pkg/stdcopy) without. It ends with io.EOF
	// when every output of the process has been delivered.
	Output() io.Reader
	// Input is standard input; writing after the process ended gives EPIPE.
	Input() io.Writer
	// CloseInput ends standard input, as far as StdinOnce asks for it.
	CloseInput() error
	// Close detaches. The process is not touched.
	io.Closer
}

// AttachOptions select streams.
type AttachOptions struct{ Stdin, Stdout, Stderr bool }

// Process is a container's init or an exec.
type Process interface {
	// Pid is the process's number in the daemon's PID namespace, 0 before
	// Start.
	Pid() int
	// Start lets the process run. Errors that Docker tells apart: class
	// NotFound (command does not exist: 127), PermissionDenied (not
	// executable: 126), else 128.
	Start(ctx context.Context) error
	// Attach may be called before Start, so that no output is missed.
	Attach(ctx context.Context, opts AttachOptions) (Attachment, error)
	Resize(ctx context.Context, size Size) error
	Signal(ctx context.Context, sig syscall.Signal) error
	// Wait returns when the process has ended and its output has been logged.
	// It may be called any number of times, also after a daemon restart.
	Wait(ctx context.Context) (Exit, error)
}

// Task is a created container and its init process.
type Task interface {
	Process
	ID() string
	ShimPid() int
	// SignalAll sends sig to every process of the container.
	SignalAll(ctx context.Context, sig syscall.Signal) error
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	Update(ctx context.Context, r *specs.LinuxResources) error
	Stats(ctx context.Context) (*cgroups.Stats, error)
	// Pids lists the processes of the container in the daemon's PID namespace.
	Pids(ctx context.Context) ([]int, error)
	Exec(ctx context.Context, req ExecRequest) (Process, error)
	// LoadExec finds an exec made before a daemon restart.
	LoadExec(ctx context.Context, id string) (Process, error)
	// Root is a path by which the daemon reaches the root file system while
	// the task exists, such as /proc/PID/root. Resolve inside it only with
	// internal/safepath.
	Root() string
	// Delete kills what is left, lets the shim end, and removes cgroup,
	// mounts and run folder. It is safe to repeat.
	Delete(ctx context.Context) error
}

// State is what List found of a container's run folder.
type State struct {
	ID string
	// Live says that the shim answers; Load gives its task.
	Live bool
	// Exit is what the shim wrote durably, or nil.
	Exit *Exit
}
