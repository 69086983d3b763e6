package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/engine/network/kernel"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// The daemon is killed and comes back: ports, names, addresses and interfaces
// of the living are as before, and nothing is left of the dead.
func TestRestore(t *testing.T) {
	r := newRig(t)
	before := machine(t)
	r.create("net", subnet("10.63.0.0/24"))
	web := r.run("web", on("net", nil), publish("80/tcp", "", "8080"), publish("80/udp", "", "8080"))
	peer := r.run("peer", on("net", nil))
	r.run("dead", on("net", nil), publish("80/tcp", "", "8081"))
	half := SandboxRequest{ID: id64("half"), Name: "half"}
	_, err := r.m.Open(r.ctx, half)
	check(t, err)
	stop := r.serve(web, 80, "web")
	r.killed()

	r.reach(nil, "tcp", wireHere+":8080", "web") // the rules need no daemon
	r.reachHere("tcp", "127.0.0.1:8080", "web")

	r.start(web.ID, peer.ID)
	delete(r.opened, id64("dead"))
	for _, netw := range []string{"tcp", "udp"} {
		for _, host := range []string{wireHere, "[" + wire6Here + "]"} {
			r.reach(nil, netw, host+":8080", "web")
		}
		r.reachHere(netw, "[::1]:8080", "web")
	}
	if got := r.lookup(peer, "web"); got != ip(web, "net") {
		t.Errorf("web resolves to %q", got)
	}
	_, err = r.try("thief", publish("80/tcp", "", "8080"))
	fails(t, err, "port is already allocated")
	_, err = r.try("thief", on("net", &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: web.Endpoints["net"].IPAddress}}))
	fails(t, err, "Address already in use")
	n := r.run("new", on("net", nil), publish("80/tcp", "", "8081"))
	if a := ip(n, "net"); a == ip(web, "net") || a == ip(peer, "net") {
		t.Errorf("the address %s was given twice", a)
	}
	stop() // its sockets keep the namespace
	for _, name := range []string{"web", "peer", "new"} {
		r.close(name)
	}
	check(t, r.m.Remove(r.ctx, "net"))
	settled(t, before)
}

// A crash can come between any two steps; what each leaves is imitated here.
func TestCrashLeavesNothing(t *testing.T) {
	r := newRig(t)
	before := machine(t)
	dir := r.cfg.Run
	check(t, os.WriteFile(dir+"/"+id64("file"), nil, 0o600))         // before the mount
	check(t, os.WriteFile(dir+"/"+id64("torn")+".json", nil, 0o600)) // a state that says nothing
	check(t, os.WriteFile(dir+"/.x.json.cleat-tmp-1", nil, 0o600))   // while writing
	_, err := r.m.Open(r.ctx, SandboxRequest{ID: id64("opened")})    // before Setup
	check(t, err)
	s, err := r.m.sandbox(id64("opened"))
	check(t, err)
	check(t, r.m.join(s, "bridge", nil)) // in the middle of Setup
	r.killed()
	r.start()
	entries, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range entries {
		t.Errorf("left: %s", e.Name())
	}
	settled(t, before)
}

func TestLeak(t *testing.T) {
	r := newRig(t)
	r.create("user", v6)
	before := machine(t)
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() {
			name := fmt.Sprintf("c%d", i)
			req := SandboxRequest{ID: id64(name), Name: name, Hostname: name}
			on([]string{"bridge", "user"}[i%2], nil)(&req)
			publish("80/tcp", "", "")(&req)
			publish("80/udp", "", "")(&req)
			_, err := r.m.Open(r.ctx, req)
			if err == nil {
				_, err = r.m.Setup(r.ctx, req)
			}
			errs[i] = errors.Join(err, r.m.Close(r.ctx, req.ID), r.m.Close(r.ctx, req.ID))
		})
	}
	wg.Wait()
	check(t, errors.Join(errs...))
	settled(t, before)
}

// ourRules are the packet rules among what machine sees: descriptors and
// goroutines of other work come and go.
func ourRules(t *testing.T) []string {
	return slices.DeleteFunc(machine(t), func(s string) bool {
		return s == "table theirs" || !strings.HasPrefix(s, "table ") && !strings.HasPrefix(s, "set ")
	})
}

