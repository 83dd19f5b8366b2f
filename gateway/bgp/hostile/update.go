package hostile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
)

// families are some that are never negotiated.
var families = []struct {
	afi  int
	safi byte
}{
	{1, 2},
	{1, 4},
	{1, 5},
	{1, 66},
	{1, 73},
	{1, 85},
	{1, 128},
	{1, 129},
	{1, 132},
	{1, 133},
	{1, 134},
	{2, 2},
	{2, 4},
	{2, 73},
	{2, 85},
	{2, 128},
	{2, 133},
	{2, 134},
	{25, 65},
	{25, 70},
	{25, 133},
	{25, 134},
	{16388, 71},
	{16388, 72},
	{16397, 241},
	{0, 0},
	{65535, 255},
}

// announce is an UPDATE that announces a host and has one more attribute.
func announce(a []byte) []byte { return update(nil, slices.Concat(mandatory, a), host4) }

// updates are UPDATEs whose lengths and prefixes are broken.
func (c *cases) updates() {
	add := func(name string, body ...[]byte) { c.add(Established, "UPDATE: "+name, message(typeUpdate, body...)) }
	for _, n := range []int{1, 2, 255, 4096, 65535} {
		add(fmt.Sprintf("%d octets of withdrawn routes", n), u16(n), u16(0))
		add(fmt.Sprintf("%d octets of attributes", n), u16(0), u16(n))
		add(fmt.Sprintf("%d octets of both", n), u16(n), u16(n), zeros(n - 1)[:min(n-1, 4000)])
	}
	for _, bits := range []int{33, 34, 40, 64, 127, 128, 129, 160, 248, 249, 255} {
		add(fmt.Sprintf("withdrawn prefix of %d bits", bits), u16(33), []byte{byte(bits)}, zeros(32), u16(0))
		add(fmt.Sprintf("prefix of %d bits", bits), u16(0), u16(len(mandatory)), mandatory, []byte{byte(bits)}, zeros(32))
	}
	for n := 1; n < len(host4); n++ {
		add(fmt.Sprintf("withdrawn prefix cut at %d", n), u16(n), host4[:n], u16(0))
		add(fmt.Sprintf("prefix cut at %d", n), u16(0), u16(len(mandatory)), mandatory, host4[:n])
	}
	whole := update(host4, slices.Concat(mandatory, attribute(optional, 14, mpReach(2, 1, nextHop6, host6))), host4)[headerLen:]
	for n := 4; n < len(whole); n++ {
		add(fmt.Sprintf("cut at %d", n), whole[:n])
	}
	c.survivor(Established, "UPDATE: 4,000 routes of no bits", update(nil, mandatory, zeros(4000)))
	c.survivor(Established, "UPDATE: bits behind the prefix", update([]byte{1, 255}, mandatory, []byte{25, 203, 0, 113, 255}))
	for _, typ := range []byte{1, 2, 3} {
		c.survivor(Established, fmt.Sprintf("UPDATE: without attribute %d", typ), update(nil, mandatoryBut(typ), host4))
	}
	c.survivor(Established, "UPDATE: without attributes", update(nil, nil, host4))
	for n := range 4 {
		c.add(Established, fmt.Sprintf("UPDATE: %d zeros as attributes", n), update(nil, zeros(n), nil))
	}
	for n := 1; n <= 3; n++ { // RFC 7606 §4
		c.survivor(Established, fmt.Sprintf("UPDATE: %d octets of an attribute", n), announce([]byte{optional | extended, 254, 0}[:n]))
	}
	add("all zeros", zeros(maxMessage-headerLen))
	add("all ones", bytes.Repeat([]byte{255}, maxMessage-headerLen))
}

// attributes are all 256 types with flags and lengths that do not belong to them.
func (c *cases) attributes() {
	for typ := range 256 {
		for flags := 0; flags < 256; flags += 16 {
			c.attribute(byte(typ), byte(flags))
		}
	}
}

// attribute adds the cases of one type and one set of flags. A speaker may end the
// session for a well-known attribute that it does not know (RFC 4271 §6.3): of
// those there is one for each type.
func (c *cases) attribute(typ, flags byte) {
	known := 1 <= typ && typ <= 10
	multiprotocol := typ == 14 || typ == 15
	survives := (flags&optional != 0 || known) && !multiprotocol
	if !survives && flags != transitive && !multiprotocol {
		return
	}
	rest := mandatoryBut(typ)
	long := 255
	if flags&extended != 0 {
		long = 3000
	}
	for _, v := range []struct {
		name       string
		attributes []byte
	}{
		{"nothing", slices.Concat(attribute(flags, typ), rest)},
		{"1 octet", slices.Concat(attribute(flags, typ, zeros(1)), rest)},
		{"5 octets", slices.Concat(attribute(flags, typ, []byte{255, 1, 255, 0, 2}), rest)},
		{"long", slices.Concat(rest, attribute(flags, typ, bytes.Repeat([]byte{1}, long)))},
		{"beyond the end", slices.Concat(rest, attributeOf(flags, typ, long, []byte{1, 2}))},
		{"over the others", slices.Concat(attributeOf(flags, typ, len(rest), nil), rest)},
	} {
		name := fmt.Sprintf("attribute %d, flags %#02x, %s", typ, flags, v.name)
		b := update(nil, v.attributes, host4)
		if survives {
			c.survivor(Established, name, b)
			continue
		}
		c.add(Established, name, b)
		if !multiprotocol {
			return
		}
	}
}

