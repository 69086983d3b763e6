package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/atomicfile"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// mountTable counts mounts by volume and user.
type mountTable map[string]map[string]int

func (t mountTable) add(name, user string) (first bool) {
	if t[name] == nil {
		t[name] = make(map[string]int)
	}
	t[name][user]++
	return t[name][user] == 1
}

// drop says whether user has now none left; a user that had none stays so.
func (t mountTable) drop(name, user string) (last bool) {
	n, ok := t[name][user]
	if !ok {
		return false
	}
	if n > 1 {
		t[name][user] = n - 1
		return false
	}
	delete(t[name], user)
	if len(t[name]) == 0 {
		delete(t, name)
	}
	return true
}

// mountFile is mounts.json.
type mountFile struct {
	// Boot tells a reboot, after which nothing is mounted any more.
	Boot   string            `json:"boot"`
	Mounts mountTable        `json:"mounts"`
	Paths  map[string]string `json:"paths,omitempty"` // of plugins' volumes
}

// Hold marks a volume as used by a container.
func (s *Service) Hold(name, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds[name] == nil {
		s.holds[name] = make(map[string]struct{})
	}
	s.holds[name][user] = struct{}{}
}

// Release undoes Hold.
func (s *Service) Release(name, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.holds[name], user)
	if len(s.holds[name]) == 0 {
		delete(s.holds, name)
	}
}

// users lists who holds or has mounted a volume.
func (s *Service) users(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usersLocked(name)
}

func (s *Service) usersLocked(name string) []string {
	all := make(map[string]struct{})
	maps.Copy(all, s.holds[name])
	for u := range s.saved[name] {
		all[u] = struct{}{}
	}
	return slices.Sorted(maps.Keys(all))
}

// transient users are operations of the daemon, not containers: they end with
// it. Their names end so.
func transient(user string) bool {
	return user == transfer || strings.HasSuffix(user, "-populate")
}

// Mount makes the volume usable and returns its path. A mount survives a
// restart of the daemon, like the container that is user; a user named *-populate
// does not.
func (s *Service) Mount(ctx context.Context, name, user string) (string, error) {
	e, err := s.lookup(ctx, name)
	if err != nil {
		return "", wrap("get", name, err)
	}
	defer e.op.Unlock()
	path, err := s.mount(ctx, e, user)
	if err != nil {
		return "", err
	}
	s.publish(events.ActionMount, e.record, map[string]string{"container": user})
	return path, nil
}

// mount counts and mounts; e.op is held. The count is on disk before the mount
// is made: a crash in between leaves a count too high, which Start corrects,
// rather than a mount that nobody knows of.
func (s *Service) mount(ctx context.Context, e *entry, user string) (string, error) {
	s.mu.Lock()
	others := len(s.saved[e.Name]) > 0
	first := s.saved.add(e.Name, user)
	s.mu.Unlock()
	path, err := s.activate(ctx, e, user, first, others)
	if err == nil {
		return path, nil
	}
	s.mu.Lock()
	s.saved.drop(e.Name, user)
	s.mu.Unlock()
	return "", errors.Join(err, s.saveMounts())
}

func (s *Service) activate(ctx context.Context, e *entry, user string, first, others bool) (string, error) {
	if e.Driver != localDriver {
		if !first {
			return e.path, nil
		}
		p, err := s.plugins.get(ctx, e.Driver)
		if err != nil {
			return "", err
		}
		if err := s.saveMounts(); err != nil {
			return "", err
		}
		path, err := p.mount(ctx, e.Name, user)
		if err != nil {
			return "", errdefs.As(errdefsClass(err), fmt.Errorf("error while mounting volume '%s': %w", e.Name, err))
		}
		s.mu.Lock()
		e.path = path
		s.mu.Unlock()
		return path, s.saveMounts()
	}
	target := s.dataPath(e.Name)
	if len(e.Options) == 0 {
		return target, nil // a plain folder: its counts need not survive
	}
	if err := s.saveMounts(); err != nil {
		return "", err
	}
	if others || !first {
		return target, nil
	}
	if err := mountLocal(ctx, e.Options, target); err != nil {
		return "", errdefs.As(errdefs.ErrInternal,
			fmt.Errorf("error while mounting volume '%s': failed to mount local volume: %w", target, err))
	}
	return target, nil
}

// mountLocal mounts by type, o and device.
func mountLocal(ctx context.Context, opts map[string]string, target string) error {
	o := opts["o"]
	if t := opts["type"]; t == "nfs" || t == "nfs4" || t == "cifs" {
		var err error
		if o, err = resolveAddr(ctx, o); err != nil {
			return err
		}
	}
	m := mount.Mount{Type: opts["type"], Source: opts["device"]}
	if o != "" {
		m.Options = strings.Split(o, ",")
	}
	if err := m.Mount(target); err != nil {
		return fmt.Errorf("mount %s:%s: %w", opts["device"], target, err)
	}
	return nil
}

