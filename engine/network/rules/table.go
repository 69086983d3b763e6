package rules

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Table is the table in the host's namespace. It is safe for concurrent use.
type Table struct {
	name string

	mu      sync.Mutex
	conn    *nftables.Conn
	port    uint32 // of our socket, to know our own changes
	sets    map[string]*nftables.Set
	bridges map[string]Bridge
	ports   map[key]Publish
}

// key identifies a published port: there is one target for each.
type key struct {
	set string
	key string
}

func (p Publish) id() key {
	set, e := p.element()
	return key{set, string(e.Key)}
}

// Open connects to nftables in the calling thread's namespace; nothing is
// changed before Replace.
func Open(name string) (*Table, error) {
	t := &Table{name: name, bridges: make(map[string]Bridge), ports: make(map[key]Publish)}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		return errors.Join(raw.Control(func(fd uintptr) {
			if sa, e := unix.Getsockname(int(fd)); e != nil {
				err = e
			} else if nl, ok := sa.(*unix.SockaddrNetlink); ok {
				t.port = nl.Pid
			}
		}), err)
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	t.conn = conn
	return t, nil
}

// Close ends the connection; the table stays.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conn.CloseLasting()
}

// Replace makes the table anew, in one transaction, with these contents.
func (t *Table) Replace(bridges []Bridge, ports []Publish) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.bridges)
	clear(t.ports)
	for _, b := range bridges {
		t.bridges[b.Name] = b
	}
	for _, p := range ports {
		t.ports[p.id()] = p
	}
	return t.rebuild()
}

func (t *Table) table() *nftables.Table {
	return &nftables.Table{Name: t.name, Family: nftables.TableFamilyINet}
}

func (t *Table) rebuild() error {
	tab := t.table()
	t.conn.AddTable(tab) // so that the next line finds one
	t.conn.DelTable(tab)
	t.conn.AddTable(tab)
	t.sets = make(map[string]*nftables.Set)
	for _, s := range sets() {
		set, err := s.set(tab)
		if err != nil {
			return err
		}
		if err := t.conn.AddSet(set, nil); err != nil {
			return err
		}
		t.sets[s.name] = set
	}
	accept := nftables.ChainPolicyAccept
	for _, c := range chains() {
		chain := t.conn.AddChain(&nftables.Chain{
			Name: c.name, Table: tab, Type: c.typ, Hooknum: c.hook,
			Priority: nftables.ChainPriorityRef(nftables.ChainPriority(c.priority)), Policy: &accept,
		})
		for _, r := range c.rules {
			t.conn.AddRule(&nftables.Rule{Table: tab, Chain: chain, Exprs: r})
		}
	}
	for _, b := range t.bridges {
		if err := t.change(t.conn.SetAddElements, b.elements()); err != nil {
			return err
		}
	}
	if err := t.change(t.conn.SetAddElements, byMap(maps.Values(t.ports))); err != nil {
		return err
	}
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", t.name, err)
	}
	return nil
}

func (s setPlan) set(tab *nftables.Table) (*nftables.Set, error) {
	k, err := nftables.ConcatSetType(s.key...)
	if err != nil {
		return nil, err
	}
	set := &nftables.Set{Table: tab, Name: s.name, KeyType: k}
	if s.data != nil {
		if set.DataType, err = nftables.ConcatSetType(s.data...); err != nil {
			return nil, err
		}
		set.IsMap = true
	}
	return set, nil
}

func byMap(ports func(func(Publish) bool)) map[string][]nftables.SetElement {
	m := make(map[string][]nftables.SetElement)
	for p := range ports {
		set, e := p.element()
		m[set] = append(m[set], e)
	}
	return m
}

func (t *Table) change(do func(*nftables.Set, []nftables.SetElement) error, by map[string][]nftables.SetElement) error {
	for set, elements := range by {
		if err := do(t.sets[set], elements); err != nil {
			return err
		}
	}
	return nil
}

// commit sends element changes. When the kernel refuses them, somebody has
// changed the table: it is then made anew from what it should contain.
func (t *Table) commit(do func(*nftables.Set, []nftables.SetElement) error, by map[string][]nftables.SetElement) error {
	if t.sets == nil {
		return t.rebuild()
	}
	if err := t.change(do, by); err != nil {
		return err
	}
	if err := t.conn.Flush(); err != nil {
		if again := t.rebuild(); again != nil {
			return errors.Join(err, again)
		}
	}
	return nil
}

// AddBridge makes a network known.
func (t *Table) AddBridge(b Bridge) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bridges[b.Name] = b
	return t.commit(t.conn.SetAddElements, b.elements())
}

// RemoveBridge undoes AddBridge; it is safe to repeat.
func (t *Table) RemoveBridge(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, ok := t.bridges[name]
	if !ok {
		return nil
	}
	delete(t.bridges, name)
	return t.commit(t.conn.SetDeleteElements, b.elements())
}

// Publish adds ports.
func (t *Table) Publish(ports []Publish) error {
	if len(ports) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range ports {
		t.ports[p.id()] = p
	}
	return t.commit(t.conn.SetAddElements, byMap(values(ports)))
}

// Unpublish removes ports; it is safe to repeat.
func (t *Table) Unpublish(ports []Publish) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var known []Publish
	for _, p := range ports {
		if t.ports[p.id()] == p {
			delete(t.ports, p.id())
			known = append(known, p)
		}
	}
	if len(known) == 0 {
		return nil
	}
	return t.commit(t.conn.SetDeleteElements, byMap(values(known)))
}

func values(ports []Publish) func(func(Publish) bool) {
	return func(yield func(Publish) bool) {
		for _, p := range ports {
			if !yield(p) {
				return
			}
		}
	}
}

// Remove deletes the table; it is safe to repeat.
func (t *Table) Remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sets = nil
	t.conn.AddTable(t.table())
	t.conn.DelTable(t.table())
	if err := t.conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove nftables table %s: %w", t.name, err)
	}
	return nil
}
