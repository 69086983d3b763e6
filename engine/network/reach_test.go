package network

import (
	"testing"

	"github.com/moby/moby/api/types/network"
)

func TestBridge(t *testing.T) {
	r := newRig(t)
	a, b := r.run("a"), r.run("b")
	r.serve(a, 80, "a")
	r.serve(nil, 99, "outside")
	r.reach(b, "tcp", ip(a, "bridge")+":80", "a")
	r.reach(b, "udp", ip(a, "bridge")+":80", "a")
	r.reachHere("tcp", ip(a, "bridge")+":80", "a")
	// Outbound traffic carries this host's address.
	r.reach(b, "tcp", wireThere+":99", "outside "+wireHere)
	// What is not published cannot be reached from other hosts, not even by
	// one that has a route.
	r.routeFromOther(ip(a, "bridge") + "/32")
	r.blocked(nil, "tcp", ip(a, "bridge")+":80")
}

func TestIsolation(t *testing.T) {
	r := newRig(t)
	r.create("one")
	r.create("two")
	r.create("shut", internal)
	r.create("quiet", option(optICC, "false"))
	a, b := r.run("a", on("one", nil)), r.run("b", on("two", nil))
	s, s2 := r.run("s", on("shut", nil)), r.run("s2", on("shut", nil))
	q, q2 := r.run("q", on("quiet", nil)), r.run("q2", on("quiet", nil), publish("80/tcp", "", "8090"))
	r.serve(a, 80, "a")
	r.serve(s2, 80, "s2")
	r.serve(q2, 80, "q2")
	r.serve(nil, 99, "outside")
	r.blocked(b, "tcp", ip(a, "one")+":80")
	r.reach(s, "tcp", ip(s2, "shut")+":80", "s2")
	r.blocked(s, "tcp", wireThere+":99")
	r.blocked(a, "tcp", ip(s2, "shut")+":80")
	r.blocked(q, "tcp", ip(q2, "quiet")+":80")
	r.reach(q, "tcp", wireHere+":8090", "q2")
	r.reach(q, "tcp", wireThere+":99", "outside")
}

func TestIPv6(t *testing.T) {
	r := newRig(t)
	r.create("six", v6)
	r.create("given", subnet("10.70.0.0/24", "fd77::/64"))
	r.create("only", v6, func(c *network.CreateRequest) { c.EnableIPv4 = new(bool) })
	a, b := r.run("a", on("six", nil)), r.run("b", on("six", nil))
	r.serve(a, 80, "a")
	r.serve(nil, 99, "outside")
	r.reach(b, "tcp", "["+a.Endpoints["six"].GlobalIPv6Address.String()+"]:80", "a")
	r.reach(b, "tcp", "["+wire6There+"]:99", "outside")
	r.reachHere("udp", "["+a.Endpoints["six"].GlobalIPv6Address.String()+"]:80", "a")
	g := r.run("g", on("given", nil))
	if got := g.Endpoints["given"].GlobalIPv6Address.String(); got != "fd77::2" {
		t.Errorf("address %s", got)
	}
	o := r.run("o", on("only", nil))
	if e := o.Endpoints["only"]; e.IPAddress.IsValid() || !e.GlobalIPv6Address.IsValid() {
		t.Errorf("an IPv6-only network gave %v and %v", e.IPAddress, e.GlobalIPv6Address)
	}
	r.reach(o, "tcp", "["+wire6There+"]:99", "outside")
}

