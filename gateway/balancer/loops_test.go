package balancer

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/steering"
)

// A place is a backend of a site; 0 is none.
type place struct{ site, backend int }

// slotState is what a site's gateway knows of the flow's slot: backends 1 and 2 of the
// site, 0 is none.
type slotState struct {
	current, previous, second, former int
	spill                             int // the site that new flows go to, -1 for none
}

// sites is a world of sites with a gateway and two backends each, and one flow.
type sites struct {
	gateways []*model
	states   []slotState
	owner    place
	pin      place // at the gateway of arrival; {} for none
	cut      int   // the site whose entries nobody reaches, and who reaches none; -1
	busy     bool  // backends at level 2 let SYNs go on
	slot     uint32
}

// How a backend took a packet.
const (
	bySocket = iota + 1
	byListener
	byFinal
)

// journey is what became of a packet.
type journey struct {
	end     place
	how     int
	reasons []string // of the last gateway, where it was dropped
	path    []string
	visits  []int // of each gateway
}

func siteLocator(site, host int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("2001:db8:5e:%x%03x::/64", site+1, host))
}

// Indices in each gateway: its backends have 1 and 2, entries of other sites and backends
// of other sites that pins name those behind.
func entryIndex(site int) int { return 20 + site }

func (p place) indexAt(site int) uint32 {
	if p.site == site {
		return uint32(p.backend)
	}
	return uint32(30 + 10*p.site + p.backend)
}

// newSites is a world of n sites without states.
func newSites(n int) *sites {
	w := &sites{states: make([]slotState, n), cut: -1}
	for i := range n {
		m := &model{
			host: Host{Locator: siteLocator(i, 0xfff), Block: netip.MustParsePrefix("2001:db8:5e::/48")}, ingress: 1,
			vips: map[VIP]Assignment{
				{netip.MustParsePrefix(vip6 + "/128"), 443, unix.IPPROTO_TCP}: {},
			},
			services: []Service{{Key: [2]uint64{5, 7}}},
			backends: map[uint32]Backend{}, rows: map[[2]uint32]uint32{}, former: map[[2]uint32]uint64{}, pins: map[Flow]*bpfPin{},
		}
		hop := Hop{Index: 1, MTU: 9000}
		for site := range n {
			for backend := 1; backend <= 2; backend++ {
				m.backends[place{site, backend}.indexAt(i)] = Backend{SID: Hunt(siteLocator(site, backend), 0), Hop: hop, Found: true}
			}
			if site != i {
				m.backends[uint32(entryIndex(site))] = Backend{SID: Entry(siteLocator(site, 0xfff)), Hop: hop}
				m.sites = append(m.sites, []int{entryIndex(site)})
			}
		}
		w.gateways = append(w.gateways, m)
	}
	w.slot = steering.FlowSlot(w.gateways[0].hash(0, netip.MustParseAddr(client6), 31000, 443, unix.IPPROTO_TCP))
	return w
}

// number is the number that a site has at the gateway of another one.
func number(site, at int) int {
	if site > at {
		return site - 1
	}
	return site
}

// set gives the gateways their states, and that of arrival the pin.
func (w *sites) set(landing int) {
	for i, m := range w.gateways {
		s := w.states[i]
		row := uint32(s.current) | uint32(s.previous)<<15
		clear(m.pins)
		if i == landing && w.pin != (place{}) {
			row |= rowMark
			f := Flow{Client: netip.AddrPortFrom(netip.MustParseAddr(client6), 31000), VIP: netip.AddrPortFrom(netip.MustParseAddr(vip6), 443), Protocol: unix.IPPROTO_TCP}
			m.pins[f] = &bpfPin{Backend: w.pin.indexAt(i), Slot: w.slot, Used: uptime()}
		}
		m.rows[[2]uint32{0, w.slot}] = row
		m.rows[[2]uint32{0, (w.slot + 1) % Slots}] = uint32(s.second)
		m.former[[2]uint32{0, w.slot}] = uint64(s.former)
		for site := range w.gateways {
			if site != i && (site == w.cut || i == w.cut) {
				m.sites[number(site, i)] = nil
			} else if site != i {
				m.sites[number(site, i)] = []int{entryIndex(site)}
			}
		}
		m.services[0].Spills = nil
		if s.spill >= 0 {
			m.services[0].Spills = []Spill{{Site: number(s.spill, i), Slots: Slots}}
		}
	}
}

