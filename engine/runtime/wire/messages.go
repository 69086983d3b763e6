package wire

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/engine/logs"
)

// Version of the protocol.
const Version = 1

// Names of files in a container's run folder.
const (
	SocketFile  = "shim.sock"
	RequestFile = "request.json"
	ExitFile    = "exit.json"
	PidFile     = "shim.pid"
	RootfsDir   = "rootfs"
	// StateDir is the launcher's own: libcontainer's or the OCI runtime's.
	StateDir = "state"
	// CrashFile receives the stack of a shim that panics.
	CrashFile = "shim.log"
)

// The operations.
const (
	OpHello   = "hello"   // nil -> Hello
	OpCreate  = "create"  // Create -> Created; once per shim, on its first connection
	OpStart   = "start"   // Proc -> Started
	OpWait    = "wait"    // Proc -> Exit
	OpSignal  = "signal"  // Signal -> nil
	OpResize  = "resize"  // Resize -> nil
	OpExec    = "exec"    // Exec -> nil
	OpProcess = "process" // Proc -> ProcState
	OpAttach  = "attach"  // Attach -> nil, then bytes
	OpPause   = "pause"   // nil -> nil
	OpResume  = "resume"  // nil -> nil
	OpUpdate  = "update"  // specs.LinuxResources -> nil
	OpDelete  = "delete"  // nil -> nil; the shim ends after the answer
)

// Request asks for an operation.
type Request struct {
	Seq  uint64          `json:"seq"`
	Op   string          `json:"op"`
	Body json.RawMessage `json:"body,omitempty"`
}

// Response answers the request of the same Seq.
type Response struct {
	Seq   uint64          `json:"seq"`
	Body  json.RawMessage `json:"body,omitempty"`
	Error *Error          `json:"error,omitempty"`
}

// Hello is who the shim is.
type Hello struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	ShimPid int    `json:"shimPid"`
	InitPid int    `json:"initPid"`
	Started bool   `json:"started"`
}

// Mount is one of the mounts of a root file system, as containerd's.
type Mount struct {
	Type    string   `json:"type"`
	Source  string   `json:"source"`
	Target  string   `json:"target,omitempty"` // below the root, "" is the root
	Options []string `json:"options,omitempty"`
}

// Size is a terminal's.
type Size struct {
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
}

// Create is all that a shim needs to make a container.
type Create struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	// Dir is the run folder.
	Dir          string      `json:"dir"`
	Spec         *specs.Spec `json:"spec"`
	Rootfs       []Mount     `json:"rootfs,omitempty"`
	SharedMounts bool        `json:"sharedMounts,omitempty"`
	OpenStdin    bool        `json:"openStdin,omitempty"`
	StdinOnce    bool        `json:"stdinOnce,omitempty"`
	ConsoleSize  Size        `json:"consoleSize"`
	Log          logs.Config `json:"log"`
	Runtime      string      `json:"runtime,omitempty"`
	RuntimeArgs  []string    `json:"runtimeArgs,omitempty"`
	// SeccompCache is a folder for compiled seccomp profiles, "" for none.
	SeccompCache string `json:"seccompCache,omitempty"`
	// StallTimeout is how long an attached client may accept nothing while
	// its buffer is full before it is dropped.
	StallTimeout time.Duration `json:"stallTimeout,omitempty"`
}

// Created answers Create.
type Created struct {
	InitPid  int      `json:"initPid"`
	Warnings []string `json:"warnings,omitempty"`
}

// Proc names a process: "" is the container's init, else an exec's ID.
type Proc struct {
	Exec string `json:"exec,omitempty"`
}

// Started answers OpStart.
type Started struct {
	Pid      int      `json:"pid"`
	Warnings []string `json:"warnings,omitempty"`
}

// ProcState is what a daemon that comes back needs to know of a process.
type ProcState struct {
	Pid     int   `json:"pid"` // 0 before the start
	Started bool  `json:"started"`
	Exit    *Exit `json:"exit,omitempty"`
}

// Exit is how a process ended. It is also the content of ExitFile.
type Exit struct {
	Code      int       `json:"code"`
	At        time.Time `json:"at"`
	OOMKilled bool      `json:"oomKilled,omitempty"`
	Lost      bool      `json:"lost,omitempty"`
}

// Signal is sent to one process.
type Signal struct {
	Proc
	Signal int `json:"signal"`
}

// Resize sets a terminal's size.
type Resize struct {
	Proc
	Size Size `json:"size"`
}

// Exec makes, but does not start, an additional process.
type Exec struct {
	ID          string         `json:"id"`
	Process     *specs.Process `json:"process"`
	OpenStdin   bool           `json:"openStdin,omitempty"`
	ConsoleSize Size           `json:"consoleSize"`
}

// Attach selects the streams of one process.
type Attach struct {
	Proc
	Stdin  bool `json:"stdin,omitempty"`
	Stdout bool `json:"stdout,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
}
