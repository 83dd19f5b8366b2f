package segment

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// gatewayAgain is the source of a packet that was missed already.
var gatewayAgain = sid(gateway, source, 0, 1, 1, 2, 3)

// Each on both kinds of listeners and in both families.
func eachFlow(t *testing.T, f func(t *testing.T, h *host, of func(client uint16) flow)) {
	for _, port := range []uint16{portMPTCP, portTCP} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("port %d, IPv6 %t", port, v6), func(t *testing.T) {
				t.Parallel()
				f(t, newHost(t), func(client uint16) flow { return flowTo(v6, client, port) })
			})
		}
	}
}

func TestConnectionTakesItsPackets(t *testing.T) {
	t.Parallel()
	eachFlow(t, func(_ *testing.T, h *host, of func(uint16) flow) {
		f := of(4000)
		c := h.connect(f)
		for _, flags := range []byte{ack, fin | ack, rst, rst | ack, syn, syn | ack} {
			h.expect(sent().wrap(f.segment(flags, c.sequence, c.acked)), pass, TakenSocket)
		}
		h.level(Host, Critical) // connections stay
		h.expect(sent().wrap(f.segment(ack, c.sequence, c.acked, 1, 2, 3)), pass, TakenSocket)
		h.expect(sent().wrap(of(4001).segment(ack, c.sequence, c.acked)), tx, HandedOn)
		f.vip = netip.AddrPortFrom(f.vip.Addr(), f.vip.Port()+100)
		h.expect(sent().wrap(f.segment(ack, c.sequence, c.acked)), tx, HandedOn)
	})
}

func TestRequestTakesWhatAnswersIt(t *testing.T) {
	t.Parallel()
	eachFlow(t, func(_ *testing.T, h *host, of func(uint16) flow) {
		f := of(4000)
		c := h.request(f)
		h.expect(sent().wrap(f.segment(ack, c.sequence, c.acked)), pass, TakenRequest)
		h.expect(sent().wrap(f.segment(rst|ack, c.sequence, c.acked)), pass, TakenRequest)
		h.expect(sent().wrap(f.segment(ack, c.sequence, c.acked+1)), tx, HandedOn)
		h.expect(sent().wrap(f.segment(ack, c.sequence, c.acked-1)), tx, HandedOn)
		h.expect(sent().wrap(f.segment(rst, c.sequence, c.acked)), tx, HandedOn)
		h.level(Host, Warning)
		h.expect(sent().wrap(f.segment(syn, first, 0)), pass, TakenSYN) // again
	})
}

func TestListenerTakesItsCookies(t *testing.T) {
	t.Parallel()
	eachFlow(t, func(_ *testing.T, h *host, of func(uint16) flow) {
		f := of(4000)
		c := h.cookie(f)
		h.expect(sent().wrap(f.segment(ack, c.sequence, c.acked)), pass, TakenCookie)
		h.expect(sent().wrap(f.segment(ack, c.sequence, c.acked+100)), tx, HandedOn)
		h.expect(sent().wrap(f.segment(rst|ack, c.sequence, c.acked)), tx, HandedOn)
		h.expect(sent().wrap(of(4001).segment(ack, c.sequence, c.acked)), tx, HandedOn)
	})
}

func TestEndedConnectionTakesItsEnd(t *testing.T) {
	t.Parallel()
	eachFlow(t, func(_ *testing.T, h *host, of func(uint16) flow) {
		f := of(4000)
		c := h.finish(f)
		h.expect(sent().wrap(f.segment(fin|ack, c.sequence-1, c.acked)), pass, TakenTimeWait)
		h.expect(sent().wrap(f.segment(rst, c.sequence, 0)), pass, TakenTimeWait)
		h.expect(sent().wrap(f.segment(ack, c.sequence, c.acked)), tx, HandedOn)
		h.expect(sent().wrap(f.segment(syn, c.sequence+1e6, 0)), pass, TakenSYN) // a new one
		h.level(Host, Warning)
		h.expect(sent().wrap(f.segment(syn, c.sequence+1e6, 0)), tx, HandedOn)
	})
}

