package integration

import (
	"fmt"
	"testing"
	"time"
)

// second is a further gateway of the same lab, which has the tables of the first.
func (k *kept) second() *kept {
	k.t.Helper()
	d := *k.dataplane
	net6, net4 := fmt.Sprintf("2001:db8:0:%x::", 0x1000*d.site+0x200), fmt.Sprintf("192.0.%d.200", 2+d.site)
	d.gateway, d.number = k.lab.Node(k.gateway.Name+"2"), d.locator(0xff)
	d.toward = k.lab.Link(k.router, fmt.Sprint("swp", 20*d.site+10), d.gateway, "eth0", net6+"1/64", net4+"/31")
	d.connect(net6, net4)
	d.start()
	mate := &kept{dataplane: &d, plan: k.plan, others: k.others, spills: k.spills, budget: k.budget}
	mate.keep()
	k.t.Cleanup(func() { mate.stop() })
	mate.keeper.Follow()
	mate.copy(k)
	return mate
}

// copy makes the tables those of another gateway.
func (k *kept) copy(from *kept) {
	k.t.Helper()
	c, err := from.keeper.Copy()
	k.must(err)
	k.must(k.keeper.Adopt(c, time.Now()))
}

// shared routes the VIPs to gateways at addresses of both families.
func (k *kept) shared(gateways ...[2]string) {
	k.t.Helper()
	for i, vip := range []string{vipAddress6 + "/128", vipAddress4 + "/32"} {
		args := []string{"route", "replace", vip}
		for _, g := range gateways {
			args = append(args, "nexthop", "via", g[i])
		}
		k.router.Run("ip", args...)
	}
}

// Routers spread flows over two gateways, and move them when one of them dies: what
// both have decided since the flows began is the same.
func TestFlowsMoveBetweenGateways(t *testing.T) {
	t.Parallel()
	k := newKept(t, 3)
	one, two := [2]string{"2001:db8:0:100::2", "192.0.2.1"}, [2]string{"2001:db8:0:200::2", "192.0.2.201"}
	k.begin(rounds(100, 2000))
	k.plan[0].Weight = 3
	k.apply()
	mate := k.second()
	k.shared(one, two)
	k.check("with a second gateway", "")
	k.begin(rounds(100, 2000))
	if a, b := k.counts()["sent"], mate.counts()["sent"]; a == 0 || b == 0 {
		t.Errorf("packets of the gateways: %d and %d", a, b)
	}
	k.plan[1].Weight = 7
	k.apply()
	mate.copy(k)
	k.check("a plan for both", "")
	k.shared(two)
	k.check("all at the second", "")
	k.shared(one)
	k.check("all at the first", "")
	k.check(atTheEnd, "")
	if c := mate.counts(); c["no_backend"]+c["no_neighbour"]+c["malformed"]+c["stray"] != 0 {
		t.Error(c)
	}
}

// The gateway that decides stops in an orderly way, and takes its tables with it. It has
// those of its mate when it starts, so that its flows go on.
func TestDeciderStartsFromItsMate(t *testing.T) {
	t.Parallel()
	k := newKept(t, 3)
	one, two := [2]string{"2001:db8:0:100::2", "192.0.2.1"}, [2]string{"2001:db8:0:200::2", "192.0.2.201"}
	k.begin(rounds(100, 2000))
	k.plan[0].Weight = 5
	k.apply()
	mate := k.second()
	k.shared(two)
	k.stop()
	k.must(k.balancer.Remove())
	k.unload()
	k.check("without the one that decides", "")

	k.load()
	k.begins()
	k.apply()
	if k.keeper.HasTables() {
		t.Error("a gateway that begins has tables")
	}
	k.copy(mate)
	k.apply()
	k.runs()
	k.shared(one)
	k.check("it is back", "")
	k.begin(rounds(100, 2000))
	mate.copy(k)
	k.shared(two)
	k.check(atTheEnd, "")
}
