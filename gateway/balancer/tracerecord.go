package balancer

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/steering"
)

// What is known of a record (gateway/bpf/trace.h).
const (
	recordVIP   = 1
	recordSlot  = 2
	recordSite  = 4
	recordRound = 8
)

// TraceRecord is a packet and what the balancer did with it. What is not known is zero.
type TraceRecord struct {
	Time     time.Time
	Client   netip.AddrPort // of the flow: of an error, the one that it speaks of
	To       netip.AddrPort
	Source   netip.Addr // of the packet
	Site     string     // whose gateway that is
	Protocol uint8
	Flags    uint8 // of TCP
	Portless bool
	Length   int // bytes of the IP packet as it came

	VIP      string // that was matched
	Service  string
	Round    int // of a miss; -1: it is none
	Slot     int // -1: no row was looked at
	Current  string
	Previous string
	Second   string
	Owner    string   // by a pin that the row does not agree with
	Named    string   // by a connection ID
	Asked    string   // another site, whether or not there is a way to it
	List     []string // segments in the order of the path; a final one has ":final"

	Verdict uint32   // of XDP
	Action  string   // sent, answered, passed, heard, dropped, aborted
	Reasons []string // in the words of the metrics

	Device      int // where it came in
	Before      []byte
	BeforeBytes int    // of the whole frame
	After       []byte // nil where nothing left
	AfterBytes  int
}

// decode reads a record of this tracer.
func (t *Tracer) decode(raw []byte) (*TraceRecord, bool) {
	var b bpfRecord
	// The sample is padded at its end.
	if _, err := binary.Decode(raw, binary.NativeEndian, &b); err != nil || b.Session != t.wanted.Session {
		return nil, false
	}
	r := &TraceRecord{
		Time:     time.Now().Add(time.Duration(b.Time) - monotonic()),
		Client:   addrPort(b.Client.Bytes, b.ClientPort),
		To:       addrPort(b.Vip.Bytes, b.VipPort),
		Source:   netip.AddrFrom16(b.Source.Bytes).Unmap(),
		Protocol: b.Protocol, Flags: b.Flags, Portless: b.Portless != 0, Length: int(b.Length),
		Slot: -1, Round: -1, Named: t.backend(b.Named), Device: int(b.Device),
		Before: bytes.Clone(b.Before[:min(int(b.Came), len(b.Before))]), BeforeBytes: int(b.Came),
	}
	if b.Left > 0 {
		r.After, r.AfterBytes = bytes.Clone(b.After[:min(int(b.Left), len(b.After))]), int(b.Left)
	}
	if b.Known&recordVIP != 0 {
		r.VIP, r.Service = t.vips[b.Number].String(), t.service(b.Service)
	}
	if b.Known&recordSlot != 0 {
		row := steering.Row(b.Row)
		r.Slot, r.Owner = int(b.Slot), t.backend(b.Owner)
		r.Current, r.Previous, r.Second = t.backend(uint32(row.Current())), t.backend(uint32(row.Previous())), t.backend(b.Second)
	}
	if b.Known&recordRound != 0 {
		r.Round = int(b.Round)
	}
	if b.Known&recordSite != 0 {
		r.Asked = t.site(b.Site)
	}
	r.Site = t.names[gatewayOf(r.Source)]
	r.judge(b.Verdict, b.Reasons)
	if b.Reasons>>bpfReasonSENT&1 != 0 {
		r.List = t.list(r.After)
	}
	return r, true
}

func addrPort(a [16]byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), bigEndian(port))
}

// Verdicts of XDP.
const (
	xdpAborted = iota
	xdpDrop
	xdpPass
	xdpTX
	xdpRedirect
)

// judge says what became of the packet.
func (r *TraceRecord) judge(verdict, bits uint32) {
	r.Verdict = verdict
	for i, word := range reasons {
		if bits>>i&1 != 0 {
			r.Reasons = append(r.Reasons, word)
		}
	}
	had := func(reason bpfReason) bool { return bits>>reason&1 != 0 }
	switch {
	case had(bpfReasonHEARD_SMALLER):
		r.Action = "heard"
	case verdict == xdpDrop:
		r.Action = "dropped"
	case verdict == xdpPass:
		r.Action = "passed"
	case verdict != xdpTX && verdict != xdpRedirect:
		r.Action = "aborted"
	case had(bpfReasonSENT), had(bpfReasonGIVEN_BACK):
		r.Action = "sent"
	default:
		r.Action = "answered"
	}
}

// service is the name of a service.
func (t *Tracer) service(number uint32) string {
	var v bpfService
	if t.maps[bpfMapServices].Lookup(number, &v) != nil || nameOf(v) == "" {
		return strconv.Itoa(int(number))
	}
	return nameOf(v)
}