func TestPublishedPorts(t *testing.T) {
	r := newRig(t)
	r.create("net")
	r.create("six", v6)
	web := r.run("web", publish("80/tcp", "", "8080"), publish("80/udp", "", "8080"), publish("81/tcp", "127.0.0.1", "8081"),
		publish("82/tcp", "", ""), publish("83/tcp", "", "9000-9005"), publish("84/tcp", wireHere, "8084"))
	six := r.run("six", on("six", nil), publish("80/tcp", "", "8086"), publish("80/udp", "", "8086"))
	peer, far := r.run("peer"), r.run("far", on("net", nil))
	for port, word := range map[int]string{80: "web", 81: "local", 82: "random", 83: "range", 84: "given"} {
		r.serve(web, port, word)
	}
	r.serve(six, 80, "six")
	for _, netw := range []string{"tcp", "udp"} {
		r.reachHere(netw, "127.0.0.1:8080", "web")
		r.reachHere(netw, "[::1]:8080", "web")
		r.reachHere(netw, wireHere+":8080", "web")
		r.reach(nil, netw, wireHere+":8080", "web")
		r.reach(nil, netw, "["+wire6Here+"]:8080", "web")
		r.reach(peer, netw, wireHere+":8080", "web")
		r.reach(far, netw, wireHere+":8080", "web")
		r.reach(web, netw, wireHere+":8080", "web")
		for _, host := range []string{"127.0.0.1", "[::1]", wireHere, "[" + wire6Here + "]"} {
			r.reachHere(netw, host+":8086", "six")
		}
		r.reach(nil, netw, "["+wire6Here+"]:8086", "six")
		r.reach(six, netw, "["+wire6Here+"]:8086", "six")
	}
	r.reachHere("tcp", "127.0.0.1:8081", "local")
	r.blocked(nil, "tcp", wireHere+":8081")
	r.routeFromOther("127.0.0.1/32")
	r.blocked(nil, "tcp", "127.0.0.1:8081")
	r.reach(nil, "tcp", wireHere+":"+web.Ports[network.MustParsePort("82/tcp")][0].HostPort, "random")
	r.reach(nil, "tcp", wireHere+":9000", "range")
	r.reach(nil, "tcp", wireHere+":8084", "given")
	r.blocked(nil, "tcp", "127.0.0.1:8084")

	second := r.run("second", publish("83/tcp", "", "9000-9005"))
	if got := second.Ports[network.MustParsePort("83/tcp")][0].HostPort; got != "9001" {
		t.Errorf("the next port of the range is %s", got)
	}
	_, err := r.try("third", publish("80/tcp", "", "8080"))
	fails(t, err, "Bind for 0.0.0.0:8080 failed: port is already allocated")
	r.serveHere(7001)
	_, err = r.try("fourth", publish("80/tcp", "", "7001"))
	fails(t, err, "address already in use")
	_, err = r.try("fifth", publish("80/tcp", "", "7002"), publish("81/tcp", "", "7002"))
	fails(t, err, "port is already allocated")
	r.close("web")
	again := r.run("again", publish("80/tcp", "", "8080"))
	r.serve(again, 80, "again")
	r.reach(nil, "tcp", wireHere+":8080", "again")
	r.reachHere("tcp", "[::1]:8080", "again")
}

func TestConnect(t *testing.T) {
	r := newRig(t)
	r.create("one", subnet("10.61.0.0/24"))
	r.create("two", subnet("10.62.0.0/24"))
	a := r.run("a", on("one", nil), publish("80/tcp", "", "8080"))
	b := r.run("b", on("two", nil))
	r.serve(a, 80, "a")
	r.serve(nil, 99, "outside")
	r.blocked(b, "tcp", ip(a, "one")+":80")
	a2, err := r.m.Connect(r.ctx, a.ID, "two", &network.EndpointSettings{Aliases: []string{"www"}, GwPriority: 5})
	check(t, err)
	r.reach(b, "tcp", ip(a2, "two")+":80", "a")
	r.reach(a, "tcp", wireThere+":99", "outside")
	_, err = r.m.Connect(r.ctx, a.ID, "two", nil)
	fails(t, err, "already exists in network two")
	r.reach(nil, "tcp", wireHere+":8080", "a")
	_, err = r.m.Disconnect(r.ctx, a.ID, "one", false)
	check(t, err)
	r.reach(a, "tcp", wireThere+":99", "outside")
	r.reach(nil, "tcp", wireHere+":8080", "a")
	_, err = r.m.Disconnect(r.ctx, a.ID, "one", false)
	fails(t, err, "is not connected to")
	if _, err = r.m.Disconnect(r.ctx, a.ID, "one", true); err != nil {
		t.Error(err)
	}
}