// nested are attributes with something in them that has types and lengths of its
// own. All are optional, so that the session stays.
func (c *cases) nested() {
	add := func(name string, a []byte) { c.survivor(Established, "UPDATE: "+name, announce(a)) }
	const both = optional | transitive
	for typ := range 256 { // RFC 9012 §2: tunnel type, length, sub-TLVs
		for n, value := range [][]byte{nil, {0}, {0, 0}, {255, 255, 255, 255}} {
			sub := tlv(byte(typ), value)
			if typ >= 128 { // their length has two octets
				sub = slices.Concat([]byte{byte(typ)}, u16(len(value)), value)
			}
			add(fmt.Sprintf("tunnel, sub-TLV %d of kind %d", typ, n), attribute(both, 23, u16(15), u16(len(sub)), sub))
		}
		add(fmt.Sprintf("tunnel, sub-TLV %d beyond the end", typ), attribute(both, 23, u16(15), u16(3), []byte{byte(typ), 255, 255}))
		add(fmt.Sprintf("tunnel, sub-TLV %d without a length", typ), attribute(both, 23, u16(15), u16(1), []byte{byte(typ)}))
	}
	for _, typ := range []byte{1, 2, 4, 6, 8, 9, 12, 13, 14, 15, 20, 128, 129, 130} { // those with a form
		for n := range 25 {
			value := bytes.Repeat([]byte{byte(n % 5)}, n)
			sub := slices.Concat([]byte{typ, byte(n)}, value)
			if typ >= 128 {
				sub = slices.Concat([]byte{typ}, u16(n), value)
			}
			add(fmt.Sprintf("tunnel, sub-TLV %d of %d octets", typ, n), attribute(both, 23, u16(15), u16(len(sub)), sub))
		}
	}
	for typ := range byte(16) { // RFC 9830 §2.4.4: segments in a list of segments
		for n := range 25 {
			list := slices.Concat([]byte{0}, tlv(typ, zeros(n)))
			sub := slices.Concat([]byte{128}, u16(len(list)), list)
			add(fmt.Sprintf("tunnel, segment %d of %d octets", typ, n), attribute(both, 23, u16(15), u16(len(sub)), sub))
		}
	}
	for n := range 9 {
		add(fmt.Sprintf("tunnel of %d octets", n), attribute(both, 23, zeros(n)))
		add(fmt.Sprintf("tunnel beyond the end, %d octets", n), attribute(both, 23, u16(15), u16(255), zeros(n)))
	}
	for typ := range byte(10) { // RFC 8669 §3, RFC 9252 §2: type, length of two octets
		for n := range 40 {
			add(fmt.Sprintf("prefix SID, TLV %d of %d octets", typ, n), attribute(both, 40, []byte{typ}, u16(n), zeros(n)))
			add(fmt.Sprintf("prefix SID, TLV %d of %d for %d octets", typ, n+1, n), attribute(both, 40, []byte{typ}, u16(n+1), zeros(n)))
		}
	}
	service := slices.Concat([]byte{5, 0, 34, 0, 1, 0, 30, 0}, zeros(16), []byte{0, 0, 19, 0}, []byte{1, 0, 6, 40, 24, 16, 0, 16, 64})
	for n := range len(service) + 1 { // an SRv6 service TLV, cut, and cut with lengths that fit
		add(fmt.Sprintf("SRv6 service cut at %d", n), attribute(both, 40, service[:n]))
		if n > 3 {
			b := slices.Concat([]byte{5}, u16(n-3), service[3:n])
			add(fmt.Sprintf("SRv6 service of %d octets", n), attribute(both, 40, b))
		}
	}
	for _, typ := range []byte{16, 25, 32, 22, 26, 29, 33, 35, 36, 128} {
		for n := range 25 {
			add(fmt.Sprintf("attribute %d of %d octets", typ, n), attribute(both, typ, bytes.Repeat([]byte{byte(n)}, n)))
		}
	}
	for typ := range 256 { // all kinds of extended communities
		add(fmt.Sprintf("extended community %d", typ), attribute(both, 16, []byte{byte(typ), byte(typ)}, zeros(6)))
	}
}