// backend is the name of a backend, "" of none.
func (t *Tracer) backend(index uint32) string {
	var v bpfBackend
	if index == 0 {
		return ""
	}
	if t.maps[bpfMapBackends].Lookup(index, &v) != nil || v == (bpfBackend{}) {
		return "#" + strconv.Itoa(int(index)) // which went meanwhile
	}
	return t.named(v.Sid.Address.Bytes)
}

// site is the name of another site, by one of its entries.
func (t *Tracer) site(number uint32) string {
	var v bpfSite
	if t.maps[bpfMapSites].Lookup(number, &v) != nil || v.Entries[0] == 0 {
		return "#" + strconv.Itoa(int(number)) // to which there is no way
	}
	return t.backend(v.Entries[0])
}

// gatewayOf is the entry of the gateway that an outer source is of, zero of none.
func gatewayOf(source netip.Addr) netip.Addr {
	a := source.As16()
	if source.Is4() || binary.BigEndian.Uint16(a[8:]) != behaviourSource {
		return netip.Addr{}
	}
	return Entry(netip.PrefixFrom(source, 64))
}

// named is the name of whose SID it is.
func (t *Tracer) named(sid [16]byte) string {
	behaviour := binary.BigEndian.Uint16(sid[8:])
	if behaviour == behaviourFinal {
		binary.BigEndian.PutUint16(sid[8:], behaviourHunt)
	}
	clear(sid[12:]) // the argument
	name, ok := t.names[netip.AddrFrom16(sid)]
	if !ok {
		name = netip.AddrFrom16(sid).String()
	}
	if behaviour == behaviourFinal {
		name += ":final"
	}
	return name
}

// list reads the segments of a frame that was encapsulated here.
func (t *Tracer) list(frame []byte) (names []string) {
	at := 14
	if len(frame) > 18 && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_8021Q {
		at = 18
	}
	if len(frame) < at+40 {
		return nil
	}
	outer, srh := frame[at:at+40], frame[at+40:]
	if outer[6] != unix.IPPROTO_ROUTING {
		return []string{t.named([16]byte(outer[24:]))}
	}
	if len(srh) < 8 || srh[1]%2 != 0 || len(srh) < 8+8*int(srh[1]) {
		return nil
	}
	for sid := range slices.Chunk(srh[8:8+8*int(srh[1])], 16) {
		names = append(names, t.named([16]byte(sid)))
	}
	slices.Reverse(names)
	return names
}

// String is the line of a record: what is not known is left out.
func (r *TraceRecord) String() string {
	var b strings.Builder
	b.WriteString(r.Time.UTC().Format("2006-01-02T15:04:05.000000Z"))
	fmt.Fprintf(&b, " %s > %s %s %d", r.end(r.Client), r.end(r.To), r.kind(), r.Length)
	for _, f := range [][2]string{{"vip", r.VIP}, {"service", r.Service}} {
		if f[1] != "" {
			fmt.Fprintf(&b, " %s=%s", f[0], f[1])
		}
	}
	if r.Source != r.Client.Addr() {
		fmt.Fprintf(&b, " from=%s", cmp.Or(r.Site, r.Source.String()))
	}
	if r.Round >= 0 {
		fmt.Fprintf(&b, " round=%d", r.Round)
	}
	if r.Slot >= 0 {
		fmt.Fprintf(&b, " slot=%d", r.Slot)
	}
	for _, f := range [][2]string{
		{"current", r.Current},
		{"previous", r.Previous},
		{"second", r.Second},
		{"pin", r.Owner},
		{"id", r.Named},
		{"site", r.Asked},
		{"list", strings.Join(r.List, ",")},
	} {
		if f[1] != "" {
			fmt.Fprintf(&b, " %s=%s", f[0], f[1])
		}
	}
	b.WriteString(" " + r.Action)
	if why := slices.DeleteFunc(slices.Clone(r.Reasons), func(word string) bool { return word == reasons[bpfReasonSENT] }); len(why) > 0 {
		b.WriteString(" " + strings.Join(why, ","))
	}
	return b.String()
}

// end is an end of the flow.
func (r *TraceRecord) end(a netip.AddrPort) string {
	if r.Portless {
		return a.Addr().String()
	}
	return a.String()
}

// kind is the protocol, with the flags of TCP.
func (r *TraceRecord) kind() string {
	switch r.Protocol {
	case unix.IPPROTO_TCP:
		return strings.TrimSpace("tcp " + flagWords(r.Flags))
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "icmpv6"
	}
	return "protocol " + strconv.Itoa(int(r.Protocol))
}

// flagWords are the flags of TCP (RFC 9293 §3.1) by their first letters, the lowest bit
// first.
func flagWords(flags uint8) string {
	var b strings.Builder
	for i, letter := range "FSRPAUEC" {
		if flags>>i&1 != 0 {
			b.WriteRune(letter)
		}
	}
	return b.String()
}
