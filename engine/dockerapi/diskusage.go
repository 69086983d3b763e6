package dockerapi

import (
	"net/http"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// DiskUsage is what System.DiskUsage reports, by the kinds "image",
// "container", "volume" and "build-cache"; a kind that was not asked for is
// nil. Totals are always set. Items are set when verbose was asked for:
// image.Summary with Containers and SharedSize, container.Summary with SizeRw
// and SizeRootFs, volume.Volume with UsageData.
type DiskUsage struct {
	Images     *image.DiskUsage
	Containers *container.DiskUsage
	Volumes    *volume.DiskUsage
	BuildCache *build.DiskUsage
}

// diskUsageAnswer has both shapes: clients of 1.52 may still read the older
// one, unless they ask for verbose.
type diskUsageAnswer struct {
	*legacyDiskUsage
	*system.DiskUsage
}

// legacyDiskUsage is the shape until API 1.51. Images is []image.Summary or,
// until API 1.43, []summary143.
type legacyDiskUsage struct {
	LayersSize int64               `json:",omitempty"`
	Images     any                 `json:",omitempty"`
	Containers []container.Summary `json:",omitzero"`
	Volumes    []volume.Volume     `json:",omitzero"`
	BuildCache []build.CacheRecord `json:",omitzero"`
}

func (s *Server) diskUsage(c *call) error {
	var kinds []string
	if c.v >= 42 {
		kinds = c.params()["type"]
	}
	for _, k := range kinds {
		switch system.DiskUsageObject(k) {
		case system.ContainerObject, system.ImageObject, system.VolumeObject, system.BuildCacheObject:
		default:
			return errdefs.Invalidf("unknown object type: %s", k)
		}
	}
	verbose := c.v >= 52 && c.flag("verbose")
	legacy := c.v < 52 || c.v == 52 && !verbose
	du, err := s.System.DiskUsage(c.ctx(), kinds, verbose || legacy)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, diskUsageFor(c.v, legacy, du))
}

func diskUsageFor(v version, legacy bool, du *DiskUsage) any {
	old := &legacyDiskUsage{}
	if legacy {
		if du.Images != nil {
			old.LayersSize = du.Images.TotalSize
			old.Images = list(du.Images.Items)
			if v < 44 {
				old.Images = withVirtualSize(du.Images.Items)
			}
		}
		if du.Containers != nil {
			old.Containers = list(du.Containers.Items)
		}
		if du.Volumes != nil {
			old.Volumes = list(du.Volumes.Items)
		}
		if du.BuildCache != nil {
			old.BuildCache = list(du.BuildCache.Items)
		}
	}
	if v < 52 {
		return old
	}
	return diskUsageAnswer{old, &system.DiskUsage{
		ImageUsage: du.Images, ContainerUsage: du.Containers, VolumeUsage: du.Volumes, BuildCacheUsage: du.BuildCache,
	}}
}
