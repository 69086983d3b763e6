//go:build cgo

package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	// Sets device rules; cgroup managers refuse to without it.
	_ "github.com/opencontainers/cgroups/devices"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"

	"github.com/cleatlabs/cleat/engine/runtime/seccomp"
	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

// libct is the built-in launcher.
type libct struct {
	req *wire.Create
	ct  *libcontainer.Container
	// rootUID and rootGID are root's in the container's user namespace.
	rootUID, rootGID int
	// resources is what the container has now; update changes it.
	resources specs.LinuxResources
}

func newLibct(req *wire.Create) (launcher, error) { return &libct{req: req}, nil }

// rehearseLibct is rehearse for libcontainer's types.
func rehearseLibct() {
	_, _ = json.Marshal(&libcontainer.State{})
}

func (l *libct) create(io *stdio) (int, error) {
	spec := l.req.Spec
	var pid int
	err := isolated(!l.req.SharedMounts, func() error {
		if err := mountAll(spec.Root.Path, l.req.Rootfs); err != nil {
			return err
		}
		config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: l.req.ID, Spec: spec})
		if err != nil {
			return err
		}
		if l.rootUID, err = config.HostRootUID(); err != nil {
			return err
		}
		if l.rootGID, err = config.HostRootGID(); err != nil {
			return err
		}
		l.ct, err = libcontainer.Create(filepath.Join(l.req.Dir, wire.StateDir), l.req.ID, config)
		if err != nil {
			return err
		}
		p, err := newProcess(spec.Process, l.req.ConsoleSize)
		if err != nil {
			return err
		}
		p.Init = true
		pid, err = l.launch(p, l.req.OpenStdin, io)
		return err
	})
	if err != nil {
		err = errors.Join(err, l.destroy())
	}
	if spec.Linux != nil && spec.Linux.Resources != nil {
		l.resources = *spec.Linux.Resources
	}
	return pid, err
}

func (l *libct) start() error { return l.ct.Exec() }

func (l *libct) exec(_ string, spec *specs.Process, openStdin bool, io *stdio) (int, error) {
	io.mu.Lock()
	size := io.size
	io.mu.Unlock()
	p, err := newProcess(spec, size)
	if err != nil {
		return 0, err
	}
	return l.launch(p, openStdin, io)
}

// launch starts p with io as its streams.
func (l *libct) launch(p *libcontainer.Process, openStdin bool, io *stdio) (int, error) {
	defer io.closeChild()
	if !io.terminal {
		if err := io.newPipes(openStdin, l.rootUID, l.rootGID); err != nil {
			return 0, err
		}
		p.Stdin, p.Stdout, p.Stderr = io.child[0], io.child[1], io.child[2]
		return l.startProcess(p)
	}
	ours, theirs, err := consolePair()
	if err != nil {
		return 0, err
	}
	defer ours.Close()
	p.ConsoleSocket = theirs
	pid, err := l.startProcess(p)
	theirs.Close()
	if err != nil {
		return 0, err
	}
	// The terminal was sent before the start returned.
	master, err := receiveFile(ours)
	if err != nil {
		return 0, err
	}
	return pid, io.setMaster(master)
}

func (l *libct) startProcess(p *libcontainer.Process) (int, error) {
	profile, err := seccomp.Open(l.req.SeccompCache, l.req.Spec.Linux.Seccomp)
	if err != nil {
		logrus.Warnf("the seccomp profile is compiled again: %v", err)
	}
	defer profile.Close()
	if profile != nil {
		p.ExtraFiles = []*os.File{profile.File}
	}
	if err := l.ct.Start(p); err != nil {
		return 0, err
	}
	if err := profile.Keep(); err != nil {
		logrus.Warnf("the compiled seccomp profile is not kept: %v", err)
	}
	return p.Pid()
}

func (l *libct) pause() error  { return l.ct.Pause() }
func (l *libct) resume() error { return l.ct.Resume() }

// update changes the limits that r names.
func (l *libct) update(r *specs.LinuxResources) error {
	next := mergeResources(l.resources, r)
	spec, linux := *l.req.Spec, *l.req.Spec.Linux
	linux.Resources = &next
	spec.Linux = &linux
	cg, err := specconv.CreateCgroupConfig(&specconv.CreateOpts{CgroupName: l.req.ID, Spec: &spec}, nil)
	if err != nil {
		return err
	}
	// Device rules stay as they are.
	cg.SkipDevices = true
	state, err := l.ct.State()
	if err != nil {
		return err
	}
	m, err := manager.NewWithPaths(cg, state.CgroupPaths)
	if err != nil {
		return err
	}
	if err := m.Set(cg.Resources); err != nil {
		return err
	}
	l.resources = next
	return nil
}

func (l *libct) destroy() error {
	var err error
	if l.ct != nil {
		err = l.ct.Destroy()
	}
	if l.req.SharedMounts {
		err = errors.Join(err, unmountAll(l.req.Spec.Root.Path, l.req.Rootfs))
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(l.req.Dir, wire.StateDir)))
}

// newProcess translates a process of the OCI spec.
func newProcess(p *specs.Process, size wire.Size) (*libcontainer.Process, error) {
	if len(p.Args) == 0 {
		return nil, wire.Errorf(wire.Invalid, "no command specified")
	}
	lp := &libcontainer.Process{
		Args: p.Args, Env: p.Env, Cwd: p.Cwd,
		UID: int(p.User.UID), GID: int(p.User.GID),
		Label: p.SelinuxLabel, AppArmorProfile: p.ApparmorProfile,
		NoNewPrivileges: &p.NoNewPrivileges,
		Scheduler:       p.Scheduler, IOPriority: p.IOPriority,
		ConsoleWidth: size.Width, ConsoleHeight: size.Height,
	}
	if c := p.Capabilities; c != nil {
		lp.Capabilities = &configs.Capabilities{Bounding: c.Bounding, Effective: c.Effective,
			Inheritable: c.Inheritable, Permitted: c.Permitted, Ambient: c.Ambient}
	}
	for _, g := range p.User.AdditionalGids {
		lp.AdditionalGroups = append(lp.AdditionalGroups, int(g))
	}
	for _, l := range p.Rlimits {
		resource, ok := rlimits[l.Type]
		if !ok {
			return nil, wire.Errorf(wire.Invalid, "unknown rlimit %q", l.Type)
		}
		lp.Rlimits = append(lp.Rlimits, configs.Rlimit{Type: resource, Hard: l.Hard, Soft: l.Soft})
	}
	affinity, err := configs.ConvertCPUAffinity(p.ExecCPUAffinity)
	if err != nil {
		return nil, fmt.Errorf("CPU affinity: %w", err)
	}
	lp.CPUAffinity = affinity
	return lp, nil
}
