package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/engine/network/kernel"
)

// insideMark says that this process is already in a namespace of its own.
const insideMark = "CLEAT_NETWORK_TEST_INSIDE"

// TestMain runs the tests in a network and mount namespace of their own, so
// that they see and change nothing of the machine's.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(insideMark) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideMark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The addresses of the wire between this "machine" and another host.
const (
	wireHere, wireThere   = "198.51.100.1", "198.51.100.2"
	wire6Here, wire6There = "fd99::1", "fd99::2"
)

// bus counts events.
type bus struct {
	mu  sync.Mutex
	all []string
}

func (b *bus) Publish(_ events.Type, a events.Action, _ string, attrs map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, string(a)+" "+attrs["name"])
}

// rig is a machine with a manager, wired to another host.
type rig struct {
	t     testing.TB
	cfg   Config
	m     *Manager
	home  *kernel.Namespace
	other *kernel.Fresh
	ctx   context.Context
	bus   *bus
	// opened are the sandboxes to close at the end.
	opened map[string]bool
}

// newRig makes the machine: a fresh namespace for the test process's threads
// would be lost on the scheduler, so the tests share one and must not run at
// the same time.
func newRig(t testing.TB) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this test needs root for network namespaces")
	}
	r := &rig{t: t, ctx: context.Background(), bus: &bus{}, opened: map[string]bool{}}
	dir, err := os.MkdirTemp("", "cln-")
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver "+wireThere+"\nsearch corp.example\n"), 0o644))
	r.cfg = Config{Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"), ResolvConf: filepath.Join(dir, "resolv.conf")}
	r.home, err = kernel.Current()
	check(t, err)
	conn, err := kernel.Dial()
	check(t, err)
	check(t, conn.Do(kernel.LinkUp(1)))
	r.other, err = kernel.NewNamespace(r.home)
	check(t, err)
	check(t, conn.Do(kernel.Veth{Host: "wire0", Peer: "eth0", NS: r.other.FD()}.Request()))
	r.address(conn, "wire0", wireHere+"/24", wire6Here+"/64")
	r.address(r.other.Conn, "eth0", wireThere+"/24", wire6There+"/64")
	check(t, conn.Close())
	r.start()
	t.Cleanup(func() {
		for id := range r.opened {
			check(t, r.m.Close(r.ctx, id))
		}
		for _, n := range r.networks() {
			if !n.predefined() {
				check(t, r.m.Remove(r.ctx, n.ID))
			}
		}
		check(t, r.m.Stop(r.ctx))
		check(t, r.m.Purge(r.ctx))
		conn, err := kernel.Dial()
		check(t, err)
		check(t, conn.Do(kernel.DeleteLink("wire0")))
		check(t, conn.Close())
		check(t, r.other.Close())
		check(t, r.home.Close())
		check(t, os.RemoveAll(dir))
	})
	return r
}

func (r *rig) networks() []*bridgeNetwork {
	r.m.mu.RLock()
	defer r.m.mu.RUnlock()
	var all []*bridgeNetwork
	for _, n := range r.m.networks {
		all = append(all, n)
	}
	return all
}

func (r *rig) address(c *kernel.Conn, link string, prefixes ...string) {
	r.t.Helper()
	l, err := c.LinkByName(link)
	check(r.t, err)
	reqs := []kernel.Request{kernel.LinkUp(l.Index)}
	for _, p := range prefixes {
		reqs = append(reqs, kernel.AddAddress(l.Index, netip.MustParsePrefix(p)))
	}
	check(r.t, c.Do(reqs...))
}

func (r *rig) log() *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// start starts a manager and restores the sandboxes named.
func (r *rig) start(live ...string) {
	r.t.Helper()
	m, err := New(r.cfg, r.log(), r.bus)
	check(r.t, err)
	check(r.t, m.Start(r.ctx))
	check(r.t, m.Restore(r.ctx, live))
	r.m = m
	r.eventually("the spare namespace", func() bool { return len(m.spare.ready) == 1 })
}

// killed leaves the manager as kill -9 would: its descriptors are closed, and
// nothing is tidied up. Its goroutines end with the descriptors.
func (r *rig) killed() {
	r.t.Helper()
	for _, s := range r.m.sandboxes {
		if s.dns != nil {
			check(r.t, s.dns.Close())
		}
		for _, h := range s.holds {
			check(r.t, h.close())
		}
		check(r.t, s.letGo())
	}
	check(r.t, r.m.close())
}