func TestLoadedHostLetsConnectionsGoOn(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	f := flowTo(true, 4000, portMPTCP)
	for _, level := range []Level{Normal, Warning, Critical} {
		h.level(Host, level)
		if level == Normal {
			h.expect(sent().wrap(f.segment(syn, 1, 0)), pass, TakenSYN)
		} else {
			h.expect(sent().wrap(f.segment(syn, 1, 0)), tx, HandedOn)
		}
		// The last takes it at any level.
		h.expect(sent(to(sid(locator, hunt, Host))).wrap(f.segment(syn, 1, 0)), pass, TakenSYN)
	}
}

func TestErrorsFollowTheirConnection(t *testing.T) {
	t.Parallel()
	eachFlow(t, func(_ *testing.T, h *host, of func(uint16) flow) {
		router := netip.MustParseAddr("203.0.113.1")
		if of(1).vip.Addr().Is6() {
			router = netip.MustParseAddr("2001:db8:e::1")
		}
		open, half, over := of(4000), of(4001), of(4002)
		h.connect(open)
		c := h.request(half)
		h.finish(over)
		for _, bytes := range []int{8, 20, 40} {
			h.expect(sent().wrap(open.unreachable(router, 1, bytes)), pass, TakenError)
			h.expect(sent().wrap(half.unreachable(router, c.acked-1, bytes)), pass, TakenError)
			h.expect(sent().wrap(half.unreachable(router, c.acked, bytes)), tx, HandedOn)
			h.expect(sent().wrap(over.unreachable(router, 1, bytes)), tx, HandedOn)
			h.expect(sent().wrap(of(4003).unreachable(router, 1, bytes)), tx, HandedOn)
		}
	})
}

func TestHandledByTarget(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	f := flowTo(true, 4000, portMPTCP)
	h.run(sent().wrap(f.segment(syn, 1, 0)))
	h.run(sent().wrap(f.segment(ack, 1, 1)))
	h.run(sent(to(sid(locator, hunt, container))).wrap(f.segment(syn, 1, 0)))
	for number, want := range map[uint16]Handled{Host: {Taken: 1, HandedOn: 1}, container: {Bounced: 1}, 2: {}} {
		if got, err := h.e.Handled(number); err != nil || got != want {
			t.Errorf("target %d: %+v, %v; want %+v", number, got, err, want)
		}
	}
}

// A connection counts when its handshake ends, by the gateway that had it first.
func TestAcceptedByTarget(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	want := func(when string, want Accepted) {
		t.Helper()
		if got, err := h.e.Accepted(Host); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", when, got, err, want)
		}
	}
	f, of := flowTo(true, 4000, portMPTCP), flowTo(true, 4001, portMPTCP)
	c, other := h.request(f), h.request(of)
	h.run(sent().wrap(f.segment(syn, first, 0)))
	h.run(sent().wrap(f.segment(rst|ack, c.sequence, c.acked)))
	want("no handshake ended", Accepted{})
	h.run(sent().wrap(f.segment(ack, c.sequence, c.acked)))
	want("of no gateway of the site", Accepted{Guests: 1})
	if err := h.e.SetGateways([]netip.Prefix{gateway}); err != nil {
		t.Fatal(err)
	}
	h.run(sent().wrap(of.segment(ack, other.sequence, other.acked)))
	want("of one", Accepted{Own: 1, Guests: 1})
	if got, err := h.e.Accepted(container); err != nil || got != (Accepted{}) {
		t.Errorf("of a container: %+v, %v", got, err)
	}
}

// told are the events of packets, which are run one after another.
func (h *host) told(packets ...[]byte) []Event {
	h.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events, done := make(chan Event, 16), make(chan error)
	go func() { done <- h.e.Events(ctx, func(e Event) { events <- e }) }()
	for _, p := range packets {
		h.run(p)
	}
	// A last one, which is always told of: what came before it has been read then.
	const end = 65000
	f := flowTo(true, end, portMPTCP)
	if h.flows[f] == nil {
		h.connect(f)
	}
	h.forget(f)
	h.run(sent(from(gatewayAgain)).wrap(f.segment(ack, 1, 1)))
	var out []Event
	for {
		select {
		case e := <-events:
			if e.Client.Port() != end {
				out = append(out, e)
				continue
			}
		case <-time.After(10 * time.Second):
			h.tb.Error("the last event is not there")
		}
		cancel()
		if err := <-done; err != nil {
			h.tb.Error(err)
		}
		return out
	}
}

