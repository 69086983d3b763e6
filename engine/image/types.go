package image

import (
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/engine/filter"
)

// Image is one platform's image in the store.
type Image struct {
	// ID is the digest that users see as image ID: of the index or manifest
	// that the name points at, as Docker's containerd store does.
	ID digest.Digest
	// Manifest is the platform's manifest.
	Manifest ocispec.Descriptor
	// Config is the image's configuration with Docker's extensions.
	Config dockerspec.DockerOCIImage
	// ChainID is the snapshot that a container's writable layer is made on.
	ChainID digest.Digest
	// Names are the tags and digests that point at ID, in familiar form.
	Names []string
}

// Progress receives what a long operation does, in Docker's stream messages.
// It must not block for long. It may be nil.
type Progress func(jsonstream.Message)

// PullOptions say what to fetch. Ref is as the user wrote it.
type PullOptions struct {
	Ref      string
	AllTags  bool
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig
	Progress Progress
}

// PushOptions say what to send.
type PushOptions struct {
	Ref      string
	AllTags  bool
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig
	Progress Progress
}

// ListOptions select images; filters: dangling, label, label!, before, since,
// reference, until.
type ListOptions struct {
	All, SharedSize, Manifests bool
	Filters                    filter.Args
}

// RemoveOptions as DELETE /images/{name}.
type RemoveOptions struct {
	Force, NoPrune bool
	Platforms      []ocispec.Platform
}

// ImportOptions make an image of one layer from a root file system's tar.
type ImportOptions struct {
	Ref, Message string
	Changes      []string // Dockerfile instructions
	Platform     *ocispec.Platform
	Progress     Progress
}

// CommitOptions make an image from a container's writable layer.
type CommitOptions struct {
	// SnapshotKey is the container's writable snapshot, Parent its image.
	SnapshotKey string
	Parent      *Image
	// ContainerID and ContainerConfig are recorded in the history.
	ContainerID     string
	ContainerConfig *container.Config
	Repo, Tag       string
	Author, Comment string
	// Config is the new image's, with changes applied.
	Config  *container.Config
	Changes []string
	Created time.Time
}

// Use is a container that uses an image.
type Use struct {
	ContainerID string
	Running     bool
}