// resolveAddr replaces the host name of addr= by its address: the kernel takes
// no names.
func resolveAddr(ctx context.Context, o string) (string, error) {
	fields := strings.Split(o, ",")
	for i, f := range fields {
		host, ok := strings.CutPrefix(f, "addr=")
		if !ok || net.ParseIP(host) != nil {
			continue
		}
		addrs, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return "", fmt.Errorf("error resolving passed in network volume address: %w", err)
		}
		fields[i] = "addr=" + addrs[0]
	}
	return strings.Join(fields, ","), nil
}

// Unmount undoes one Mount of user. It is safe to repeat.
func (s *Service) Unmount(ctx context.Context, name, user string) error {
	s.mu.Lock()
	e := s.byID[name]
	s.mu.Unlock()
	if e == nil {
		return nil // gone, or a plugin's that nobody mounted since Start
	}
	e.op.Lock()
	defer e.op.Unlock()
	s.mu.Lock()
	_, mounted := s.saved[name][user]
	s.mu.Unlock()
	if e.gone || !mounted {
		return nil
	}
	if err := s.unmount(ctx, e, user); err != nil {
		return err
	}
	s.publish(events.ActionUnmount, e.record, map[string]string{"container": user})
	return nil
}

// unmount counts down and unmounts; e.op is held.
func (s *Service) unmount(ctx context.Context, e *entry, user string) error {
	s.mu.Lock()
	last := s.saved.drop(e.Name, user)
	others := len(s.saved[e.Name]) > 0
	s.mu.Unlock()
	var err error
	switch {
	case !last:
	case e.Driver != localDriver:
		var p *plugin
		if p, err = s.plugins.get(ctx, e.Driver); err == nil {
			err = p.unmount(ctx, e.Name, user)
		}
		if err == nil && !others {
			s.mu.Lock()
			e.path = ""
			s.mu.Unlock()
		}
	case len(e.Options) > 0 && !others:
		err = unmountAll(s.dataPath(e.Name))
	}
	if err != nil {
		s.mu.Lock()
		s.saved.add(e.Name, user) // it is still mounted: let it be tried again
		s.mu.Unlock()
		return fmt.Errorf("unmount volume %s: %w", e.Name, err)
	}
	if len(e.Options) > 0 || e.Driver != localDriver {
		return s.saveMounts()
	}
	return nil
}

// unmountAll unmounts everything that is stacked on path, lazily: a process
// that still uses a file there must not keep the volume.
func unmountAll(path string) error {
	for {
		switch err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err {
		case nil:
		case unix.EINVAL, unix.ENOENT:
			return nil // no mount point (any more)
		default:
			return &os.PathError{Op: "unmount", Path: path, Err: err}
		}
	}
}

// mountsBelow lists the mount points at or below dir.
func mountsBelow(dir string) ([]string, error) {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, err
	}
	var points []string
	for _, i := range infos {
		points = append(points, i.Mountpoint)
	}
	return points, nil
}

func (s *Service) mountsPath() string { return filepath.Join(s.cfg.Run, "mounts.json") }

// saveMounts writes the counts of those volumes that are really mounted.
func (s *Service) saveMounts() error {
	s.persist.Lock()
	defer s.persist.Unlock()
	boot, err := bootID()
	if err != nil {
		return err
	}
	f := mountFile{Boot: boot, Mounts: make(mountTable), Paths: make(map[string]string)}
	s.mu.Lock()
	for name, users := range s.saved {
		e := s.byID[name]
		if e == nil || e.Driver == localDriver && len(e.Options) == 0 {
			continue
		}
		f.Mounts[name] = maps.Clone(users)
		if e.path != "" {
			f.Paths[name] = e.path
		}
	}
	s.mu.Unlock()
	return atomicfile.WriteVolatileJSON(s.mountsPath(), f, 0o600)
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// restoreMounts takes over the mounts of the daemon before, and unmounts what
// has no user.
func (s *Service) restoreMounts() error {
	var f mountFile
	err := atomicfile.ReadJSON(s.mountsPath(), &f)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the list of mounted volumes cannot be read", "error", err)
		f = mountFile{}
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	if f.Boot != boot {
		f = mountFile{}
	}
	mounted := make(map[string]bool)
	points, err := mountsBelow(s.cfg.Root)
	if err != nil {
		return err
	}
	for _, p := range points {
		mounted[p] = true
	}
	for name, e := range s.byID {
		users := f.Mounts[name]
		maps.DeleteFunc(users, func(user string, _ int) bool { return transient(user) })
		if e.Driver == localDriver {
			path := s.dataPath(name)
			if !mounted[path] {
				continue // whoever was counted had no time to mount it
			}
			if len(users) == 0 || len(e.Options) == 0 {
				s.log.Info("unmounting a volume that nobody uses", "volume", name)
				if err := unmountAll(path); err != nil {
					s.log.Warn("a volume stays mounted", "volume", name, "error", err)
				}
				continue
			}
		}
		if len(users) > 0 {
			s.saved[name] = maps.Clone(users)
			e.path = f.Paths[name]
		}
	}
	return s.saveMounts()
}
