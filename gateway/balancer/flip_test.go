package balancer

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering"
)

// flips is a service of many backends, and a packet for each of its slots.
type flips struct {
	tb       testing.TB
	balancer *Balancer
	keeper   *Keeper
	service  PlannedService
	frame    []byte // and what becomes of it
	out      []byte
	flows    [Slots]uint32 // what of the client's address leads to a slot
}

const (
	flipClient = 14 + 8 + 12 // offset of the end of the address
	flipFlags  = 14 + 40 + 13
)

func newFlips(tb testing.TB, backends int) *flips {
	tb.Helper()
	testhost.NeedsRoot(tb)
	b, err := Load(Options{Services: 2})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = b.Close() })
	if err := b.SetHost(Host{Locator: netip.MustParsePrefix("2001:db8:5e::/64"), Block: netip.MustParsePrefix("2001:db8:5e::/48")}); err != nil {
		tb.Fatal(err)
	}
	k, err := NewKeeper(b, slog.New(slog.DiscardHandler), time.Now(), func() {})
	if err != nil {
		tb.Fatal(err)
	}
	f := &flips{tb: tb, balancer: b, keeper: k, service: service("web", slices.Repeat([]State{Active}, backends)...)}
	vip := netip.MustParsePrefix(vip6 + "/128")
	f.service.VIPs = []VIP{{vip, 443, unix.IPPROTO_TCP}}
	f.frame = ethernet(0, ip(client6, vip6, unix.IPPROTO_TCP, tcp(31000, 443, ack, 100)))
	f.out = make([]byte, len(f.frame)+256)
	f.apply()
	var ways []HopChange
	for sid := range k.backends {
		ways = append(ways, HopChange{Address: sid, Hop: Hop{Index: 1, MTU: 1500}})
	}
	k.hopsChanged(ways)
	f.findFlows(vip.Addr())
	return f
}

// findFlows finds a client for each slot.
func (f *flips) findFlows(vip netip.Addr) {
	client := netip.MustParseAddr(client6).As16()
	left := Slots
	for n := uint32(1); left > 0; n++ {
		binary.BigEndian.PutUint32(client[12:], n)
		flow := Flow{Client: netip.AddrPortFrom(netip.AddrFrom16(client), 31000), VIP: netip.AddrPortFrom(vip, 443), Protocol: unix.IPPROTO_TCP}
		slot := steering.FlowSlot(steering.FlowHash(f.service.Key, flow.hashed(f.service.Service)))
		if f.flows[slot] == 0 {
			f.flows[slot] = n
			left--
		}
	}
}

func (f *flips) apply() {
	f.tb.Helper()
	f.planned(Plan{Services: []PlannedService{f.service}}, time.Now())
}

func (f *flips) planned(p Plan, now time.Time) {
	f.tb.Helper()
	if err := f.keeper.Apply(p, now); err != nil {
		f.tb.Fatal(err)
	}
}

// slots are those whose new flows a backend gets.
func (f *flips) slots(backend int) []int {
	index := uint32(f.keeper.backends[f.service.Backends[backend].SID].index)
	var out []int
	for slot := range Slots {
		if f.balancer.Row(0, slot)&steering.MaxBackend == index {
			out = append(out, slot)
		}
	}
	return out
}

// elsewhere tells whether packets of a slot are sent to others than a backend.
func (f *flips) elsewhere(slot int, sid [16]byte, flags byte) bool {
	binary.BigEndian.PutUint32(f.frame[flipClient:], f.flows[slot])
	f.frame[flipFlags] = flags
	o := ebpf.RunOptions{Data: f.frame, DataOut: f.out}
	verdict, err := f.balancer.Program().Run(&o)
	return err == nil && verdict == xdpTX && [16]byte(o.DataOut[14+24:]) != sid
}

// flipped is how long after a decision something was so.
type flipped struct {
	first   time.Duration // of the slots sends packets elsewhere
	last    time.Duration
	applied time.Duration // the keeper is done
}