// forget has the program tell of a flow again, as if a second was over.
func (h *host) forget(f flow) {
	h.tb.Helper()
	var key endpointConversation
	key.Client.Bytes, key.Vip.Bytes = f.client.Addr().As16(), f.vip.Addr().As16()
	var ports [4]byte
	binary.BigEndian.PutUint16(ports[:], f.client.Port())
	binary.BigEndian.PutUint16(ports[2:], f.vip.Port())
	key.ClientPort, key.VipPort = binary.NativeEndian.Uint16(ports[:]), binary.NativeEndian.Uint16(ports[2:])
	if err := h.e.objects.Told.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		h.tb.Fatal(err)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	eachFlow(t, func(t *testing.T, h *host, of func(uint16) flow) {
		open, half, asked := of(4000), of(4001), of(4002)
		h.connect(open)
		c, k := h.request(half), h.cookie(asked)
		here, there := sid(locator, hunt, Host), sid(neighbor, hunt, Host)
		second := sent(to(there, here, there), left(1))
		again := sent(from(gatewayAgain))
		data := open.segment(ack, 1, 1)
		want := func(o outer, segment int) Event {
			return Event{Source: o.source, Client: open.client, VIP: open.vip, Protocol: tcp, Target: Host, Segment: segment}
		}
		for name, a := range map[string]struct {
			packets [][]byte
			want    []Event
		}{
			"second in the list":   {[][]byte{second.wrap(data)}, []Event{want(second, 1)}},
			"third in the list":    {[][]byte{sent(to(there, there, here), left(0)).wrap(data)}, []Event{want(second, 2)}},
			"missed before":        {[][]byte{again.wrap(data)}, []Event{want(again, 0)}},
			"missed, no SRH":       {[][]byte{sent(from(gatewayAgain), to(here), reduced).wrap(data)}, []Event{want(again, 0)}},
			"once in a second":     {[][]byte{second.wrap(data), again.wrap(data), second.wrap(data)}, []Event{want(second, 1)}},
			"where it is expected": {[][]byte{sent().wrap(data), sent(to(here), reduced).wrap(data)}, nil},
			"at a final SID":       {[][]byte{sent(to(there, sid(locator, final, Host)), left(0)).wrap(data)}, nil},
			"SYN":                  {[][]byte{second.wrap(open.segment(syn, 1, 0))}, nil},
			"RST":                  {[][]byte{second.wrap(open.segment(rst, 1, 0))}, nil},
			"half open":            {[][]byte{second.wrap(half.segment(ack, c.sequence, c.acked))}, nil},
			"cookie":               {[][]byte{second.wrap(asked.segment(ack, k.sequence, k.acked))}, nil},
			"new":                  {[][]byte{second.wrap(of(4003).segment(syn, 1, 0))}, nil},
			"nobody to tell":       {[][]byte{sent(to(there, here, there), left(1), from(sid(gateway, 1, 0))).wrap(data)}, nil},
		} {
			h.forget(open)
			if got := h.told(a.packets...); fmt.Sprint(got) != fmt.Sprint(a.want) {
				t.Errorf("%s: %v, want %v", name, got, a.want)
			}
		}
	})
}

// When nobody reads events they are counted, and packets pass.
func TestEventsNobodyReads(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	f := flowTo(true, 4000, portMPTCP)
	h.connect(f)
	in := sent(from(gatewayAgain)).wrap(f.segment(ack, 1, 1))
	for range 1<<18/64 + 1 {
		h.forget(f)
		if verdict, _ := h.run(in); verdict != pass {
			t.Fatal(verdict)
		}
	}
	counts, err := h.e.count()
	if err != nil || counts[eventLost] == 0 {
		t.Errorf("%d lost, %v", counts[eventLost], err)
	}
}

