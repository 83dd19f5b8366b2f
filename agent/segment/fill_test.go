package segment

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestBadDomain(t *testing.T) {
	t.Parallel()
	p := netip.MustParsePrefix
	for name, bad := range map[string]Domain{
		"no locator":               {Block: block},
		"a locator of /48":         {p("2001:db8:5200::/48"), block},
		"a locator of IPv4":        {p("192.0.2.0/24"), block},
		"no block":                 {Locator: locator},
		"all addresses as a block": {locator, p("::/0")},
		"a block of /72":           {locator, p("2001:db8:5200:1::/72")},
		"a block of IPv4":          {locator, p("192.0.0.0/8")},
		"a block of others":        {locator, p("2001:db8:5300::/40")},
		"locator 0":                {p("::/64"), p("::/40")},
	} {
		if _, err := bad.entry(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestBadTarget(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]struct {
		number uint16
		change func(*Target)
	}{
		"target 1024: the last is 1023":           {1024, func(*Target) {}},
		"level 0":                                 {Host, func(t *Target) { t.Level = 0 }},
		"level 4":                                 {1, func(t *Target) { t.Level = 4 }},
		"namespace id -1":                         {1, func(t *Target) { t.NetNS = -1 }},
		"interface 0":                             {1, func(t *Target) { t.Interface = 0 }},
		`source address ""`:                       {1, func(t *Target) { t.Source = nil }},
		`source address "00:00:00:00:00:00"`:      {1, func(t *Target) { t.Source = make(net.HardwareAddr, 6) }},
		`destination address "01:00:5e:00:00:01"`: {1, func(t *Target) { t.MAC = net.HardwareAddr{1, 0, 0x5e, 0, 0, 1} }},
	} {
		bad := inContainer
		c.change(&bad)
		if _, err := bad.entry(c.number); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestSpecIsWhatGoTakesItFor(t *testing.T) {
	t.Parallel()
	spec, err := loadEndpoint()
	if err != nil {
		t.Fatal(err)
	}
	if n := spec.Maps[endpointMapTargets].MaxEntries; n != MaxTargets {
		t.Errorf("%d targets, want %d", n, MaxTargets)
	}
	texts := map[string]bool{}
	for r := range reasons {
		if texts[r.String()] || r.String() == "" {
			t.Errorf("reason %d is %q", uint32(r), r)
		}
		texts[r.String()] = true
	}
}

// What was set and taken back leaves nothing; what is wrong changes nothing.
func TestFill(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	f := flowTo(true, 4000, portMPTCP)
	syn := sent(to(sid(locator, hunt, Host))).wrap(f.segment(syn, 1, 0))
	final := sent(to(sid(locator, final, container))).wrap(f.segment(ack, 1, 1))
	for _, bad := range []netip.Addr{{}, netip.MustParseAddr("::1"), netip.MustParseAddr("ff02::1"), netip.MustParseAddr("fe80::1%lo"), netip.IPv4Unspecified()} {
		if err := h.e.SetVIPs(Host, []netip.Addr{bad}); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
	if err := h.e.SetLevel(9, Normal); err == nil {
		t.Error("the level of a target that is not there is set")
	}
	h.expect(syn, pass, TakenSYN)
	h.setVIPs(Host, netip.AddrFrom16(vip4.As16()))
	h.expect(syn, drop, DroppedVIP)
	h.setVIPs(Host, vip4, vip6)
	h.expect(syn, pass, TakenSYN)
	h.expect(final, redirect, TakenFinal) // of another target
	if err := h.e.RemoveTarget(container); err != nil {
		t.Fatal(err)
	}
	delete(h.world.targets, container)
	h.expect(final, drop, DroppedTarget)
	if err := h.e.SetTarget(container, inContainer); err != nil {
		t.Fatal(err)
	}
	h.world.targets[container], h.world.vips[container] = inContainer, nil
	h.expect(final, drop, DroppedVIP)
}

func (h *host) setVIPs(number uint16, vips ...netip.Addr) {
	h.tb.Helper()
	if err := h.e.SetVIPs(number, vips); err != nil {
		h.tb.Fatal(err)
	}
	h.world.vips[number] = nil
	for _, a := range vips {
		h.world.vips[number] = append(h.world.vips[number], a.Unmap())
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.run(sent().wrap(flowTo(true, 4000, portMPTCP).segment(syn, 1, 0)))
	h.run(sent(to(sid(locator, hunt, container))).wrap(flowTo(true, 4000, portMPTCP).segment(syn, 1, 0)))
	var packets strings.Builder
	packets.WriteString("# HELP razor_agent_segment_packets_total Packets with a SID of this host, by what became of them.\n# TYPE razor_agent_segment_packets_total counter\n")
	for r := range eventLost {
		n := "0"
		if r == TakenSYN || r == Bounced {
			n = "1"
		}
		packets.WriteString(`razor_agent_segment_packets_total{reason="` + r.String() + `"} ` + n + "\n")
	}
	want := packets.String() + `# HELP razor_agent_segment_events_lost_total Flows found elsewhere than expected that nobody was told of.
# TYPE razor_agent_segment_events_lost_total counter
razor_agent_segment_events_lost_total 0
# HELP razor_agent_segment_target_packets_total Packets of each target that were not dropped; 0 is the host.
# TYPE razor_agent_segment_target_packets_total counter
razor_agent_segment_target_packets_total{result="bounced",target="0"} 0
razor_agent_segment_target_packets_total{result="bounced",target="1"} 1
razor_agent_segment_target_packets_total{result="handed_on",target="0"} 0
razor_agent_segment_target_packets_total{result="handed_on",target="1"} 0
razor_agent_segment_target_packets_total{result="taken",target="0"} 1
razor_agent_segment_target_packets_total{result="taken",target="1"} 0
`
	if err := testutil.CollectAndCompare(h.e, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
