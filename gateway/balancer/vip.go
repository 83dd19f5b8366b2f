package balancer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Flags and kinds of look-ups (gateway/bpf/maps.h).
const (
	serviceFragments = 1
	serviceQUIC      = 2
	vipAside         = 1

	lookupAnyPort     = 1
	lookupAnyProtocol = 2
	lookupPrefix      = 4
)

// VIP is what packets of a service are addressed to. It is comparable.
type VIP struct {
	Prefix   netip.Prefix // masked
	Port     uint16       // 0 is any
	Protocol uint8        // IPPROTO_TCP or IPPROTO_UDP; 0, with port 0, is any
}

// String is like "[2001:db8::1]:443/tcp", and read by [ParseVIP].
func (v VIP) String() string {
	where := v.Prefix.String()
	if v.Prefix.IsSingleIP() {
		where = v.Prefix.Addr().String()
	}
	if v.Prefix.Addr().Is6() && v.Protocol != 0 {
		where = "[" + where + "]"
	}
	switch protocol := map[uint8]string{0: "any", unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[v.Protocol]; {
	case v.Protocol == 0:
		return where
	case v.Port == 0:
		return where + ":*/" + protocol
	default:
		return fmt.Sprintf("%s:%d/%s", where, v.Port, protocol)
	}
}

// Assignment is whose packets those of a VIP are.
type Assignment struct {
	Service int // below Options.Services
	Number  int // of its counters, below [MaxVIPs]
	// Fragments tells whether the service takes them: of several of one address it does.
	Fragments bool
}

// SetVIPs says which VIPs there are, and makes no change if one of them cannot be.
func (b *Balancer) SetVIPs(vips map[VIP]Assignment) error {
	if len(vips) > MaxVIPs {
		return fmt.Errorf("%d vips, want at most %d", len(vips), MaxVIPs)
	}
	prefixes := map[bpfPrefixKey]bpfPrefixKey{}
	var lookups uint32
	for v, a := range vips {
		if err := b.checkVIP(v, a); err != nil {
			return err
		}
		lookups |= v.lookups()
		if !v.Prefix.IsSingleIP() {
			prefixes[v.prefixKey()] = v.prefixKey()
		}
	}
	keys := keysOf(vips)
	// Kinds of look-ups come before what they find, and go after it.
	b.host.Lookups |= lookups
	b.setHost()
	if err := errors.Join(replace(b.objects.Vips, b.keys, keys), replace(b.objects.Prefixes, b.prefixes, prefixes)); err != nil {
		return fmt.Errorf("vips: %w", err)
	}
	b.keys, b.prefixes, b.host.Lookups = keys, prefixes, lookups
	b.setHost()
	return nil
}

// replace makes what is in a map what is wanted: first what comes, then what goes.
func replace[K, V comparable](m *ebpf.Map, was, want map[K]V) error {
	for k, v := range want {
		if old, ok := was[k]; !ok || old != v {
			if err := m.Put(k, v); err != nil {
				return err
			}
		}
	}
	for k := range was {
		if _, ok := want[k]; ok {
			continue
		}
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}

func (b *Balancer) checkVIP(v VIP, a Assignment) error {
	if err := v.check(); err != nil {
		return err
	}
	if a.Number < 0 || a.Number >= MaxVIPs {
		return fmt.Errorf("vip %s: number %d, want 0 to %d", v, a.Number, MaxVIPs-1)
	}
	if a.Service < 0 || a.Service >= b.services {
		return fmt.Errorf("vip %s: service %d, want 0 to %d", v, a.Service, b.services-1)
	}
	return nil
}

// keysOf are the keys of VIPs, and what stands aside for what has no ports: of several
// VIPs of an address or prefix that which takes fragments, or else has the lowest number,
// and none where one of any port is.
func keysOf(vips map[VIP]Assignment) map[bpfVipKey]bpfVip {
	aside := map[bpfVipKey]Assignment{}
	for v, a := range vips {
		for _, k := range v.asideKeys(a.Fragments) {
			was, ok := aside[k]
			if !ok || a.Fragments && !was.Fragments || a.Fragments == was.Fragments && a.Number < was.Number {
				aside[k] = a
			}
		}
	}
	keys := map[bpfVipKey]bpfVip{}
	for k, a := range aside {
		keys[k] = bpfVip{Service: uint16(a.Service), Number: uint16(a.Number), Flags: vipAside}
	}
	for v, a := range vips {
		keys[v.key()] = bpfVip{Service: uint16(a.Service), Number: uint16(a.Number)}
	}
	return keys
}

// asideKeys are those of ICMP to a VIP, and of its fragments.
func (v VIP) asideKeys(fragments bool) []bpfVipKey {
	keys := []bpfVipKey{v.icmpKey()}
	switch {
	case v.Port != 0:
		keys = append(keys, v.keyOf(0, v.Protocol))
	case v.Protocol == 0 && fragments:
		keys = append(keys, v.keyOf(0, unix.IPPROTO_UDP)) // also where there is one of a port
	}
	return keys
}

// Disputed tells whether it cannot be told of a fragment of UDP which of two VIPs of
// different services it is of, and whether those take fragments: both do, or one that is
// of a port does and the other one is of any.
func Disputed(v, other VIP, takes, otherTakes bool) bool {
	if v.Prefix != other.Prefix || v.Protocol == unix.IPPROTO_TCP || other.Protocol == unix.IPPROTO_TCP {
		return false
	}
	if !takes {
		v, other, takes, otherTakes = other, v, otherTakes, takes
	}
	return takes && (otherTakes || v.Port != 0 && other.Port == 0 && other.Protocol == unix.IPPROTO_UDP)
}

// check refuses what no packet can be addressed to.
func (v VIP) check() error {
	switch {
	case !v.Prefix.IsValid():
		return errors.New("vip without an address")
	case v.Prefix != v.Prefix.Masked():
		return fmt.Errorf("vip %s: has bits behind its length; %s is the prefix", v, v.Prefix.Masked())
	case v.Prefix.Addr().Is4In6():
		return fmt.Errorf("vip %s: an IPv4 address in the form of IPv6", v)
	case v.Protocol != 0 && v.Protocol != unix.IPPROTO_TCP && v.Protocol != unix.IPPROTO_UDP:
		return fmt.Errorf("vip %s: protocol %d, want TCP, UDP or any", v, v.Protocol)
	case v.Protocol == 0 && v.Port != 0:
		return fmt.Errorf("vip %s: port %d of any protocol", v, v.Port)
	}
	return nil
}

// Nested tells whether two VIPs are prefixes of which one contains the other: only the
// longest that an address is in is looked at.
func (v VIP) Nested(other VIP) bool {
	return !v.Prefix.IsSingleIP() && !other.Prefix.IsSingleIP() && v.Prefix != other.Prefix && v.Prefix.Overlaps(other.Prefix)
}

// lookups are the kinds that the program has to make for a VIP beside the exact one.
func (v VIP) lookups() (l uint32) {
	if v.Port == 0 && v.Protocol != 0 {
		l |= lookupAnyPort
	}
	if v.Protocol == 0 {
		l |= lookupAnyProtocol
	}
	if !v.Prefix.IsSingleIP() {
		l |= lookupPrefix
	}
	return l
}

func (v VIP) key() bpfVipKey {
	return v.keyOf(v.Port, v.Protocol)
}

// icmpKey tells that ICMP to the address is ours.
func (v VIP) icmpKey() bpfVipKey {
	if v.Prefix.Addr().Is4() {
		return v.keyOf(0, unix.IPPROTO_ICMP)
	}
	return v.keyOf(0, unix.IPPROTO_ICMPV6)
}

func (v VIP) keyOf(port uint16, protocol uint8) bpfVipKey {
	p := v.prefixKey()
	k := bpfVipKey{Protocol: protocol, Length: uint8(p.Length), Address: p.Address}
	k.Port = bigEndian(port)
	return k
}

// prefixKey counts the length of a prefix of IPv4 in the 128 bits of its address.
func (v VIP) prefixKey() bpfPrefixKey {
	k := bpfPrefixKey{Length: uint32(v.Prefix.Bits())}
	if v.Prefix.Addr().Is4() {
		k.Length += 96
	}
	k.Address.Bytes = v.Prefix.Addr().As16()
	return k
}

// bigEndian is a number whose bytes in memory are those on the wire.
func bigEndian(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

// ParseVIP reads a VIP as String writes it: an address or prefix alone for all that is
// sent there, or with a port (or *) and tcp or udp: 198.51.100.1:443/tcp,
// [2001:db8::1]:*/udp, [2001:db8::/64]:443/tcp.
func ParseVIP(text string) (VIP, error) {
	where, rest := text, ""
	if strings.HasPrefix(text, "[") {
		var closed bool
		if where, rest, closed = strings.Cut(text[1:], "]"); !closed {
			return VIP{}, errors.New("no ] behind the address")
		}
	} else if at := strings.LastIndexByte(text, ':'); at >= 0 && strings.Count(text, ":") == 1 {
		where, rest = text[:at], text[at:]
	}
	var v VIP
	p, err := netip.ParsePrefix(where)
	if err != nil {
		a, err := netip.ParseAddr(where)
		if err != nil || a.Zone() != "" {
			return v, fmt.Errorf("%q is neither an address nor a prefix", where)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	v.Prefix = p
	if rest != "" {
		port, protocol, _ := strings.Cut(strings.TrimPrefix(rest, ":"), "/")
		switch protocol {
		case "tcp":
			v.Protocol = unix.IPPROTO_TCP
		case "udp":
			v.Protocol = unix.IPPROTO_UDP
		default:
			return v, fmt.Errorf("protocol %q, want tcp or udp behind the port", protocol)
		}
		if port != "*" {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil || n == 0 {
				return v, fmt.Errorf("port %q, want 1 to 65535 or *", port)
			}
			v.Port = uint16(n)
		}
	}
	return v, v.check()
}