// who is the host of an address: a gateway, or a backend.
func (w *sites) who(a netip.Addr) (p place, gateway bool) {
	b := a.As16()
	at := binary.BigEndian.Uint16(b[6:])
	p = place{int(at>>12) - 1, int(at & 0xfff)}
	return p, p.backend == 0xfff
}

// send follows a packet from a client that comes in at a site.
func (w *sites) send(landing int, packet []byte) (j journey) {
	w.set(landing)
	j.visits = make([]int, len(w.gateways))
	frame, at := ethernet(0, packet), place{landing, 0xfff}
	for range 200 {
		j.path = append(j.path, fmt.Sprint(at))
		if at.backend != 0xfff {
			if j.how = w.take(at, frame); j.how != 0 {
				j.end = at
				return j
			}
		} else {
			j.visits[at.site]++
			v := w.gateways[at.site].run(frame)
			if v.action != xdpTX && v.action != xdpRedirect {
				j.reasons = v.reasons
				return j
			}
			frame = v.frame
		}
		to, _ := netip.AddrFromSlice(frame[38:54])
		at, _ = w.who(to)
	}
	j.reasons = []string{"endless"}
	return j
}

// take is the agent of a backend: it takes a packet, or changes the frame for the next
// one that is asked.
func (w *sites) take(at place, frame []byte) (how int) {
	ip, list := frame[14:], []byte(nil)
	if ip[6] == unix.IPPROTO_ROUTING {
		list = ip[40:]
	}
	inner := ip[40:]
	if list != nil {
		inner = list[8+8*int(list[1]):]
	}
	if binary.BigEndian.Uint16(ip[32:]) == behaviourFinal {
		return byFinal
	}
	isSYN := inner[6] == unix.IPPROTO_TCP && inner[40+13]&syn != 0
	last := list == nil || list[3] == 0
	switch {
	case isSYN && (!w.busy || last):
		return byListener
	case !isSYN && at == w.owner:
		return bySocket
	case last: // a miss
		was := netip.AddrFrom16([16]byte(ip[24:40]))
		copy(ip[24:40], ip[8:24])
		binary.BigEndian.PutUint16(ip[32:], behaviourMiss)
		copy(ip[8:24], was.AsSlice())
	default:
		list[3]--
		copy(ip[24:40], list[8+16*int(list[3]):])
	}
	ip[7]--
	return 0
}

// knows tells whether a site's gateway would ask a backend of its own for the flow.
func (s slotState) knows(backend int) bool {
	return slices.Contains([]int{s.current, s.previous, s.second, s.former}, backend)
}

// judge holds a journey to what must be so in any state.
func (w *sites) judge(t *testing.T, kind string, landing int, j journey) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s at site %d, %+v, owner %v, pin %v, busy %v: %s\n%v, %d, %v, %v", kind, landing, w.states, w.owner, w.pin, w.busy, fmt.Sprintf(format, args...), j.end, j.how, j.reasons, j.path)
	}
	here, others := w.states[landing], len(w.gateways)-1
	if n := j.visits[landing]; n > 3+others {
		fail("%d visits of the gateway of arrival", n)
	}
	visited := 0
	for i, n := range j.visits {
		if i != landing && n > 2 {
			fail("%d visits of the gateway of site %d", n, i)
		}
		if i != landing && n > 0 {
			visited++
		}
	}
	if j.how == 0 && !slices.Contains([]string{"no_backend", "stray"}, j.reasons[len(j.reasons)-1]) {
		fail("dropped")
	}
	if j.how == byFinal && j.end.site != landing {
		fail("another site was to answer")
	}
	switch kind {
	case "SYN":
		failover := here.spill >= 0 && here.current == 0 && here.second == 0
		if visited > 1 && !failover || visited == 1 && here.spill < 0 {
			fail("a new flow at %d other sites", visited)
		}
	case "RST":
		if visited > 1 || visited == 1 && here.spill < 0 {
			fail("a RST at %d other sites", visited)
		}
		if w.owner.site == landing && here.knows(w.owner.backend) && w.owner != (place{}) && j.end != w.owner {
			fail("not found")
		}
	default:
		if w.owner.site != landing && (w.owner.site == w.cut || landing == w.cut) {
			break
		}
		if w.owner != (place{}) && w.states[w.owner.site].knows(w.owner.backend) && (j.how != bySocket || j.end != w.owner) {
			fail("not found")
		}
	}
}

