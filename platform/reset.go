package platform

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/engine/container"
	"github.com/cleatlabs/cleat/engine/events"
	"github.com/cleatlabs/cleat/engine/runtime/cgroup"
	"github.com/cleatlabs/cleat/internal/lifecycle"
)

// Reset removes everything that the daemon of cfg.Root kept and made:
// containers, networks, packet rules, then the folders. No daemon may be running.
// It starts the components once more, because they know best how to undo
// what they did, and is safe to repeat.
func Reset(ctx context.Context, cfg Config, log *slog.Logger) error {
	if _, err := os.Stat(cfg.Root); errors.Is(err, os.ErrNotExist) {
		return os.RemoveAll(cfg.Run)
	}
	if err := resetContents(ctx, cfg, log); err != nil {
		return fmt.Errorf("nothing was deleted from %s: %w", cfg.Root, err)
	}
	var errs []error
	for _, dir := range []string{cfg.Run, cfg.Root} {
		// A folder that is a mount of its own stays; its contents go.
		if err := os.RemoveAll(dir); err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func resetContents(ctx context.Context, cfg Config, log *slog.Logger) error {
	lock, err := lockInstance(cfg.Root, cfg.Run)
	if err != nil {
		return err
	}
	d := &Daemon{cfg: cfg, log: log}
	d.closers = append(d.closers, lock.release)
	return errors.Join(d.removeAll(ctx), d.close())
}

func (d *Daemon) removeAll(ctx context.Context) error {
	d.group = lifecycle.NewGroup(d.log)
	p := &parts{bus: events.NewBus(time.Now)}
	for _, build := range []func(*parts) error{d.buildImages, d.buildDrivers, d.buildContainers} {
		if err := build(p); err != nil {
			return err
		}
	}
	if err := d.group.Start(ctx); err != nil {
		return err
	}
	all, err := p.containers.List(ctx, container.ListOptions{All: true})
	errs := []error{err}
	for _, c := range all {
		errs = append(errs, p.containers.Remove(ctx, c.ID, container.RemoveOptions{Force: true, Volumes: true}))
	}
	errs = append(errs, d.group.Stop(ctx), p.networks.Purge(ctx))
	group, err := cgroup.Find(d.cfg.Container.CgroupParent)
	if err == nil {
		// What runs there belongs to no record that is left.
		if err = group.Kill(); err == nil {
			err = group.Remove()
		}
	}
	return errors.Join(append(errs, err)...)
}
