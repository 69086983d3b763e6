package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/engine/network"
	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Start lets a container run.
func (s *Service) Start(ctx context.Context, ref string) error {
	c, err := s.lookup(ref)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.check(verbStart); err != nil {
		return err
	}
	c.endBackoff()
	c.mu.Lock()
	c.rec.RestartCount, c.rec.Failures = 0, 0
	c.mu.Unlock()
	return s.start(ctx, c)
}

// start runs a container whose start is allowed; the caller holds op. A
// failure is recorded, and removes the container if it wants that at its end.
func (s *Service) start(ctx context.Context, c *instance) error {
	err := s.launch(ctx, c)
	if err == nil {
		return nil
	}
	code, out := startError(err)
	c.mu.Lock()
	auto := c.rec.HostConfig.AutoRemove
	c.mu.Unlock()
	rerr := c.change(volatile, func(r *record) {
		r.ExitCode, r.Error = code, err.Error()
		if r.State != container.StateCreated {
			r.State = container.StateExited
		}
	})
	if rerr != nil {
		s.log.Error("could not record a failed start", "container", c.id, "error", rerr)
	}
	c.endPending()
	c.mu.Lock()
	c.wake(false)
	c.mu.Unlock()
	if auto {
		if rerr := s.removeLocked(ctx, c, true); rerr != nil {
			s.log.Error("could not remove a container that failed to start", "container", c.id, "error", rerr)
		}
	}
	return out
}

// launch makes everything that runs. When it fails nothing of it is left.
func (s *Service) launch(ctx context.Context, c *instance) (err error) {
	rec := c.snapshot()
	var undo undoList
	defer func() {
		if err != nil {
			if uerr := undo.run(); uerr != nil {
				s.log.Error("clean-up after a failed start is incomplete", "container", c.id, "error", uerr)
			}
		}
	}()
	in, sandbox, err := s.prepare(ctx, c, &rec, &undo)
	if err != nil {
		return err
	}
	spec, err := planSpec(in)
	if err != nil {
		return err
	}
	var task runtime.Task
	var box *network.Sandbox
	var g errgroup.Group
	if sandbox != nil {
		g.Go(func() (err error) {
			if box, err = s.deps.Networks.Setup(ctx, *sandbox); err != nil {
				return err
			}
			return writeNames(c.dir, box.Hosts, box.ResolvConf)
		})
	}
	g.Go(func() (err error) {
		task, err = s.createTask(ctx, c, &rec, spec, in.Shared)
		return err
	})
	err = g.Wait()
	if task != nil {
		undo.add(func() error { return task.Delete(ctx) })
	}
	if err != nil {
		return err
	}
	// An attachment finds the run, or waits and is found here.
	r := s.newRun(task, s.clock.Now())
	undo.add(func() error { c.abandon(r); return nil })
	c.mu.Lock()
	c.run = r
	c.mu.Unlock()
	s.connectPending(ctx, c, task)
	if err := task.Start(ctx); err != nil {
		return fmt.Errorf("failed to create task for container: %w", err)
	}
	return s.running(c, r, box)
}

// abandon ends a run that did not become one.
func (c *instance) abandon(r *run) {
	r.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.run = nil
	close(r.logged)
	close(r.done)
}

// running records a started container and watches it.
func (s *Service) running(c *instance, r *run, box *network.Sandbox) error {
	c.mu.Lock()
	c.intent, c.health = intentNone, nil
	keep := volatile
	if !c.rec.HostConfig.RestartPolicy.IsNone() {
		keep = durable // after a power loss the policy asks whether it was started
	}
	c.mu.Unlock()
	r.started = s.clock.Now()
	err := c.change(keep, func(rec *record) {
		rec.State, rec.StartedAt, rec.FinishedAt = container.StateRunning, r.started.UTC(), time.Time{}
		rec.ExitCode, rec.Error, rec.OOMKilled, rec.ManuallyStopped, rec.Touched = 0, "", false, false, true
		rec.Health, rec.FailingStreak = initialHealth(rec.Config), 0
		if box != nil {
			rec.Live, rec.Ports = box.Endpoints, box.Ports
		}
	})
	if err != nil {
		return err
	}
	s.publish(c, events.ActionStart, nil)
	s.follow(c, r)
	return nil
}