// packetsOfFlow are what a client, or a router on the way to it, may send.
func packetsOfFlow() map[string][]byte {
	quoted := ip(vip6, client6, unix.IPPROTO_TCP, tcp(443, 31000, ack, 0))
	return map[string][]byte{
		"SYN":   ip(client6, vip6, unix.IPPROTO_TCP, tcp(31000, 443, syn, 0)),
		"ACK":   ip(client6, vip6, unix.IPPROTO_TCP, tcp(31000, 443, ack, 10)),
		"RST":   ip(client6, vip6, unix.IPPROTO_TCP, tcp(31000, 443, rst, 0)),
		"error": ip("2001:db8:7::1", vip6, unix.IPPROTO_ICMPV6, icmp("2001:db8:7::1", vip6, 2, 0, 1400, quoted)),
	}
}

// slotStates are all states of a slot, whose backends are among the first few.
func slotStates(backends int, spills []int) (out []slotState) {
	for current := range backends + 1 {
		for previous := range backends + 1 {
			for second := range backends + 1 {
				for former := range backends + 1 {
					for _, spill := range spills {
						out = append(out, slotState{current, previous, second, former, spill})
					}
				}
			}
		}
	}
	return out
}

// places are nobody, and all backends of all sites.
func (w *sites) places() []place {
	out := []place{{}}
	for site := range w.gateways {
		out = append(out, place{site, 1}, place{site, 2})
	}
	return out
}

// all sends all packets in the states as they are, with all owners and pins.
func (w *sites) all(t *testing.T, packets map[string][]byte) (n int) {
	for _, w.owner = range w.places() {
		for _, w.pin = range w.places() {
			for landing := range w.gateways {
				for kind, packet := range packets {
					w.judge(t, kind, landing, w.send(landing, packet))
					n++
				}
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	return n
}

// Whatever two gateways know of a slot, whoever has the flow and whatever a pin says: no
// packet goes round for ever, none goes where it must not, and who has the flow gets it
// if its site's gateway knows of it.
func TestNoLoopsOfTwoSites(t *testing.T) {
	t.Parallel()
	w, packets, n := newSites(2), packetsOfFlow(), 0
	backends := 1
	if os.Getenv("RAZOR_LONG") != "" {
		backends = 2
	}
	for _, w.states[0] = range slotStates(backends, []int{-1, 1}) {
		for _, w.states[1] = range slotStates(backends, []int{-1, 0}) {
			w.busy = !w.busy
			n += w.all(t, packets)
		}
	}
	t.Logf("%d journeys", n)
}

// Likewise three: of the states that one site can be in, those that differ for others.
func TestNoLoopsOfThreeSites(t *testing.T) {
	t.Parallel()
	w, packets, n := newSites(3), packetsOfFlow(), 0
	states := func(other, third int) []slotState {
		few := []slotState{
			{0, 0, 0, 0, -1},
			{0, 0, 0, 0, other},
			{1, 0, 0, 0, -1},
			{1, 2, 0, 0, third},
		}
		if os.Getenv("RAZOR_LONG") != "" {
			few = append(few, slotState{0, 2, 0, 1, -1}, slotState{1, 0, 2, 0, other}, slotState{2, 0, 0, 1, third}, slotState{2, 1, 0, 0, -1})
		}
		return few
	}
	for _, w.states[0] = range states(1, 2) {
		for _, w.states[1] = range states(2, 0) {
			for _, w.states[2] = range states(0, 1) {
				for _, w.cut = range []int{-1, 1} {
					w.busy = !w.busy
					n += w.all(t, packets)
				}
			}
		}
	}
	t.Logf("%d journeys", n)
}
