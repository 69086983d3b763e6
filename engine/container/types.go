package container

import (
	"context"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/engine/image"
	"github.com/cleatlabs/cleat/engine/network"
	"github.com/cleatlabs/cleat/engine/runtime"
)

// CreateOptions as POST /containers/create.
type CreateOptions struct {
	Name       string // "" makes one up
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *apinetwork.NetworkingConfig
	Platform   *ocispec.Platform
}

// StopOptions as POST /containers/{id}/stop. Zero values take the container's
// own stop signal and timeout.
type StopOptions struct {
	Signal  string
	Timeout *int // seconds; negative waits for ever
}

// RemoveOptions as DELETE /containers/{id}.
type RemoveOptions struct{ Force, Volumes, Link bool }

// LogsOptions as GET /containers/{id}/logs.
type LogsOptions struct {
	Stdout, Stderr, Follow bool
	Since, Until           time.Time
	Tail                   int // negative: all
}

// ListOptions as GET /containers/json.
type ListOptions struct {
	All, Size bool
	Limit     int // positive: last n created, in any state
	Filters   filter.Args
}

// CommitOptions as POST /commit.
type CommitOptions struct {
	Repo, Tag, Author, Comment string
	Changes                    []string
	NoPause                    bool
	Config                     *container.Config // nil: the container's
}

// CopyOptions as PUT /containers/{id}/archive.
type CopyOptions struct {
	// NoOverwriteDirNonDir refuses to replace a directory by a file and the
	// other way round.
	NoOverwriteDirNonDir bool
	// CopyUIDGID gives what is extracted the container's user.
	CopyUIDGID bool
}

// The seams below are what this package needs of its neighbours; the packages
// named satisfy them and platform joins them.

// Runtime is engine/runtime's Driver.
type Runtime interface {
	// Create starts a shim and makes the container, with its init waiting.
	Create(ctx context.Context, r runtime.CreateRequest) (runtime.Task, error)
	// Load connects to a live shim after a daemon restart.
	Load(ctx context.Context, id string) (runtime.Task, error)
	// List reads the run folder.
	List(ctx context.Context) ([]runtime.State, error)
	// Purge removes what a dead or half-made container left: processes,
	// cgroup, mounts, run folder. It is safe to repeat.
	Purge(ctx context.Context, id string) error
}

// Images is engine/image's Service.
type Images interface {
	// Get resolves a name, tag, digest or ID prefix; class NotFound says
	// "No such image: ...".
	Get(ctx context.Context, ref string, p *ocispec.Platform) (*image.Image, error)
	Commit(ctx context.Context, o image.CommitOptions) (digest.Digest, error)
	// PrepareSnapshot makes the writable layer of a container on img, kept
	// until RemoveSnapshot; it keeps the image's content too.
	PrepareSnapshot(ctx context.Context, key string, img *image.Image) error
	// SnapshotMounts are the mounts of a writable layer.
	SnapshotMounts(ctx context.Context, key string) ([]mount.Mount, error)
	RemoveSnapshot(ctx context.Context, key string) error
	SnapshotUsage(ctx context.Context, key string) (rw snapshots.Usage, rootfs int64, err error)
	// SnapshotKeys lists the writable layers, for clean-up after a crash.
	SnapshotKeys(ctx context.Context) ([]string, error)
	// Changes compares a writable layer with its parent.
	Changes(ctx context.Context, key string) ([]container.FilesystemChange, error)
	Snapshotter() string // its name, for inspect
}

// Networks is engine/network's Manager.
type Networks interface {
	// Open makes the namespace, fast, and returns its path; Setup may then run
	// beside other preparations.
	Open(ctx context.Context, r network.SandboxRequest) (path string, err error)
	Setup(ctx context.Context, r network.SandboxRequest) (*network.Sandbox, error)
	// Close undoes Open and Setup; it is safe to repeat.
	Close(ctx context.Context, id string) error
	Connect(ctx context.Context, sandboxID, networkRef string, e *apinetwork.EndpointSettings) (*network.Sandbox, error)
	Disconnect(ctx context.Context, sandboxID, networkRef string, force bool) (*network.Sandbox, error)
	// Rename changes the DNS name of a live sandbox.
	Rename(ctx context.Context, sandboxID, name string) error
	// Restore keeps the sandboxes named and closes all others.
	Restore(ctx context.Context, live []string) error
	// Validate refuses, before anything is created, networks that do not exist
	// and addresses that cannot be had.
	Validate(ctx context.Context, endpoints map[string]*apinetwork.EndpointSettings) error
	Inspect(ctx context.Context, ref string) (apinetwork.Inspect, error)
}

// Volumes is engine/volume's Service.
type Volumes interface {
	Create(ctx context.Context, r volume.CreateRequest) (volume.Volume, error)
	Inspect(ctx context.Context, name string) (volume.Volume, error)
	Remove(ctx context.Context, name string, force bool) error
	// Mount makes the volume usable and returns its path; it counts by user.
	Mount(ctx context.Context, name, user string) (path string, err error)
	Unmount(ctx context.Context, name, user string) error
	// Hold marks a volume as used by a container, running or not, so that it
	// is not removed; Release undoes it. Both are safe to repeat.
	Hold(name, user string)
	Release(name, user string)
}

// Publisher is engine/events' Bus.
type Publisher interface {
	Publish(typ events.Type, action events.Action, id string, attributes map[string]string)
}
