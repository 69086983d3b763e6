package container

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/cleatlabs/cleat/internal/safepath"
)

// populate copies what the image has at the places of new volumes into them.
func (s *Service) populate(ctx context.Context, r *record, fresh []mountPoint) error {
	if len(fresh) == 0 {
		return nil
	}
	return s.withRootfs(ctx, r, rootOptions{readOnly: true}, func(root *safepath.Root) error {
		for _, m := range fresh {
			if err := s.populateOne(ctx, r.ID, root, &m); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) populateOne(ctx context.Context, user string, root *safepath.Root, m *mountPoint) (err error) {
	fi, err := root.Stat(m.Destination)
	if err != nil || !fi.IsDir() {
		return nil // the image has no folder there
	}
	user += "-populate"
	dir, err := s.deps.Volumes.Mount(ctx, m.Name, user)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.deps.Volumes.Unmount(ctx, m.Name, user)) }()
	have, err := os.ReadDir(dir)
	if err != nil || len(have) > 0 {
		return err
	}
	target, err := safepath.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer target.Close() // everything in it has been closed
	return copyTree(ctx, root, m.Destination, target)
}

// copyTree copies what is in the folder src of from into the top of to, which
// gets that folder's owner and mode.
func copyTree(ctx context.Context, from *safepath.Root, src string, to *safepath.Root) error {
	fi, err := from.Stat(src)
	if err != nil {
		return err
	}
	if st, ok := fi.Sys().(*unixStat); ok {
		if err := to.Lchown("/", int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if err := to.Chmod("/", fi.Mode()); err != nil {
		return err
	}
	pr, pw := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		source := &files{root: from}
		pw.CloseWithError(source.pack(ctx, pw, src+"/", ""))
	})
	x := &unpacker{dir: to, ctx: ctx}
	err = x.all(pr)
	pr.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	wg.Wait()
	return err
}
