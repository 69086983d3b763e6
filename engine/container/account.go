package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"
	"syscall"

	"github.com/moby/sys/user"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/errdefs"
	"github.com/cleatlabs/cleat/internal/safepath"
)

type unixStat = syscall.Stat_t

// account is who a process runs as.
type account struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

func (a account) user(umask *uint32) specs.User {
	return specs.User{UID: a.uid, GID: a.gid, AdditionalGids: a.groups, Umask: umask}
}

// accountFiles are /etc/passwd and /etc/group of a root file system.
type accountFiles struct{ passwd, group []byte }

// maxAccountFile bounds what is read of them: they are the image's to write.
const maxAccountFile = 4 << 20

// readAccountFiles reads them in root; an absent one is empty.
func readAccountFiles(root *safepath.Root) (f accountFiles, err error) {
	if f.passwd, err = readSmall(root, "/etc/passwd"); err != nil {
		return f, err
	}
	f.group, err = readSmall(root, "/etc/group")
	return f, err
}

func readSmall(root *safepath.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxAccountFile))
}

// resolveAccount finds out who "user[:group]" and the extra groups are.
func resolveAccount(f accountFiles, spec string, add []string) (account, error) {
	u, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, bytes.NewReader(f.passwd), bytes.NewReader(f.group))
	if err != nil {
		return account{}, errdefs.Invalidf("%v", err)
	}
	a := account{uid: uint32(u.Uid), gid: uint32(u.Gid), home: u.Home}
	for _, g := range u.Sgids {
		a.groups = append(a.groups, uint32(g))
	}
	if len(add) > 0 {
		extra, err := user.GetAdditionalGroups(add, bytes.NewReader(f.group))
		if err != nil {
			return account{}, errdefs.Invalidf("%v", err)
		}
		for _, g := range extra {
			a.groups = append(a.groups, uint32(g))
		}
	}
	setDefault(&a.home, "/")
	return a, nil
}

// accountCache keeps the account files of images by chain ID: a container whose
// writable layer nobody has touched has the image's.
type accountCache struct {
	mu sync.Mutex
	m  map[digest.Digest]accountFiles
}

func newAccountCache() *accountCache { return &accountCache{m: map[digest.Digest]accountFiles{}} }

func (a *accountCache) get(chain digest.Digest) (accountFiles, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, ok := a.m[chain]
	return f, ok
}

func (a *accountCache) put(chain digest.Digest, f accountFiles) {
	const images, size = 128, 64 << 10
	if len(f.passwd)+len(f.group) > size {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.m) >= images {
		clear(a.m)
	}
	a.m[chain] = f
}

// accountFilesOf gives a container's account files while it has no task.
func (s *Service) accountFilesOf(ctx context.Context, r *record) (f accountFiles, err error) {
	if !r.Touched && r.ChainID != "" {
		if f, ok := s.accounts.get(r.ChainID); ok {
			return f, nil
		}
	}
	err = s.withRootfs(ctx, r, rootOptions{readOnly: true}, func(root *safepath.Root) error {
		f, err = readAccountFiles(root)
		return err
	})
	if err == nil && !r.Touched && r.ChainID != "" {
		s.accounts.put(r.ChainID, f)
	}
	return f, err
}
