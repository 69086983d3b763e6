package platform

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"

	"github.com/cleatlabs/cleat/engine/container"
	"github.com/cleatlabs/cleat/engine/dockerapi"
	"github.com/cleatlabs/cleat/engine/events"
	"github.com/cleatlabs/cleat/engine/image"
	"github.com/cleatlabs/cleat/engine/logs"
	"github.com/cleatlabs/cleat/engine/network"
	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/engine/snapshot"
	"github.com/cleatlabs/cleat/engine/volume"
	"github.com/cleatlabs/cleat/internal/lifecycle"
	"github.com/cleatlabs/cleat/internal/version"
	"github.com/cleatlabs/cleat/oci/store"
)

// Daemon is a cleatd: components in the order in which they start.
type Daemon struct {
	cfg   Config
	log   *slog.Logger
	lock  *instanceLock
	group *lifecycle.Group
	// closers release what New opened, last first.
	closers []func() error
}

// parts are the components while they are being joined.
type parts struct {
	bus        *events.Bus
	store      *store.Store
	images     *image.Service
	networks   *network.Manager
	volumes    *volume.Service
	runtime    *runtime.Driver
	logs       *logs.FileReader
	containers *container.Service
}

// New takes the root for this process and builds the components. It starts
// nothing; on an error nothing is left open.
func New(cfg Config, log *slog.Logger) (*Daemon, error) {
	lock, err := lockInstance(cfg.Root, cfg.Run)
	if err != nil {
		return nil, err
	}
	d := &Daemon{cfg: cfg, log: log, lock: lock, group: lifecycle.NewGroup(log)}
	d.closers = append(d.closers, lock.release)
	p := &parts{bus: events.NewBus(time.Now)}
	for _, build := range []func(*parts) error{d.buildImages, d.buildDrivers, d.buildContainers, d.buildAPI} {
		if err := build(p); err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	return d, nil
}

func (d *Daemon) buildImages(p *parts) error {
	store.LogTo(d.log)
	name, sn, err := snapshot.Open(d.cfg.Snapshot, d.log)
	if err != nil {
		return err
	}
	// The store takes the snapshotter over.
	p.store, err = store.Open(context.Background(), store.Config{Root: d.cfg.Root}, map[string]snapshots.Snapshotter{name: sn}, d.log)
	if err != nil {
		return errors.Join(err, sn.Close())
	}
	d.closers = append(d.closers, p.store.Close)
	d.cfg.Image.UserAgent = "cleat/" + version.Version()
	p.images, err = image.New(d.cfg.Image, p.store, name, p.bus, time.Now, d.log)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, p.images.Close)
	d.group.Add(p.store)
	return nil
}

func (d *Daemon) buildDrivers(p *parts) (err error) {
	if p.networks, err = network.New(d.cfg.Network, d.log, p.bus); err != nil {
		return err
	}
	if p.volumes, err = volume.New(d.cfg.Volume, d.log, p.bus); err != nil {
		return err
	}
	if p.runtime, err = runtime.New(d.cfg.Runtime, d.log); err != nil {
		return err
	}
	p.logs = logs.NewReader(d.log)
	d.closers = append(d.closers, p.logs.Close)
	d.group.Add(p.networks)
	d.group.Add(p.volumes)
	d.group.Add(p.runtime)
	return nil
}

func (d *Daemon) buildContainers(p *parts) error {
	if err := installInit(d.cfg.Container.InitPath, d.cfg.Runtime.ShimPath); err != nil {
		return err
	}
	var err error
	p.containers, err = container.New(d.cfg.Container, container.Deps{
		Runtime: p.runtime, Images: p.images, Networks: p.networks, Volumes: p.volumes, Events: p.bus, Logs: p.logs,
	}, d.log)
	if err != nil {
		return err
	}
	p.images.SetInUse(func(id digest.Digest) []image.Use { return p.containers.UsesOfImage(id) })
	d.group.Add(p.containers.Component())
	return nil
}

func (d *Daemon) buildAPI(p *parts) error {
	id, err := machineID(filepath.Join(d.cfg.Root, "id"))
	if err != nil {
		return err
	}
	d.cfg.API.Server.ServerVersion = version.Version()
	server, err := dockerapi.New(d.cfg.API.Server, dockerapi.Backends{
		Containers: p.containers, Images: p.images, Networks: p.networks, Volumes: p.volumes,
		System: &systemInfo{cfg: d.cfg, id: id, containers: p.containers, images: p.images, volumes: p.volumes},
		Events: p.bus,
	}, d.log)
	if err != nil {
		return err
	}
	listener, err := dockerapi.NewListener(d.cfg.API.Listen, server.Handler(), d.log)
	if err != nil {
		return err
	}
	d.group.Add(listener)
	return nil
}

// Start starts the components in order; the API is last, so that whoever gets
// an answer gets the whole.
func (d *Daemon) Start(ctx context.Context) error {
	began := time.Now()
	if err := d.group.Start(ctx); err != nil {
		return errors.Join(err, d.close())
	}
	d.log.Info("ready", "version", version.Version(), "root", d.cfg.Root, "socket", d.cfg.API.Listen.Socket, "took", time.Since(began))
	return nil
}

// Stop stops the components, last first, and lets go of the root. Containers
// keep running.
func (d *Daemon) Stop(ctx context.Context) error {
	return errors.Join(d.group.Stop(ctx), d.close())
}

func (d *Daemon) close() error {
	var errs []error
	for len(d.closers) > 0 {
		last := len(d.closers) - 1
		errs = append(errs, d.closers[last]())
		d.closers = d.closers[:last]
	}
	return errors.Join(errs...)
}