// Firewalls flush everything when they are reloaded.
func TestFlushedRulesComeBack(t *testing.T) {
	r := newRig(t)
	web := r.run("web", publish("80/tcp", "", "8080"))
	r.serve(web, 80, "web")
	c, err := nftables.New()
	check(t, err)
	theirs := &nftables.Table{Name: "theirs", Family: nftables.TableFamilyINet}
	c.AddTable(theirs)
	check(t, c.Flush())
	for _, spoil := range []func(){
		func() { flushRuleset(t) },
		func() { c.DelTable(r.table()); check(t, c.Flush()) },
		func() { c.FlushTable(r.table()); check(t, c.Flush()) },
		func() {
			set, err := c.GetSetByName(r.table(), "dnat4_any")
			check(t, err)
			c.FlushSet(set)
			check(t, c.Flush())
		},
	} {
		want := ourRules(t)
		spoil()
		r.eventually("the rules to come back", func() bool { return slices.Equal(ourRules(t), want) })
		r.reach(nil, "tcp", wireHere+":8080", "web")
		c.AddTable(theirs)
		check(t, c.Flush())
	}
	if !slices.Contains(machine(t), "table theirs") {
		t.Error("a table of others is gone")
	}
	c.DelTable(theirs)
	check(t, c.Flush())
}

func (r *rig) table() *nftables.Table {
	return &nftables.Table{Name: r.m.cfg.Table, Family: nftables.TableFamilyINet}
}