type wants func(*SandboxRequest)

func on(name string, e *network.EndpointSettings) wants {
	return func(r *SandboxRequest) {
		if r.Endpoints == nil {
			r.Endpoints = map[string]*network.EndpointSettings{}
		}
		r.Endpoints[name] = e
	}
}

func publish(port, hostIP, hostPort string) wants {
	return func(r *SandboxRequest) {
		if r.Ports == nil {
			r.Ports = network.PortMap{}
		}
		b := network.PortBinding{HostPort: hostPort}
		if hostIP != "" {
			b.HostIP = netip.MustParseAddr(hostIP)
		}
		p := network.MustParsePort(port)
		r.Ports[p] = append(r.Ports[p], b)
	}
}

func id64(name string) string { return fmt.Sprintf("%x", name) + strings.Repeat("0", 64-2*len(name)) }

// run opens and sets up a sandbox; with no network named it is on "bridge".
func (r *rig) run(name string, opts ...wants) *Sandbox {
	r.t.Helper()
	box, err := r.try(name, opts...)
	check(r.t, err)
	return box
}

func (r *rig) try(name string, opts ...wants) (*Sandbox, error) {
	req := SandboxRequest{ID: id64(name), Name: name, Hostname: name}
	for _, o := range opts {
		o(&req)
	}
	if req.Endpoints == nil {
		on("bridge", nil)(&req)
	}
	if _, err := r.m.Open(r.ctx, req); err != nil {
		return nil, err
	}
	box, err := r.m.Setup(r.ctx, req)
	if err != nil {
		return nil, errors.Join(err, r.m.Close(r.ctx, req.ID))
	}
	r.opened[req.ID] = true
	return box, nil
}

func (r *rig) close(name string) {
	r.t.Helper()
	check(r.t, r.m.Close(r.ctx, id64(name)))
	delete(r.opened, id64(name))
}

func (r *rig) create(name string, opts ...func(*network.CreateRequest)) string {
	r.t.Helper()
	req := network.CreateRequest{Name: name}
	for _, o := range opts {
		o(&req)
	}
	resp, err := r.m.Create(r.ctx, req)
	check(r.t, err)
	return resp.ID
}

func subnet(s ...string) func(*network.CreateRequest) {
	return func(r *network.CreateRequest) {
		r.IPAM = &network.IPAM{}
		for _, p := range s {
			r.IPAM.Config = append(r.IPAM.Config, network.IPAMConfig{Subnet: netip.MustParsePrefix(p)})
		}
	}
}

func v6(r *network.CreateRequest)       { r.EnableIPv6 = new(bool); *r.EnableIPv6 = true }
func internal(r *network.CreateRequest) { r.Internal = true }
func option(k, v string) func(*network.CreateRequest) {
	return func(r *network.CreateRequest) {
		if r.Options == nil {
			r.Options = map[string]string{}
		}
		r.Options[k] = v
	}
}

// in runs f in a namespace: a sandbox's, the other host's (nil box), with
// sockets that f opens staying there.
func (r *rig) in(box *Sandbox, f func() error) error {
	if box == nil {
		return r.other.Do(r.home, f)
	}
	ns, err := kernel.OpenNamespace(box.Path)
	if err != nil {
		return err
	}
	return errors.Join(ns.Do(r.home, f), ns.Close())
}

// serve answers every TCP connection and UDP datagram on the port with the
// word and the client's address, until stop.
func (r *rig) serve(box *Sandbox, port int, word string) (stop func()) {
	r.t.Helper()
	var l net.Listener
	var p net.PacketConn
	check(r.t, r.in(box, func() (err error) {
		if l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		p, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	}))
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s", word, c.RemoteAddr())
			c.Close()
		}
	})
	wg.Go(func() {
		buf := make([]byte, 100)
		for {
			_, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			if _, err := p.WriteTo([]byte(word+" "+from.String()), from); err != nil {
				return
			}
		}
	})
	stop = func() { l.Close(); p.Close(); wg.Wait() }
	r.t.Cleanup(stop)
	return stop
}