// follow starts the goroutines that go with a running container.
func (s *Service) follow(c *instance, r *run) {
	s.spawn(func() { s.watch(c, r) })
	s.startHealth(c, r)
}

// prepare gathers what the spec needs and makes what must exist before the
// container does. sandbox is nil without a network of ours.
func (s *Service) prepare(ctx context.Context, c *instance, rec *record, undo *undoList) (*specInput, *network.SandboxRequest, error) {
	host := rec.HostConfig
	in := &specInput{ID: c.id, Config: rec.Config, Host: host, Daemon: &s.cfg, Facts: s.facts}
	var err error
	if in.Sec, err = parseSecurity(host.SecurityOpt, &s.cfg); err != nil {
		return nil, nil, err
	}
	if in.Caps, err = planCapabilities(host, s.facts); err != nil {
		return nil, nil, err
	}
	if in.Seccomp, err = s.seccomp.get(in.Sec.seccomp, host.Privileged, in.Caps, s.facts); err != nil {
		return nil, nil, err
	}
	if in.Devices, err = findDevices(host); err != nil {
		return nil, nil, err
	}
	if in.BlockDevices, err = findBlockDevices(&host.Resources); err != nil {
		return nil, nil, err
	}
	files, err := s.accountFilesOf(ctx, rec)
	if err != nil {
		return nil, nil, err
	}
	if in.Account, err = resolveAccount(files, rec.Config.User, host.GroupAdd); err != nil {
		return nil, nil, err
	}
	if host.Init != nil && *host.Init {
		in.ServeInit = s.cfg.InitPath
	}
	if err := s.prepareNamespaces(in); err != nil {
		return nil, nil, err
	}
	if err := s.prepareVolumes(ctx, c, rec, in, undo); err != nil {
		return nil, nil, err
	}
	if host.IpcMode.IsShareable() {
		in.ShmPath = filepath.Join(c.dir, shmDir)
		undo.add(func() error { return unmountOwn(c.dir) })
		if err := mountShm(in.ShmPath, host.ShmSize); err != nil {
			return nil, nil, err
		}
	}
	sandbox, err := s.prepareNetwork(ctx, c, rec, in, undo)
	return in, sandbox, err
}

// prepareNamespaces finds the namespaces of other containers that are joined.
func (s *Service) prepareNamespaces(in *specInput) error {
	join := func(ref, kind string) (string, error) {
		if ref == "" {
			return "", nil
		}
		other, err := s.lookup(ref)
		if err != nil {
			return "", err
		}
		r, err := other.liveTask(verbExec)
		if err != nil {
			return "", fmt.Errorf("cannot join the %s namespace: %w", kind, err)
		}
		return fmt.Sprintf("/proc/%d/ns/%s", r.task.Pid(), kind), nil
	}
	var err error
	if in.PIDPath, err = join(in.Host.PidMode.Container(), "pid"); err != nil {
		return err
	}
	if in.IPCPath, err = join(in.Host.IpcMode.Container(), "ipc"); err != nil {
		return err
	}
	if ref := in.Host.IpcMode.Container(); ref != "" {
		other, err := s.lookup(ref)
		if err != nil {
			return err
		}
		if !other.snapshot().HostConfig.IpcMode.IsShareable() {
			return errdefs.Invalidf("cannot join IPC of %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", other.id)
		}
		in.ShmPath = filepath.Join(other.dir, shmDir)
	}
	return nil
}

// prepareVolumes mounts the volumes and makes missing bind sources.
func (s *Service) prepareVolumes(ctx context.Context, c *instance, rec *record, in *specInput, undo *undoList) error {
	for i := range rec.Mounts {
		m := &rec.Mounts[i]
		switch m.Type {
		case mount.TypeTmpfs:
			in.Volumes = append(in.Volumes, m.tmpfsMount())
			continue
		case mount.TypeVolume:
			path, err := s.deps.Volumes.Mount(ctx, m.Name, c.id)
			if err != nil {
				return fmt.Errorf("mount volume %s: %w", m.Name, err)
			}
			undo.add(func() error { return s.deps.Volumes.Unmount(ctx, m.Name, c.id) })
			if m.Subpath != "" {
				undo.add(func() error { return unmountOwn(c.dir) })
				if path, err = bindSubpath(c.dir, i, path, m.Subpath); err != nil {
					return err
				}
			}
			in.Volumes = append(in.Volumes, m.ociMount(path, s.facts))
		case mount.TypeBind:
			if m.Create {
				if err := os.MkdirAll(m.Source, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
					if _, serr := os.Stat(m.Source); serr != nil {
						return fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err)
					}
				}
			}
			in.Volumes = append(in.Volumes, m.ociMount(m.Source, s.facts))
		}
		in.Shared = in.Shared || m.shared()
		in.Slave = in.Slave || m.slave()
	}
	return nil
}

