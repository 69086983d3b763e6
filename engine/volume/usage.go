package volume

import (
	"context"

	"github.com/containerd/continuity/fs"
	"github.com/moby/moby/api/types/volume"
)

// Usage lists the volumes with their sizes and numbers of users, for df. The
// size is -1 where finding out would touch other machines or devices: plugins'
// volumes and those with options.
func (s *Service) Usage(ctx context.Context) ([]volume.Volume, error) {
	all, _ := s.everything(ctx) // what is not listed has no known size
	for i := range all {
		v := &all[i]
		v.UsageData = &volume.UsageData{Size: -1, RefCount: int64(len(s.users(v.Name)))}
		s.mu.Lock()
		e := s.byID[v.Name]
		s.mu.Unlock()
		if e == nil {
			continue
		}
		size, err := s.size(ctx, e)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil && plain(e) {
			v.UsageData.Size = size
		}
	}
	return all, nil
}

func plain(e *entry) bool { return e.Driver == localDriver && len(e.Options) == 0 }

// size is the disk space of a plain volume, 0 of others.
func (s *Service) size(ctx context.Context, e *entry) (int64, error) {
	if !plain(e) {
		return 0, nil
	}
	u, err := fs.DiskUsage(ctx, s.dataPath(e.Name))
	return u.Size, err
}
