package balancer

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/integration/tshark"
)

// A line for each shape of record.
func TestTraceLines(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 89_012_345, time.UTC)
	client, vip := netip.MustParseAddrPort("203.0.113.9:31000"), netip.MustParseAddrPort("198.51.100.1:443")
	for want, r := range map[string]*TraceRecord{
		"203.0.113.9:31000 > 198.51.100.1:443 tcp SA 40 dropped flags": {
			Client: client, To: vip, Source: client.Addr(), Protocol: unix.IPPROTO_TCP, Flags: syn | ack, Length: 40, Slot: -1, Round: -1,
			Action: "dropped", Reasons: []string{"flags"},
		},
		"203.0.113.9:31000 > 198.51.100.1:443 tcp A 140 vip=198.51.100.1:443/tcp service=web slot=0 current=web1 previous=web2 second=web3 pin=web4 list=web4,web1,web2 sent": {
			Client: client, To: vip, Source: client.Addr(), Protocol: unix.IPPROTO_TCP, Flags: ack, Length: 140,
			Round: -1, VIP: "198.51.100.1:443/tcp", Service: "web", Current: "web1", Previous: "web2", Second: "web3", Owner: "web4",
			List: []string{"web4", "web1", "web2"}, Action: "sent", Reasons: []string{"sent"},
		},
		"203.0.113.9:31000 > 198.51.100.1:443 tcp A 40 from=2001:db8:5e:b1:5201:: round=0 slot=7 current=web1 list=web2,web1:final sent miss": {
			Client: client, To: vip, Source: netip.MustParseAddr("2001:db8:5e:b1:5201::"), Protocol: unix.IPPROTO_TCP, Flags: ack, Length: 40, Slot: 7,
			Current: "web1", List: []string{"web2", "web1:final"}, Action: "sent", Reasons: []string{"sent", "miss"},
		},
		"203.0.113.9 > 198.51.100.1 icmp 84 answered echo": {
			Client: client, To: vip, Source: client.Addr(), Protocol: unix.IPPROTO_ICMP, Portless: true, Length: 84, Slot: -1, Round: -1,
			Action: "answered", Reasons: []string{"echo"},
		},
		"203.0.113.9:31000 > 198.51.100.1:443 tcp A 40 from=east round=1 slot=7 current=web1 list=web1 sent entered": {
			Client: client, To: vip, Source: netip.MustParseAddr("2001:db8:5e:e1:5205::"), Site: "east", Protocol: unix.IPPROTO_TCP, Flags: ack, Length: 40,
			Slot: 7, Round: 1, Current: "web1", List: []string{"web1"}, Action: "sent", Reasons: []string{"sent", "entered"},
		},
		"203.0.113.9:31000 > 198.51.100.1:443 tcp A 40 slot=7 current=web1 site=east list=web1,east sent": {
			Client: client, To: vip, Source: client.Addr(), Protocol: unix.IPPROTO_TCP, Flags: ack, Length: 40, Slot: 7, Round: -1,
			Current: "web1", Asked: "east", List: []string{"web1", "east"}, Action: "sent", Reasons: []string{"sent"},
		},
		"203.0.113.9:31000 > 198.51.100.1:443 udp 1200 slot=7 current=web1 id=web2 list=web2:final sent": {
			Client: client, To: vip, Source: client.Addr(), Protocol: unix.IPPROTO_UDP, Length: 1200, Slot: 7, Round: -1,
			Current: "web1", Named: "web2", List: []string{"web2:final"}, Action: "sent", Reasons: []string{"sent"},
		},
		"203.0.113.9:31000 > 198.51.100.1:443 udp 30 dropped icmp_error,no_neighbour": {
			Client: client, To: vip, Source: client.Addr(), Protocol: unix.IPPROTO_UDP, Length: 30, Slot: -1, Round: -1,
			Action: "dropped", Reasons: []string{"icmp_error", "no_neighbour"},
		},
	} {
		r.Time = at
		if got := r.String(); got != "2026-03-04T05:06:07.089012Z "+want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

// Wireshark reads the file of a trace: what came, dropped or not, with the line as its
// comment, and what left.
func TestWiresharkReadsATrace(t *testing.T) {
	t.Parallel()
	b := newTraced(t, newModelOfSites(false))
	records := b.records(TraceFilter{})
	var file bytes.Buffer
	c, err := NewCapture(&file)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i, r := range records {
		if err := c.Write(r); err != nil {
			t.Fatal(err)
		}
		at := fmt.Sprintf("%d.%09d", r.Time.Unix(), r.Time.Nanosecond())
		want = append(want, fmt.Sprintf("%s\t%d\t%d\t0x00000001\t%d\tlo\t%s", at, r.BeforeBytes, i+1, r.Verdict, r))
		if r.After != nil {
			want = append(want, fmt.Sprintf("%s\t%d\t%d\t0x00000002\t\tsent\t", at, r.AfterBytes, i+1))
		}
	}
	got := tshark.Fields(t, file.Bytes(), "frame.time_epoch", "frame.len", "frame.packet_id", "frame.packet_flags",
		"frame.verdict.ebpf_xdp", "frame.interface_name", "frame.comment")
	if !slices.Equal(got, want) {
		t.Errorf("%s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
