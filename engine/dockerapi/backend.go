package dockerapi

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	econtainer "github.com/cleatlabs/cleat/engine/container"
	"github.com/cleatlabs/cleat/engine/events"
	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/engine/image"
	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/engine/runtime"
)

// Containers is what the API needs of engine/container. ref is a name, an ID
// or an unambiguous prefix of an ID. Errors carry classes of internal/errdefs.
type Containers interface {
	Create(ctx context.Context, o econtainer.CreateOptions) (container.CreateResponse, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, o econtainer.StopOptions) error
	Restart(ctx context.Context, ref string, o econtainer.StopOptions) error
	Kill(ctx context.Context, ref, signal string) error
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	// Wait returns once the waiter is registered; the channel yields one
	// response, or is closed when ctx ends first.
	Wait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error)
	Remove(ctx context.Context, ref string, o econtainer.RemoveOptions) error
	Rename(ctx context.Context, ref, name string) error
	Update(ctx context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error)
	Resize(ctx context.Context, ref string, size runtime.Size) error
	// Attach may be called before Start: output begins when the container does.
	// tty says which framing the output has.
	Attach(ctx context.Context, ref string, o runtime.AttachOptions) (a runtime.Attachment, tty bool, err error)
	Logs(ctx context.Context, ref string, o econtainer.LogsOptions, emit func(logs.Entry) error) error
	// Tty says whether the container has a terminal, which decides the framing of its logs.
	Tty(ctx context.Context, ref string) (bool, error)
	Inspect(ctx context.Context, ref string, size bool) (*container.InspectResponse, error)
	List(ctx context.Context, o econtainer.ListOptions) ([]container.Summary, error)
	Top(ctx context.Context, ref, psArgs string) (container.TopResponse, error)
	// Stats emits one sample, or with stream one a second until ctx ends.
	// oneShot leaves out the preceding sample.
	Stats(ctx context.Context, ref string, stream, oneShot bool, emit func(*container.StatsResponse) error) error
	Changes(ctx context.Context, ref string) ([]container.FilesystemChange, error)
	Export(ctx context.Context, ref string, w io.Writer) error
	Commit(ctx context.Context, ref string, o econtainer.CommitOptions) (imageID string, err error)
	StatPath(ctx context.Context, ref, path string) (container.PathStat, error)
	// CopyFrom calls begin with the path's stat before the first byte of tar.
	CopyFrom(ctx context.Context, ref, path string, begin func(container.PathStat) io.Writer) error
	CopyTo(ctx context.Context, ref, path string, o econtainer.CopyOptions, tar io.Reader) error
	Prune(ctx context.Context, f filter.Args) (container.PruneReport, error)
	ConnectNetwork(ctx context.Context, networkRef, ref string, e *network.EndpointSettings) error
	DisconnectNetwork(ctx context.Context, networkRef, ref string, force bool) error

	ExecCreate(ctx context.Context, ref string, r container.ExecCreateRequest) (id string, err error)
	// ExecStart starts the process. With attach it returns its streams, whose
	// end is the end of the process's output.
	ExecStart(ctx context.Context, execID string, r container.ExecStartRequest, attach bool) (a runtime.Attachment, tty bool, err error)
	ExecInspect(ctx context.Context, execID string) (*container.ExecInspectResponse, error)
	ExecResize(ctx context.Context, execID string, size runtime.Size) error
}

// Images is what the API needs of engine/image.
type Images interface {
	Pull(ctx context.Context, o image.PullOptions) error
	Push(ctx context.Context, o image.PushOptions) error
	Tag(ctx context.Context, source, target string) error
	Remove(ctx context.Context, ref string, o image.RemoveOptions) ([]apiimage.DeleteResponse, error)
	List(ctx context.Context, o image.ListOptions) ([]apiimage.Summary, error)
	Inspect(ctx context.Context, ref string, p *ocispec.Platform, manifests bool) (*apiimage.InspectResponse, error)
	History(ctx context.Context, ref string, p *ocispec.Platform) ([]apiimage.HistoryResponseItem, error)
	Save(ctx context.Context, refs []string, platforms []ocispec.Platform, w io.Writer) error
	Load(ctx context.Context, tar io.Reader, platforms []ocispec.Platform, progress image.Progress) error
	Import(ctx context.Context, tar io.Reader, o image.ImportOptions) (imageID string, err error)
	Prune(ctx context.Context, f filter.Args) (apiimage.PruneReport, error)
	Login(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error)
	Distribution(ctx context.Context, ref string, a *registry.AuthConfig) (registry.DistributionInspect, error)
}

// Networks is what the API needs of engine/network.
type Networks interface {
	Create(ctx context.Context, r network.CreateRequest) (network.CreateResponse, error)
	Inspect(ctx context.Context, ref string) (network.Inspect, error)
	// List takes the filters driver, id, label, name, scope, type, dangling.
	List(ctx context.Context, f filter.Args) ([]network.Inspect, error)
	Remove(ctx context.Context, ref string) error
	Prune(ctx context.Context, f filter.Args) (network.PruneReport, error)
}

// Volumes is what the API needs of engine/volume.
type Volumes interface {
	Create(ctx context.Context, r volume.CreateRequest) (volume.Volume, error)
	Inspect(ctx context.Context, name string) (volume.Volume, error)
	List(ctx context.Context, f filter.Args) (volume.ListResponse, error)
	Remove(ctx context.Context, name string, force bool) error
	Prune(ctx context.Context, f filter.Args) (volume.PruneReport, error)
	// Export, Import and Clone are ours, beyond Docker's API.
	Export(ctx context.Context, name string, w io.Writer) error
	Import(ctx context.Context, name string, tar io.Reader) error
	Clone(ctx context.Context, source, target string) (volume.Volume, error)
}

// System is what the API needs of the daemon as a whole.
type System interface {
	Info(ctx context.Context) (*system.Info, error)
	Version(ctx context.Context) (system.VersionResponse, error)
	// DiskUsage reports the kinds asked for; none means all.
	DiskUsage(ctx context.Context, kinds []string, verbose bool) (*DiskUsage, error)
	// Doctor is what `cleat doctor` prints, as JSON.
	Doctor(ctx context.Context) (any, error)
}

// Events is what the API needs of engine/events.
type Events interface {
	Subscribe(since time.Time) ([]apievents.Message, *events.Subscription)
}
