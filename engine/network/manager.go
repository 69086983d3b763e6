package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/engine/network/kernel"
	"github.com/cleatlabs/cleat/engine/network/rules"
)

// Publisher takes network events; engine/events' Bus satisfies it.
type Publisher interface {
	Publish(typ events.Type, action events.Action, id string, attributes map[string]string)
}

// Manager owns the networks and sandboxes of one daemon. It is safe for
// concurrent use after Start.
type Manager struct {
	cfg    Config
	log    *slog.Logger
	events Publisher

	home    *kernel.Namespace // the daemon's
	conn    *kernel.Conn
	table   *rules.Table
	watcher *rules.Watcher
	spare   *spare // nil: none
	// hairpin says that the kernel shows bridged frames to the packet rules
	// (br_netfilter): a container's way to its own published port then stays
	// in the bridge, which must be ready to send back where it came from.
	hairpin bool

	// changing serialises changes of the set of networks, which take a while.
	changing sync.Mutex
	// mu guards the maps and what is in them. It is held for bookkeeping only,
	// never during a system call that waits.
	mu sync.RWMutex
	// burying serialises bury.
	burying   sync.Mutex
	networks  map[string]*bridgeNetwork // by ID
	sandboxes map[string]*sandbox
	held      map[portKey]string // host port -> sandbox
	dying     []*endpoint        // closed; the kernel still has their interfaces, so we their addresses
}

// New returns a manager; it changes nothing on the machine.
func New(cfg Config, log *slog.Logger, pub Publisher) (*Manager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	return &Manager{
		cfg: cfg, log: log, events: pub,
		networks: map[string]*bridgeNetwork{}, sandboxes: map[string]*sandbox{}, held: map[portKey]string{},
	}, nil
}

// Name implements lifecycle.Component.
func (m *Manager) Name() string { return "network" }

// Start loads the networks and makes their bridges and addresses. Sandboxes and
// packet rules come with Restore, which must follow.
func (m *Manager) Start(context.Context) (err error) {
	for _, dir := range []string{m.cfg.Root, m.cfg.Run} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	if m.home, err = kernel.Current(); err != nil {
		return err
	}
	if m.conn, err = kernel.Dial(); err != nil {
		return errors.Join(err, m.close())
	}
	if m.table, err = rules.Open(m.cfg.Table); err != nil {
		return errors.Join(err, m.close())
	}
	if err := m.begin(); err != nil {
		return errors.Join(err, m.close())
	}
	return nil
}

func (m *Manager) begin() error {
	m.forwarding()
	for _, name := range []string{"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"} {
		v, err := kernel.ReadSysctl(name)
		m.hairpin = m.hairpin || err == nil && v == "1"
	}
	if err := m.load(); err != nil {
		return err
	}
	if err := m.predefine(); err != nil {
		return err
	}
	for _, n := range m.networks {
		if n.isBridge() {
			if err := m.ensureBridge(n); err != nil {
				return err
			}
		}
		if n.Driver == driverMacvlan {
			if err := m.ensureParent(n); err != nil {
				// Its containers cannot start; the others can.
				m.log.Error("the parent of a network is missing", "network", n.Name, "error", err)
			}
		}
	}
	// The rules are left as they are until Restore knows all published ports,
	// so that those of running containers are never away.
	var err error
	if m.watcher, err = m.table.Watch(m.log, func() {}); err != nil {
		return err
	}
	if m.cfg.Spares > 0 {
		m.spare = newSpare(m.home, m.log)
	}
	return nil
}

// forwarding lets the kernel route between bridges and wires. Where it may not
// be changed, containers still reach each other.
func (m *Manager) forwarding() {
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if v, err := kernel.ReadSysctl(name); err != nil || v == "1" {
			continue
		}
		if err := kernel.WriteSysctl(name, "1"); err != nil {
			m.log.Warn("containers will not reach other hosts: forwarding cannot be switched on", "sysctl", name, "error", err)
		}
	}
}

// Stop ends name servers and proxies. Namespaces, bridges and rules stay: the
// containers need them.
func (m *Manager) Stop(context.Context) error {
	m.mu.Lock()
	all := make([]*sandbox, 0, len(m.sandboxes))
	for _, s := range m.sandboxes {
		all = append(all, s)
	}
	m.sandboxes, m.dying = map[string]*sandbox{}, nil
	m.mu.Unlock()
	var errs []error
	for _, s := range all {
		errs = append(errs, s.stopServing())
	}
	return errors.Join(append(errs, m.close())...)
}

func (m *Manager) close() error {
	errs := []error{m.spare.close()}
	if m.watcher != nil {
		errs = append(errs, m.watcher.Close())
	}
	if m.table != nil {
		errs = append(errs, m.table.Close())
	}
	if m.conn != nil {
		errs = append(errs, m.conn.Close())
	}
	if m.home != nil {
		errs = append(errs, m.home.Close())
	}
	m.spare, m.watcher, m.table, m.conn, m.home = nil, nil, nil, nil, nil
	return errors.Join(errs...)
}

// Purge removes every bridge and rule that the configuration's root knows. The
// manager must be stopped, its sandboxes closed.
func (m *Manager) Purge(context.Context) error {
	conn, err := kernel.Dial()
	if err != nil {
		return err
	}
	table, err := rules.Open(m.cfg.Table)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	var errs []error
	for _, n := range m.networks {
		if n.Made {
			errs = append(errs, deleteLink(conn, n.Link))
		}
	}
	return errors.Join(append(errs, table.Remove(), table.Close(), conn.Close())...)
}

func deleteLink(conn *kernel.Conn, name string) error {
	if _, err := conn.LinkByName(name); errors.Is(err, kernel.ErrNoLink) {
		return nil
	}
	if err := conn.Do(kernel.DeleteLink(name)); err != nil && !strings.Contains(err.Error(), "no such device") {
		return fmt.Errorf("remove interface %s: %w", name, err)
	}
	return nil
}