// Once in a second, and again in the next one.
func TestEventsOfALongFlow(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	f := flowTo(true, 4000, portMPTCP)
	h.connect(f)
	in := sent(from(gatewayAgain)).wrap(f.segment(ack, 1, 1))
	ctx, cancel := context.WithCancel(t.Context())
	times, done := make(chan time.Time, 8), make(chan error)
	go func() { done <- h.e.Events(ctx, func(Event) { times <- time.Now() }) }()
	var first, second time.Time
	for deadline := time.Now().Add(20 * time.Second); second.IsZero() && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		h.run(in)
		select {
		case at := <-times:
			if first.IsZero() {
				first = at
			} else {
				second = at
			}
		default:
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// They are read a little later than they happen.
	if apart := second.Sub(first); apart < 900*time.Millisecond || apart > 10*time.Second {
		t.Errorf("%v apart, want a second", apart)
	}
}

// A SYN tells the host of no larger segment than may leave it; its checksum stays right.
func TestSegmentsOfAnswers(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, v6 := range []bool{false, true} {
		f := flowTo(v6, 4000, portMPTCP)
		for _, options := range [][]byte{{2, 4, 5, 0xb4}, {1, 2, 4, 5, 0xb4, 3, 3, 7}, {2, 4, 2, 0}} {
			told := func(packet int) []byte {
				t.Helper()
				h.sends(Host, packet)
				_, out := h.run(sent().wrap(f.optioned(syn, options)))
				return out
			}
			before, headers := told(0), 40
			if v6 {
				headers = 60
			}
			after, l4 := told(1460), etherLen+headers-tcpLen
			at := l4 + tcpLen + bytes.IndexByte(options, 4) + 1
			want := min(1460-headers, int(binary.BigEndian.Uint16(before[at:])))
			if got := int(binary.BigEndian.Uint16(after[at:])); got != want {
				t.Errorf("%v: told of %d, want %d", options, got, want)
			}
			if c := sum(pseudo(f.client.Addr(), f.vip.Addr(), tcp, len(after)-l4), after[l4:]); c != 0 {
				t.Errorf("%v: the checksum is wrong by %#x", options, c)
			}
		}
	}
}

// A gateway is heard by what it sends, where answers go by gateways; nobody else is, and
// those of an earlier configuration are forgotten.
func TestHeard(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	other := netip.MustParsePrefix("2001:db8:5200:a::/64")
	data := flowTo(true, 4000, portMPTCP).segment(syn, 5, 0)
	never := func(p netip.Prefix) {
		t.Helper()
		if err := h.e.objects.Heard.Put(half(p), uint64(0)); err != nil {
			t.Fatal(err)
		}
	}
	heard := func(p netip.Prefix) bool {
		t.Helper()
		silent, err := h.e.Heard(p)
		if err != nil {
			t.Fatal(err)
		}
		return silent < 10*time.Second
	}
	if err := h.e.SetGateways([]netip.Prefix{gateway, other}); err != nil {
		t.Fatal(err)
	}
	if !heard(gateway) || !heard(other) {
		t.Error("new ones are not heard")
	}
	never(gateway)
	never(other)
	if err := h.e.SetGateways([]netip.Prefix{gateway, other}); err != nil || heard(gateway) {
		t.Error("what is silent was heard by being named again: ", err)
	}
	h.run(sent().wrap(data))
	if heard(gateway) {
		t.Error("heard where answers go straight to clients")
	}
	h.sends(Host, 1460)
	h.run(sent(from(sid(gateway, 1, 0))).wrap(data))
	if heard(gateway) {
		t.Error("a neighbour was taken for the gateway")
	}
	h.run(sent().wrap(data))
	if !heard(gateway) || heard(other) {
		t.Error("what it sent was not heard, or as another's")
	}
	if err := h.e.SetGateways([]netip.Prefix{other}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.e.Heard(gateway); err == nil {
		t.Error("not forgotten")
	}
}