func (r *rig) eventually(what string, f func() bool) {
	r.t.Helper()
	for range 400 {
		if f() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	r.t.Errorf("waited in vain for %s", what)
}

func static(a string) *network.EndpointSettings {
	c := &network.EndpointIPAMConfig{}
	if addr := netip.MustParseAddr(a); addr.Is4() {
		c.IPv4Address = addr
	} else {
		c.IPv6Address = addr
	}
	return &network.EndpointSettings{IPAMConfig: c}
}

func TestStaticAddresses(t *testing.T) {
	r := newRig(t)
	r.create("net", subnet("10.64.0.0/29"))
	r.create("auto")
	a := r.run("a", on("net", static("10.64.0.5")))
	if a.Endpoints["net"].MacAddress.String() != "02:42:0a:40:00:05" {
		t.Errorf("MAC %s", a.Endpoints["net"].MacAddress)
	}
	b := r.run("b", on("net", nil))
	_, err := r.try("c", on("net", static("10.64.0.5")))
	fails(t, err, "Address already in use")
	_, err = r.try("c", on("net", static("10.65.0.5")))
	fails(t, err, "no configured subnet contains IP address 10.65.0.5")
	_, err = r.try("c", on("auto", static("172.18.0.9")))
	fails(t, err, "user specified IP address is supported only when connecting to networks with user configured subnets")
	_, err = r.try("c", on("net", static("10.64.0.1")))
	fails(t, err, "Address already in use")
	// A container that starts again has its address at once, whatever the
	// kernel has still to take down, and neighbours find it.
	for i := range 5 {
		word := fmt.Sprintf("life%d", i)
		r.serve(a, 80, word)
		r.reach(b, "tcp", "10.64.0.5:80", word)
		r.close("a")
		a = r.run("a", on("net", static("10.64.0.5")))
	}
	// The small subnet can be used up, and again.
	for range 3 {
		for i := range 3 {
			r.run(fmt.Sprintf("x%d", i), on("net", nil))
		}
		_, err := r.try("y", on("net", nil))
		fails(t, err, "no available IPv4 addresses")
		for i := range 3 {
			r.close(fmt.Sprintf("x%d", i))
		}
	}
}

func TestNetworkVerbs(t *testing.T) {
	r := newRig(t)
	id := r.create("net", subnet("10.66.0.0/24"), func(c *network.CreateRequest) { c.Labels = map[string]string{"k": "v"} })
	_, err := r.m.Create(r.ctx, network.CreateRequest{Name: "net"})
	fails(t, err, "network with name net already exists")
	if errdefs.HTTPStatus(err) != 409 {
		t.Errorf("status %d", errdefs.HTTPStatus(err))
	}
	for name, c := range map[string]struct {
		req    network.CreateRequest
		words  string
		status int
	}{
		"overlap":    {network.CreateRequest{Name: "x", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.66.0.128/25")}}}}, "Pool overlaps with other one on this address space", 403},
		"predefined": {network.CreateRequest{Name: "bridge"}, "operation is not permitted on predefined bridge network", 403},
		"driver":     {network.CreateRequest{Name: "x", Driver: "overlay"}, "plugin", 404},
		"name":       {network.CreateRequest{Name: "a b"}, "invalid network name", 400},
		"empty":      {network.CreateRequest{}, "invalid network name", 400},
		"gateway":    {network.CreateRequest{Name: "x", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.67.0.0/24"), Gateway: netip.MustParseAddr("10.1.1.1")}}}}, "gateway", 400},
		"mtu":        {network.CreateRequest{Name: "x", Options: map[string]string{optMTU: "big"}}, "mtu", 400},
	} {
		_, err := r.m.Create(r.ctx, c.req)
		fails(t, err, c.words)
		if errdefs.HTTPStatus(err) != c.status {
			t.Errorf("%s: status %d for %v", name, errdefs.HTTPStatus(err), err)
		}
	}
	_, err = r.m.Inspect(r.ctx, "nothing")
	fails(t, err, "network nothing not found")
	r.run("c", on("net", nil))
	err = r.m.Remove(r.ctx, id[:8])
	fails(t, err, `network net has active endpoints (name:"c" id:"`)
	fails(t, r.m.Remove(r.ctx, "bridge"), "bridge is a pre-defined network and cannot be removed")
	i, err := r.m.Inspect(r.ctx, id[:8])
	check(t, err)
	if len(i.Containers) != 1 || i.IPAM.Config[0].Gateway.String() != "10.66.0.1" {
		t.Errorf("inspect: %+v", i)
	}
	r.create("idle")
	for _, c := range []struct{ key, value, want string }{
		{"driver", "bridge", "bridge idle net"}, {"name", "net", "net"}, {"label", "k=v", "net"}, {"type", "builtin", "bridge host none"},
		{"id", id[:6], "net"}, {"dangling", "true", "idle"}, {"scope", "swarm", ""},
	} {
		all, err := r.m.List(r.ctx, filter.Args{c.key: {c.value}})
		check(t, err)
		var names []string
		for _, n := range all {
			names = append(names, n.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s=%s: %q, want %q", c.key, c.value, got, c.want)
		}
	}
	if rep, err := r.m.Prune(r.ctx, filter.Args{"until": {"1h"}}); err != nil || len(rep.NetworksDeleted) != 0 {
		t.Errorf("prune of old networks: %v, %v", rep, err)
	}
	if rep, err := r.m.Prune(r.ctx, nil); err != nil || !slices.Equal(rep.NetworksDeleted, []string{"idle"}) {
		t.Errorf("prune: %v, %v", rep, err)
	}
	r.close("c")
	check(t, r.m.Remove(r.ctx, "net"))
	if !slices.Contains(r.bus.all, "destroy net") || !slices.Contains(r.bus.all, "connect net") || !slices.Contains(r.bus.all, "disconnect net") {
		t.Errorf("events: %v", r.bus.all)
	}
}

// Networks survive the daemon, and do not take what the host's routes need.
func TestNetworksPersist(t *testing.T) {
	r := newRig(t)
	routeAway(t, "172.18.0.0/16")
	id := r.create("auto")
	i, err := r.m.Inspect(r.ctx, "auto")
	check(t, err)
	if s := i.IPAM.Config[0].Subnet.String(); s != "172.19.0.0/24" {
		t.Errorf("subnet %s", s)
	}
	check(t, r.m.Stop(r.ctx))
	conn, err := kernel.Dial()
	check(t, err)
	for _, n := range r.networks() {
		if n.isBridge() {
			check(t, conn.Do(kernel.DeleteLink(n.Link))) // as after a reboot
		}
	}
	check(t, conn.Close())
	r.start()
	again, err := r.m.Inspect(r.ctx, "auto")
	check(t, err)
	if again.ID != id || again.IPAM.Config[0].Subnet != i.IPAM.Config[0].Subnet {
		t.Errorf("after a restart: %+v", again)
	}
	a, b := r.run("a", on("auto", nil)), r.run("b", on("auto", nil))
	r.serve(a, 80, "a")
	r.reach(b, "tcp", ip(a, "auto")+":80", "a")
}

// A bridge that somebody removed is made again when it is needed.
func TestBridgeRemovedByOthers(t *testing.T) {
	r := newRig(t)
	conn, err := kernel.Dial()
	check(t, err)
	check(t, conn.Do(kernel.DeleteLink(r.cfgBridge())))
	check(t, conn.Close())
	a, b := r.run("a", publish("80/tcp", "", "8080")), r.run("b")
	r.serve(a, 80, "a")
	r.reach(b, "tcp", ip(a, "bridge")+":80", "a")
	r.reach(nil, "tcp", wireHere+":8080", "a")
	r.reachHere("tcp", "127.0.0.1:8080", "a")
}

func (r *rig) cfgBridge() string { return r.m.cfg.Bridge }

func TestMacvlan(t *testing.T) {
	r := newRig(t)
	_, err := r.m.Create(r.ctx, network.CreateRequest{Name: "x", Driver: "macvlan", Options: map[string]string{"parent": "wire0", "macvlan_mode": "wild"}})
	fails(t, err, "requested macvlan mode 'wild' is not valid")
	r.create("lan", subnet("198.51.100.0/24"), option("parent", "wire0"), func(c *network.CreateRequest) {
		c.Driver = "macvlan"
		c.IPAM.Config[0].Gateway = netip.MustParseAddr(wireThere)
	})
	r.serve(nil, 99, "outside")
	for range 2 { // the second has the same addresses
		a := r.run("a", on("lan", static("198.51.100.50")))
		b := r.run("b", on("lan", nil))
		r.serve(a, 80, "a")
		r.reach(b, "tcp", "198.51.100.50:80", "a")
		r.reach(nil, "tcp", "198.51.100.50:80", "a")
		r.reach(a, "tcp", wireThere+":99", "outside 198.51.100.50")
		r.close("a")
		r.close("b")
	}
}

func TestAdopt(t *testing.T) {
	r := newRig(t)
	ns, err := kernel.NewNamespace(r.home)
	check(t, err)
	a := r.run("a", func(q *SandboxRequest) { q.Adopt = fmt.Sprintf("/proc/self/fd/%d", ns.FD()) }, publish("80/tcp", "", "8080"))
	r.serve(a, 80, "a")
	r.reach(nil, "tcp", wireHere+":8080", "a")
	r.close("a")
	links, err := ns.Conn.Links()
	check(t, err)
	if len(links) != 1 {
		t.Errorf("left in an adopted namespace: %v", links)
	}
	check(t, ns.Close())
}

func TestSysctlsAndNone(t *testing.T) {
	r := newRig(t)
	a := r.run("a", func(q *SandboxRequest) { q.Sysctls = map[string]string{"net.ipv4.ip_default_ttl": "77"} })
	var got string
	check(t, r.in(a, func() (err error) { got, err = kernel.ReadSysctl("ipv4/ip_default_ttl"); return err }))
	if got != "77" {
		t.Errorf("sysctl %q", got)
	}
	for _, name := range []string{"kernel.x", "net.ipv4.nothing", "net./../../kernel/core_pattern"} {
		_, err := r.try("b", func(q *SandboxRequest) { q.Sysctls = map[string]string{name: "1"} })
		if err == nil {
			t.Errorf("sysctl %s was accepted", name)
		}
	}
	n := r.run("n", on("none", nil))
	check(t, r.in(n, func() error {
		c, err := kernel.Dial()
		if err != nil {
			return err
		}
		links, err := c.Links()
		if len(links) != 1 || !links[0].Up {
			t.Errorf("links of a container on none: %+v", links)
		}
		return errors.Join(err, c.Close())
	}))
}

func TestMacvlanOnVLAN(t *testing.T) {
	r := newRig(t)
	req := network.CreateRequest{Name: "vlan", Driver: "macvlan", Options: map[string]string{"parent": "wire0.50"}}
	_, err := r.m.Create(r.ctx, req)
	if err != nil && strings.Contains(err.Error(), "not supported") {
		t.Skip(err)
	}
	check(t, err)
	if !slices.Contains(machine(t), "link wire0.50") {
		t.Error("no interface wire0.50")
	}
	check(t, r.m.Remove(r.ctx, "vlan"))
	if slices.Contains(machine(t), "link wire0.50") {
		t.Error("wire0.50 is still there")
	}
	req.Options["parent"] = "nothing0"
	_, err = r.m.Create(r.ctx, req)
	fails(t, err, "nothing0")
}

func TestEndpointOptions(t *testing.T) {
	r := newRig(t)
	r.create("net", option(optMTU, "1300"))
	mac := network.HardwareAddr{0x02, 1, 2, 3, 4, 5}
	a := r.run("a", on("net", &network.EndpointSettings{MacAddress: mac, DriverOpts: map[string]string{
		optIfname: "lan0", optSysctls: "net.ipv4.conf.IFNAME.log_martians=1",
	}}))
	check(t, r.in(a, func() error {
		c, err := kernel.Dial()
		if err != nil {
			return err
		}
		l, err := c.LinkByName("lan0")
		if l.MTU != 1300 || l.MAC.String() != mac.String() {
			t.Errorf("interface %+v", l)
		}
		v, rerr := kernel.ReadSysctl("ipv4/conf/lan0/log_martians")
		six, serr := kernel.ReadSysctl("ipv6/conf/lan0/disable_ipv6")
		if v != "1" || six != "1" {
			t.Errorf("log_martians %q, disable_ipv6 %q", v, six)
		}
		return errors.Join(err, rerr, serr, c.Close())
	}))
	_, err := r.try("b", on("net", &network.EndpointSettings{DriverOpts: map[string]string{optIfname: "a/b"}}))
	fails(t, err, "invalid interface name")
}
