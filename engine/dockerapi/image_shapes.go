package dockerapi

import (
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
)

// summary143 is an entry of the list until API 1.43.
type summary143 struct {
	*image.Summary
	VirtualSize int64
}

// imagesFor is all in the shape of v; all may be changed.
func imagesFor(v version, all []image.Summary) any {
	for i := range all {
		img := &all[i]
		if v < 43 && len(img.RepoTags) == 0 && len(img.RepoDigests) == 0 {
			img.RepoTags = []string{"<none>:<none>"}
			img.RepoDigests = []string{"<none>@<none>"}
		}
		img.RepoTags, img.RepoDigests = list(img.RepoTags), list(img.RepoDigests)
		if v < 48 {
			img.Descriptor = nil
		}
		if v < 51 {
			img.Containers = -1
		}
	}
	if v >= 44 {
		return list(all)
	}
	return withVirtualSize(all)
}

func withVirtualSize(all []image.Summary) []summary143 {
	old := make([]summary143, len(all))
	for i := range all {
		old[i] = summary143{&all[i], all[i].Size}
	}
	return old
}

// imageInspect151 is the shape until API 1.51: nothing is left out when empty.
type imageInspect151 struct {
	*image.InspectResponse
	Parent        string
	Comment       string
	DockerVersion string
	Author        string
	Config        any
	GraphDriver   *storage.DriverData
}

// imageInspect144 has more.
type imageInspect144 struct {
	*imageInspect151
	Container       string
	ContainerConfig struct{}
}

type imageInspect143 struct {
	*imageInspect144
	VirtualSize int64
}

// imageConfig151 has the fields that newer versions leave out when empty.
type imageConfig151 struct {
	*dockerspec.DockerOCIImageConfig
	Cmd        []string
	Entrypoint []string
	Env        []string
	Labels     map[string]string
	OnBuild    []string
	User       string
	Volumes    map[string]struct{}
	WorkingDir string
}

// imageConfig149 has the fields of a container's config that images never set.
type imageConfig149 struct {
	*imageConfig151
	Hostname, Domainname                    string
	AttachStdin, AttachStdout, AttachStderr bool
	Tty, OpenStdin, StdinOnce               bool
	Image                                   string
}

// imageInspectFor is img in the shape of v; img may be changed.
func imageInspectFor(v version, img *image.InspectResponse) any {
	img.RepoTags, img.RepoDigests = list(img.RepoTags), list(img.RepoDigests)
	if v < 48 {
		img.Descriptor = nil
	}
	if v < 53 {
		img.Identity = nil
	}
	if v >= 52 {
		return img
	}
	cfg := img.Config
	if cfg == nil {
		cfg = &dockerspec.DockerOCIImageConfig{}
	}
	c151 := &imageConfig151{
		DockerOCIImageConfig: cfg,
		Cmd:                  cfg.Cmd, Entrypoint: cfg.Entrypoint, Env: cfg.Env, Labels: cfg.Labels,
		OnBuild: cfg.OnBuild, User: cfg.User, Volumes: cfg.Volumes, WorkingDir: cfg.WorkingDir,
	}
	old := &imageInspect151{InspectResponse: img, Comment: img.Comment, Author: img.Author, Config: c151, GraphDriver: img.GraphDriver}
	if old.GraphDriver == nil {
		old.GraphDriver = &storage.DriverData{Name: "overlayfs"}
	}
	if v < 50 {
		old.Config = imageConfig149{imageConfig151: c151}
	}
	if v >= 45 {
		return old
	}
	older := &imageInspect144{imageInspect151: old}
	if v >= 44 {
		return older
	}
	if img.Created == "" {
		img.Created = time.Time{}.Format(time.RFC3339Nano)
	}
	return &imageInspect143{older, img.Size}
}