// flip takes a backend out of the plan's active ones, while packets come.
func (f *flips) flip(backend int, to State, flags byte) (took flipped) {
	f.tb.Helper()
	pending := f.slots(backend)
	sid := f.service.Backends[backend].SID.As16()
	if len(pending) == 0 || f.elsewhere(pending[0], sid, flags) {
		f.tb.Fatalf("packets go elsewhere before backend %d, of %d slots, is %s", backend, len(pending), to)
	}
	f.service.Backends[backend].State = to
	var first, last time.Time
	watching, done := make(chan bool), make(chan bool)
	go func() {
		defer close(done)
		close(watching)
		for deadline := time.Now().Add(10 * time.Second); len(pending) > 0 && time.Now().Before(deadline); {
			pending = slices.DeleteFunc(pending, func(slot int) bool {
				if !f.elsewhere(slot, sid, flags) {
					return false
				}
				last = time.Now()
				if first.IsZero() {
					first = last
				}
				return true
			})
		}
	}()
	<-watching
	began := time.Now()
	f.apply()
	took.applied = time.Since(began)
	<-done
	if len(pending) > 0 {
		f.tb.Fatalf("backend %d is %s, and %d of its slots send packets to it", backend, to, len(pending))
	}
	took.first, took.last = first.Sub(began), last.Sub(began)
	return took
}

// flipCases are decisions, and which packets are not to go to the backend afterwards.
var flipCases = []struct {
	state State
	flags byte
}{{Dead, ack}, {Draining, syn}}

// Packets of all slots of a backend go elsewhere, once it is dead or drained.
func TestFlip(t *testing.T) {
	t.Parallel()
	f := newFlips(t, 100)
	for backend, c := range flipCases {
		f.flip(backend, c.state, c.flags)
	}
}

// BenchmarkFlip is the time from the decision that one of 1,024 backends is dead or
// drained to the first packet that goes elsewhere, and to that of its last slot.
func BenchmarkFlip(b *testing.B) {
	for _, c := range flipCases {
		b.Run(string(c.state), func(b *testing.B) {
			f := newFlips(b, 1024)
			var first, last, applied []time.Duration
			for n := 0; b.Loop(); n++ {
				backend := n % len(f.service.Backends)
				took := f.flip(backend, c.state, c.flags)
				first, last, applied = append(first, took.first), append(last, took.last), append(applied, took.applied)
				f.service.Backends[backend].State = Active
				f.apply()
			}
			for unit, took := range map[string][]time.Duration{"first": first, "last": last, "applied": applied} {
				slices.Sort(took)
				b.ReportMetric(took[len(took)/2].Seconds()*1e3, "ms-"+unit)
				b.ReportMetric(took[len(took)-1].Seconds()*1e3, "ms-"+unit+"-most")
			}
			b.ReportMetric(0, "ns/op") // the way back is in it
		})
	}
}

// BenchmarkServiceMemory is what a further service of 1,024 backends takes: in the process,
// and in the kernel, where there is room for all services that may be.
func BenchmarkServiceMemory(b *testing.B) {
	heap := func() float64 {
		runtime.GC()
		runtime.GC() // what finalizers let go of
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	f := newFlips(b, 1024)
	one := Plan{Services: []PlannedService{f.service}}
	other := service("other", slices.Repeat([]State{Active}, 1024)...)
	for i := range other.Backends {
		other.Backends[i].SID = Hunt(netip.MustParsePrefix(fmt.Sprintf("2001:db8:5e:%x::/64", 2000+i)), 0)
	}
	two := Plan{Services: []PlannedService{f.service, other}}
	for now := time.Now(); b.Loop(); now = now.Add(2 * time.Minute) { // then indices are used again
		f.planned(one, now)
		before := heap()
		f.planned(two, now)
		b.ReportMetric(heap()-before, "B-process")
	}
	b.ReportMetric(float64(f.balancer.tables.stride+f.balancer.histories.stride), "B-kernel")
	b.ReportMetric(0, "ns/op") // collecting garbage
}