// ask connects from a namespace ("here" with box home) and returns what the
// server says, or the error.
func ask(netw, addr string, patience time.Duration) (string, error) {
	c, err := net.DialTimeout(netw, addr, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if strings.HasPrefix(netw, "udp") {
		if _, err := c.Write([]byte("hello")); err != nil {
			return "", err
		}
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		return string(buf[:n]), err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// Long enough for any machine where success is expected; short where nothing
// is to come.
const (
	patient   = 10 * time.Second
	impatient = 300 * time.Millisecond
)

// reach expects word at addr, from inside box.
func (r *rig) reach(from *Sandbox, netw, addr, word string) {
	r.t.Helper()
	var got string
	err := r.in(from, func() (err error) { got, err = ask(netw, addr, patient); return err })
	if err != nil || !strings.HasPrefix(got, word) {
		r.t.Errorf("%s %s: got %q, %v; want %q", netw, addr, got, err, word)
	}
}

// blocked expects no answer.
func (r *rig) blocked(from *Sandbox, netw, addr string) {
	r.t.Helper()
	var got string
	err := r.in(from, func() (err error) { got, err = ask(netw, addr, impatient); return err })
	if err == nil {
		r.t.Errorf("%s %s: got %q, want it blocked", netw, addr, got)
	}
}

// routeFromOther gives the other host a route by way of this one.
func (r *rig) routeFromOther(prefix string) {
	r.t.Helper()
	l, err := r.other.Conn.LinkByName("eth0")
	check(r.t, err)
	check(r.t, r.other.Conn.Do(kernel.AddRoute(l.Index, netip.MustParsePrefix(prefix), netip.MustParseAddr(wireHere))))
}

// serveHere listens on this host.
func (r *rig) serveHere(port int) {
	r.t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	check(r.t, err)
	r.t.Cleanup(func() { l.Close() })
}

// reachHere expects word at addr, from this host itself.
func (r *rig) reachHere(netw, addr, word string) {
	r.t.Helper()
	got, err := ask(netw, addr, patient)
	if err != nil || !strings.HasPrefix(got, word) {
		r.t.Errorf("from here %s %s: got %q, %v; want %q", netw, addr, got, err, word)
	}
}

func ip(box *Sandbox, netw string) string { return box.Endpoints[netw].IPAddress.String() }

// only asserts an error's words.
func fails(t testing.TB, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("got %v, want an error with %q", err, words)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// machine is everything that a leak would show in.
func machine(t testing.TB) []string {
	t.Helper()
	var all []string
	conn, err := kernel.Dial()
	check(t, err)
	links, err := conn.Links()
	check(t, err)
	for _, l := range links {
		all = append(all, "link "+l.Name)
	}
	check(t, conn.Close())
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	check(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "nsfs") {
			all = append(all, "mount "+strings.Fields(line)[4])
		}
	}
	nft, err := nftables.New()
	check(t, err)
	tables, err := nft.ListTables()
	check(t, err)
	for _, tab := range tables {
		all = append(all, "table "+tab.Name)
		sets, err := nft.GetSets(tab)
		check(t, err)
		for _, s := range sets {
			elements, err := nft.GetSetElements(s)
			check(t, err)
			all = append(all, fmt.Sprintf("set %s %d", s.Name, len(elements)))
		}
	}
	// The spare namespace is made in the background.
	fds, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	all = append(all, fmt.Sprintf("fds %d", len(fds)), fmt.Sprintf("goroutines %d", runtime.NumGoroutine()))
	slices.Sort(all)
	return all
}

// settled waits until the machine is as before: the kernel takes namespaces
// down in the background.
func settled(t testing.TB, before []string) {
	t.Helper()
	var now []string
	for range 400 {
		if now = machine(t); slices.Equal(now, before) {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Errorf("left behind:\n%s\nbefore:\n%s", strings.Join(now, "\n"), strings.Join(before, "\n"))
}

// newDummyRoute routes a prefix away from here.
func routeAway(t testing.TB, prefix string) {
	t.Helper()
	conn, err := kernel.Dial()
	check(t, err)
	l, err := conn.LinkByName("wire0")
	check(t, err)
	check(t, conn.Do(kernel.AddRoute(l.Index, netip.MustParsePrefix(prefix), netip.Addr{})))
	check(t, conn.Close())
}

// flushRuleset is `nft flush ruleset`.
func flushRuleset(t testing.TB) {
	t.Helper()
	c, err := nftables.New()
	check(t, err)
	c.FlushRuleset()
	check(t, c.Flush())
}