// prepareNetwork opens the sandbox and makes the files of /etc that go with it.
func (s *Service) prepareNetwork(ctx context.Context, c *instance, rec *record, in *specInput, undo *undoList) (*network.SandboxRequest, error) {
	mode := rec.HostConfig.NetworkMode
	in.Hostname = rec.Config.Hostname
	dir := c.dir
	var request *network.SandboxRequest
	switch {
	case mode.IsContainer():
		other, err := s.lookup(mode.ConnectedContainer())
		if err != nil {
			return nil, err
		}
		r, err := other.liveTask(verbExec)
		if err != nil {
			return nil, fmt.Errorf("cannot join network of a non running container: %w", err)
		}
		in.NetPath = fmt.Sprintf("/proc/%d/ns/net", r.task.Pid())
		in.Hostname = other.snapshot().Config.Hostname
		dir = other.dir
	case mode.IsHost():
		if in.Hostname == "" {
			host, err := os.Hostname()
			if err != nil {
				return nil, err
			}
			in.Hostname = host
		}
		if err := copyHostNames(dir); err != nil {
			return nil, err
		}
	default:
		request = sandboxRequest(rec)
		path, err := s.deps.Networks.Open(ctx, *request)
		if err != nil {
			return nil, err
		}
		undo.add(func() error { return s.deps.Networks.Close(ctx, c.id) })
		in.NetPath, in.NetSandboxed = path, true
		if err := makeNames(dir); err != nil {
			return nil, err
		}
	}
	if rec.HostConfig.UTSMode.IsHost() {
		in.Hostname = ""
	}
	if !mode.IsContainer() {
		if err := os.WriteFile(filepath.Join(dir, hostnameFile), []byte(in.Hostname+"\n"), 0o644); err != nil {
			return nil, err
		}
	}
	for dest, name := range map[string]string{"/etc/hosts": hostsFile, "/etc/resolv.conf": resolvFile, "/etc/hostname": hostnameFile} {
		in.Files = append(in.Files, specs.Mount{Destination: dest, Type: "bind", Source: filepath.Join(dir, name), Options: []string{"rbind", "rprivate"}})
	}
	return request, nil
}

// createTask has the runtime make the container.
func (s *Service) createTask(ctx context.Context, c *instance, rec *record, spec *specs.Spec, shared bool) (runtime.Task, error) {
	mounts, err := s.deps.Images.SnapshotMounts(ctx, c.id)
	if err != nil {
		return nil, err
	}
	path, args, err := s.cfg.runtimeProgram(rec.HostConfig.Runtime)
	if err != nil {
		return nil, err
	}
	log := c.logConfig(rec)
	if log.Attrs, err = logAttrs(rec); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(log.Dir, 0o700); err != nil {
		return nil, err
	}
	return s.deps.Runtime.Create(ctx, runtime.CreateRequest{
		ID: c.id, Spec: spec, Rootfs: mounts, SharedMounts: shared,
		OpenStdin: rec.Config.OpenStdin, StdinOnce: rec.Config.StdinOnce,
		ConsoleSize: runtime.Size{Height: uint16(rec.HostConfig.ConsoleSize[0]), Width: uint16(rec.HostConfig.ConsoleSize[1])},
		Log:         log, Runtime: path, RuntimeArgs: args,
	})
}

// logConfig says where and how the container's output is kept.
func (c *instance) logConfig(rec *record) logs.Config {
	return logs.Config{Driver: rec.HostConfig.LogConfig.Type, Dir: filepath.Join(c.dir, logsDir), Options: rec.HostConfig.LogConfig.Config}
}

// endBackoff wakes whoever waits to restart the container.
func (c *instance) endBackoff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.backoff != nil {
		close(c.backoff)
		c.backoff = nil
	}
}