// families are MP_REACH_NLRI and MP_UNREACH_NLRI, cut everywhere, and of families
// that were never negotiated. A session may end where prefixes cannot be read.
func (c *cases) families() {
	add := func(name string, typ byte, value []byte) {
		c.add(Established, "UPDATE: "+name, update(nil, slices.Concat(attribute(optional|extended, typ, value), mandatory), host4))
	}
	for _, v := range []struct {
		name  string
		typ   byte
		value []byte
	}{
		{"MP_REACH_NLRI of IPv6", 14, mpReach(2, 1, nextHop6, host6)},
		{"MP_REACH_NLRI of IPv6, two next hops", 14, mpReach(2, 1, slices.Concat(nextHop6, nextHop6), host6)},
		{"MP_REACH_NLRI of IPv4", 14, mpReach(1, 1, nextHop6, host4)},
		{"MP_UNREACH_NLRI of IPv6", 15, mpUnreach(2, 1, host6)},
		{"MP_UNREACH_NLRI of IPv4", 15, mpUnreach(1, 1, host4)},
	} {
		for n := range v.value {
			add(fmt.Sprintf("%s cut at %d", v.name, n), v.typ, v.value[:n])
		}
	}
	for _, n := range []int{0, 1, 3, 4, 5, 8, 12, 15, 17, 20, 21, 24, 31, 32, 33, 48, 64, 127, 128, 255} {
		add(fmt.Sprintf("next hop of %d octets", n), 14, slices.Concat([]byte{0, 2, 1, byte(n)}, zeros(20)))
	}
	for _, bits := range []int{129, 130, 136, 160, 248, 249, 255} {
		add(fmt.Sprintf("IPv6 prefix of %d bits", bits), 14, mpReach(2, 1, nextHop6, slices.Concat([]byte{byte(bits)}, zeros(32))))
		add(fmt.Sprintf("IPv6 prefix of %d bits withdrawn", bits), 15, mpUnreach(2, 1, slices.Concat([]byte{byte(bits)}, zeros(32))))
	}
	r := rand.New(rand.NewPCG(4760, 7606))
	for _, f := range families {
		for i := range 30 {
			nlri := zeros(1 + r.IntN(40))
			for n := range nlri {
				nlri[n] = byte(r.IntN(256)) >> r.IntN(8) // small ones, as types and lengths are
			}
			add(fmt.Sprintf("MP_REACH_NLRI of family %d/%d, random %d", f.afi, f.safi, i), 14, mpReach(f.afi, f.safi, nextHop6, nlri))
		}
		for _, n := range []int{0, 1, 2, 3, 4, 5, 8, 12, 17, 24, 32} {
			for _, fill := range []byte{0, 255, byte(max(n, 1))} { // the last says how long it is itself
				name := fmt.Sprintf("of family %d/%d, %d octets of %d", f.afi, f.safi, n, fill)
				nlri := bytes.Repeat([]byte{fill}, n)
				add("MP_REACH_NLRI "+name, 14, mpReach(f.afi, f.safi, nextHop6, nlri))
				add("MP_UNREACH_NLRI "+name, 15, mpUnreach(f.afi, f.safi, nlri))
			}
		}
	}
	c.add(Established, "UPDATE: MP_REACH_NLRI twice", update(nil, slices.Concat(
		attribute(optional, 14, mpReach(2, 1, nextHop6, host6)), attribute(optional, 14, mpReach(2, 1, nextHop6, host6)), origin, asPath), nil))
	c.add(Established, "UPDATE: MP_UNREACH_NLRI twice", update(nil, slices.Concat(
		attribute(optional, 15, mpUnreach(2, 1, host6)), attribute(optional, 15, mpUnreach(2, 1, host6))), nil))
}

// mutations are sound UPDATEs with a few octets changed, by a fixed rule.
func (c *cases) mutations() {
	const many = 500
	sound := [][]byte{
		announce(attribute(optional|transitive, 8, []byte{0xfd, 0xe9, 0, 1})),
		update(host4, slices.Concat(attribute(optional, 14, mpReach(2, 1, nextHop6, host6)), origin, asPath), nil),
		update(nil, attribute(optional, 15, mpUnreach(2, 1, host6)), nil),
		announce(attribute(optional|transitive, 40, []byte{1, 0, 7, 0, 0, 0, 0, 0, 0, 1})),
		announce(attribute(optional|transitive, 23, u16(15), u16(8), []byte{12, 6, 0, 1, 0, 0, 0, 1})),
	}
	r := rand.New(rand.NewPCG(4271, 7606))
	for i := range many {
		b := bytes.Clone(sound[i%len(sound)])
		for range 1 + r.IntN(4) {
			b[headerLen+r.IntN(len(b)-headerLen)] = byte(r.Uint32())
		}
		c.add(Established, fmt.Sprintf("UPDATE: mutation %d", i), b)
	}
}
