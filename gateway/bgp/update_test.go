package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gobgp "github.com/osrg/gobgp/v3/pkg/packet/bgp"

	"github.com/razor-steering/razor/steering"
)

// Attributes that are well-formed, with AS numbers of four octets.
const (
	origin     = "400101 00"
	asPath     = "400206 0201 0000fde9"
	nextHop    = "400304 c0000201"
	mandatory  = origin + asPath + nextHop
	unreached6 = "800f08 0002 01 20 20010db9"
	reached6   = "800e1a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8"
	host4      = "20 cb007107" // 203.0.113.7/32
)

// updateOf is the body of an UPDATE with these parts, in hexadecimal digits.
func updateOf(withdrawn, attributes, nlri string) string {
	length := func(s string) string { return fmt.Sprintf("%04x", len(strings.ReplaceAll(s, " ", ""))/2) }
	return length(withdrawn) + withdrawn + length(attributes) + attributes + nlri
}

// summary is an update in short.
func summary(u update) string {
	var parts []string
	for _, p := range u.withdrawn {
		parts = append(parts, "-"+p.String())
	}
	for _, p := range u.announced {
		parts = append(parts, "+"+p.String())
	}
	if u.nextHop.IsValid() {
		parts = append(parts, "via "+u.nextHop.String())
	}
	for f, on := range u.endOfRIB {
		if on {
			parts = append(parts, "end of "+steering.Family(f).String())
		}
	}
	if u.malformed != "" {
		parts = append(parts, "("+u.malformed+")")
	}
	return strings.Join(parts, " ")
}

// updateRow is one UPDATE, and what is to be made of it: the summary, or the
// verdict if the session ends.
type updateRow struct{ name, in, want string }

func updateRows() []updateRow {
	// attribute is an UPDATE that announces a host, with one more attribute.
	attribute := func(a string) string { return updateOf("", mandatory+a, host4) }
	const announced = "+203.0.113.7/32 via 192.0.2.1"
	discarded := func(why string) string { return announced + " (" + why + ")" }
	treated := func(why string) string { return "-203.0.113.7/32 via 192.0.2.1 (" + why + ")" }
	return []updateRow{
		{"end of IPv4", "0000 0000", "end of IPv4"},
		{"end of IPv6", updateOf("", "800f03 000201", ""), "end of IPv6"},
		{"end of IPv4, in an attribute", updateOf("", "800f03 000101", ""), "end of IPv4"},
		{"end of IPv6, long length", updateOf("", "900f0003 000201", ""), "end of IPv6"},
		{"end of another family", updateOf("", "800f03 001946", ""), "(MP_UNREACH_NLRI of a family that was not negotiated)"},
		{"no end with routes", updateOf(host4, "800f03 000201", ""), "-203.0.113.7/32"},

		{"IPv4", updateOf("18 c63364 00", mandatory, host4+"08 0a"), "-198.51.100.0/24 -0.0.0.0/0 +203.0.113.7/32 +10.0.0.0/8 via 192.0.2.1"},
		{"bits behind the prefix", updateOf("", mandatory, "19 c63364ff 01 ff"), "+198.51.100.128/25 +128.0.0.0/1 via 192.0.2.1"},
		{"IPv6", updateOf("", reached6+origin+asPath, ""), "+2001:db8::/32 via 2001:db8::1"},
		{"IPv6 withdrawn", updateOf("", unreached6, ""), "-2001:db9::/32"},
		{"IPv6 both", updateOf("", unreached6+reached6+origin+asPath, ""), "-2001:db9::/32 +2001:db8::/32 via 2001:db8::1"},
		{"all at once", updateOf(host4, reached6+mandatory+unreached6, "08 0a"), "-203.0.113.7/32 -2001:db9::/32 +10.0.0.0/8 +2001:db8::/32 via 2001:db8::1"},
		{"link-local next hop", updateOf("", "800e2a 0002 01 20 20010db8000000000000000000000001 fe800000000000000000000000000001 00 20 20010db8"+origin+asPath, ""), "+2001:db8::/32 via 2001:db8::1"},
		{"IPv4 over IPv6", updateOf("", "800e1a 0001 01 10 20010db8000000000000000000000001 00"+host4+origin+asPath, ""), "+203.0.113.7/32 via 2001:db8::1"},
		{"IPv4 in MP_REACH_NLRI", updateOf("", "800e0e 0001 01 04 c0000202 00"+host4+origin+asPath, ""), "+203.0.113.7/32 via 192.0.2.2"},
		{"nothing in MP_REACH_NLRI", updateOf("", "800e09 0001 01 04 c0000202 00"+origin+asPath, ""), "via 192.0.2.2"},
		{"attributes alone", updateOf("", mandatory, ""), "via 192.0.2.1"},
		{"all known attributes", attribute("800404 00000001" + "400504 00000064" + "400600" + "c00708 0000fde9 0aff0101" +
			"c00808 fde90001fde90002" + "800904 0aff0101" + "800a08 0aff01010aff0102" + "c01008 0002fde900000001" +
			"c01106 0201 0000fde9" + "c01208 0000fde9 0aff0101" + "c01914 0002 20010db8000000000000000000000001 0001" +
			"c0200c 0000fde90000000100000002"), announced},
		{"unknown optional attributes", attribute("80fe00" + "c0fd03010203" + "f0fc0001aa" + "c01701ff" + "c02801ff"), announced},
		{"empty AS_PATH", updateOf("", origin+"400200"+nextHop, host4), announced},
		{"segments of all types", updateOf("", origin+"400218 0301 00000001 0401 00000002 0101 00000003 0201 00000004"+nextHop, host4), announced},

		// RFC 7606 §3 a: lengths that do not fit.
		{"withdrawn beyond the end", "0001 0000", "03/01"},
		{"attributes beyond the end", "0000 0001", "03/01"},
		{"withdrawn of 65535", "ffff 0000", "03/01"},
		{"attributes of 65535", "0000 ffff 400101", "03/01"},

		// §3 c: flags.
		{"ORIGIN optional", updateOf("", "c00101 00"+asPath+nextHop, host4), treated("ORIGIN has wrong flags")},
		{"MULTI_EXIT_DISC transitive", attribute("c00404 00000001"), treated("MULTI_EXIT_DISC has wrong flags")},
		{"COMMUNITIES well-known", attribute("400804 00010001"), treated("COMMUNITIES has wrong flags")},
		{"AGGREGATOR not transitive", attribute("800708 0000fde9 0aff0101"), treated("AGGREGATOR has wrong flags")},

		// §3 d: what has to be there.
		{"no ORIGIN", updateOf("", asPath+nextHop, host4), treated("ORIGIN is missing")},
		{"no AS_PATH", updateOf("", origin+nextHop, host4), treated("AS_PATH is missing")},
		{"no NEXT_HOP", updateOf("", origin+asPath, host4), "-203.0.113.7/32 (NEXT_HOP is missing)"},
		{"no attributes", updateOf("", "", host4), "-203.0.113.7/32 (ORIGIN is missing)"},
		{"no ORIGIN with IPv6", updateOf("", reached6+asPath, ""), "-2001:db8::/32 via 2001:db8::1 (ORIGIN is missing)"},

		// §3 g: twice.
		{"MP_REACH_NLRI twice", updateOf("", reached6+reached6+origin+asPath, ""), "03/01"},
		{"MP_UNREACH_NLRI twice", updateOf("", unreached6+unreached6, ""), "03/01"},
		{"ORIGIN twice", attribute(origin), discarded("ORIGIN more than once")},
		{"unknown attribute twice", attribute("80fe00 80fe00"), discarded("attribute 254 more than once")},

		// §3 h: the worst counts.
		{"two defects", attribute("400700 400101" + "00 c00803 000100"), treated("AGGREGATOR has wrong flags")},
		{"discarded, then withdrawn", attribute("c00701 00 c00803 000100"), treated("COMMUNITIES is malformed")},

		// §3 i, §5.3: prefixes.
		{"IPv4 prefix of 33 bits", updateOf("", mandatory, "21 cb00710700"), "03/0a"},
		{"IPv4 prefix cut", updateOf("", mandatory, "20 cb0071"), "03/0a"},
		{"withdrawn prefix of 33 bits", updateOf("21 cb00710700", "", ""), "03/0a"},
		{"withdrawn prefix cut", updateOf("20 cb0071", "", ""), "03/0a"},
		{"prefix of 255 bits", updateOf("ff", "", ""), "03/0a"},
		{"IPv6 prefix of 129 bits", updateOf("", "800f15 0002 01 81 20010db8000000000000000000000001 80", ""), "03/09 800f150002018120010db800000000000000000000000180"},
		{"IPv6 prefix cut", updateOf("", "800f07 0002 01 20 20010d", ""), "03/09 800f070002012020010d"},
		{"IPv6 announced, cut", updateOf("", "800e19 0002 01 10 20010db8000000000000000000000001 00 20 20010d", ""), "03/09 800e190002011020010db8000000000000000000000001002020010d"},
		{"IPv4 prefix of 33 bits in MP_UNREACH_NLRI", updateOf("", "800f09 0001 01 21 cb00710700", ""), "03/09 800f0900010121cb00710700"},
		{"MP_REACH_NLRI with wrong flags", updateOf("", "400e03 000201", ""), "03/09 400e03000201"},
		{"MP_UNREACH_NLRI with wrong flags", updateOf("", "c00f04 000201 00", ""), "03/09 c00f0400020100"},

		// §4: attributes that do not fit.
		{"attribute beyond the field", attribute("c0fe05 01020304"), treated("attributes do not fit into their field")},
		{"long attribute beyond the field", attribute("d0feffff 01"), treated("attributes do not fit into their field")},
		{"one octet left", attribute("c0"), treated("attributes do not fit into their field")},
		{"two octets left", attribute("c0fe"), treated("attributes do not fit into their field")},
		{"three octets of a long one left", attribute("d0fe00"), treated("attributes do not fit into their field")},
		{"MP_REACH_NLRI beyond the field", attribute("800e1a 0002"), "03/09 800e1a0002"},
		{"MP_UNREACH_NLRI without a length", attribute("800f"), "03/09 800f"},

		// §5.2: with nothing to announce, nothing may be wrong.
		{"bad ORIGIN, nothing announced", updateOf("", "400101 03", ""), "03/01"},
		{"bad ORIGIN, only withdrawn", updateOf(host4, "400101 03", ""), "03/01"},
		{"bad COMMUNITIES with MP_UNREACH_NLRI", updateOf("", unreached6+"c00803 000100", ""), "03/01"},
		{"attribute beyond the field, nothing announced", updateOf("", "400102 03", ""), "03/01"},
		{"bad AGGREGATOR, nothing announced", updateOf(host4, "c00701 03", ""), "-203.0.113.7/32 (AGGREGATOR is malformed)"},

		// §7: each attribute.
		{"ORIGIN 3", updateOf("", "400101 03"+asPath+nextHop, host4), treated("ORIGIN is malformed")},
		{"ORIGIN empty", updateOf("", "400100"+asPath+nextHop, host4), treated("ORIGIN is malformed")},
		{"ORIGIN of 2 octets", updateOf("", "400102 0000"+asPath+nextHop, host4), treated("ORIGIN is malformed")},
		{"AS_PATH segment 0", updateOf("", origin+"400206 0001 0000fde9"+nextHop, host4), treated("AS_PATH is malformed")},
		{"AS_PATH segment 5", updateOf("", origin+"400206 0501 0000fde9"+nextHop, host4), treated("AS_PATH is malformed")},
		{"AS_PATH segment empty", updateOf("", origin+"400202 0200"+nextHop, host4), treated("AS_PATH is malformed")},
		{"AS_PATH cut", updateOf("", origin+"400206 0202 0000fde9"+nextHop, host4), treated("AS_PATH is malformed")},
		{"AS_PATH with an octet behind it", updateOf("", origin+"400207 0201 0000fde9 02"+nextHop, host4), treated("AS_PATH is malformed")},
		{"AS_PATH of short numbers", updateOf("", origin+"400204 0201 fde9"+nextHop, host4), treated("AS_PATH is malformed")},
		{"AS 0 in AS_PATH", updateOf("", origin+"400206 0201 00000000"+nextHop, host4), treated("AS_PATH is malformed")},
		{"NEXT_HOP of 3 octets", updateOf("", origin+asPath+"400303 c00002", host4), "-203.0.113.7/32 (NEXT_HOP is malformed)"},
		{"NEXT_HOP of 16 octets", updateOf("", origin+asPath+"400310 20010db8000000000000000000000001", host4), "-203.0.113.7/32 (NEXT_HOP is malformed)"},
		{"MULTI_EXIT_DISC of 3 octets", attribute("800403 000001"), treated("MULTI_EXIT_DISC is malformed")},
		{"LOCAL_PREF of 3 octets", attribute("400503 000001"), discarded("LOCAL_PREF is malformed")},
		{"ATOMIC_AGGREGATE of 1 octet", attribute("400601 00"), discarded("ATOMIC_AGGREGATE is malformed")},
		{"AGGREGATOR of 6 octets", attribute("c00706 fde9 0aff0101"), discarded("AGGREGATOR is malformed")},
		{"AGGREGATOR of AS 0", attribute("c00708 00000000 0aff0101"), discarded("AGGREGATOR is malformed")},
		{"COMMUNITIES empty", attribute("c00800"), treated("COMMUNITIES is malformed")},
		{"COMMUNITIES of 5 octets", attribute("c00805 0001000100"), treated("COMMUNITIES is malformed")},
		{"ORIGINATOR_ID of 5 octets", attribute("800905 0aff010100"), discarded("ORIGINATOR_ID is malformed")},
		{"CLUSTER_LIST of 3 octets", attribute("800a03 0aff01"), discarded("CLUSTER_LIST is malformed")},
		{"EXTENDED_COMMUNITIES of 7 octets", attribute("c01007 0002fde9000000"), treated("EXTENDED_COMMUNITIES is malformed")},
		{"AS4_PATH cut", attribute("c01106 0202 0000fde9"), discarded("AS4_PATH is malformed")},
		{"AS4_AGGREGATOR of 6 octets", attribute("c01206 fde9 0aff0101"), discarded("AS4_AGGREGATOR is malformed")},
		{"IPV6_EXTENDED_COMMUNITIES of 8 octets", attribute("c01908 0002fde900000001"), treated("IPV6_EXTENDED_COMMUNITIES is malformed")},
		{"LARGE_COMMUNITIES of 8 octets", attribute("c02008 0000fde900000001"), treated("LARGE_COMMUNITIES is malformed")},
		{"unknown well-known attribute", attribute("40fe01 00"), "03/02 40fe0100"},

		// §7.11, §7.12: MP_REACH_NLRI and MP_UNREACH_NLRI.
		{"MP_REACH_NLRI empty", attribute("800e00"), "03/09 800e00"},
		{"MP_REACH_NLRI of 4 octets", attribute("800e04 00020100"), "03/09 800e0400020100"},
		{"MP_REACH_NLRI without a next hop", attribute("800e05 00020100 00"), "03/09 800e050002010000"},
		{"MP_REACH_NLRI, next hop beyond the end", attribute("800e05 00020110 00"), "03/09 800e050002011000"},
		{"MP_REACH_NLRI, next hop of 255", attribute("800e05 000201ff 00"), "03/09 800e05000201ff00"},
		{"MP_REACH_NLRI, next hop of 4 for IPv6", attribute("800e09 00020104 c0000201 00"), "03/09 800e0900020104c000020100"},
		{"MP_REACH_NLRI, next hop of 12", attribute("800e11 0001010c 0000000000000000c0000201 00"), "03/09 800e110001010c0000000000000000c000020100"},
		{"MP_REACH_NLRI without the last octet", attribute("800e08 00010104 c0000201"), "03/09 800e0800010104c0000201"},
		{"MP_UNREACH_NLRI empty", attribute("800f00"), "03/09 800f00"},
		{"MP_UNREACH_NLRI of 2 octets", attribute("800f02 0002"), "03/09 800f020002"},
		{"MP_REACH_NLRI of another family", attribute("800e07 0019461000ff ff"), discarded("MP_REACH_NLRI of a family that was not negotiated")},
		{"MP_UNREACH_NLRI of multicast", attribute("800f05 000202 ffff"), discarded("MP_UNREACH_NLRI of a family that was not negotiated")},
	}
}

func TestSurveyUpdate(t *testing.T) {
	t.Parallel()
	for _, c := range updateRows() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := octets(t, c.in)
			u, err := surveyUpdate(in, families{true, true}, true)
			got := summary(u)
			if err != nil {
				got = verdict(err)
			}
			if got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
			for n := range in { // cut as it is, and with lengths that fit
				for _, fourOctet := range []bool{true, false} {
					_, _ = surveyUpdate(in[:n], families{true, true}, fourOctet)
					_, _ = surveyUpdate(octets(t, updateOf("", fmt.Sprintf("%x", in[:n]), "")), families{true, true}, fourOctet)
				}
			}
		})
	}
}

func TestSurveyUpdateOfFamilies(t *testing.T) {
	t.Parallel()
	all := updateOf(host4, reached6+mandatory+unreached6, "08 0a")
	for _, c := range []struct {
		in         string
		negotiated families
		want       string
	}{
		{all, families{true, false}, "-203.0.113.7/32 +10.0.0.0/8 via 192.0.2.1 (MP_REACH_NLRI of a family that was not negotiated)"},
		{all, families{false, true}, "-2001:db9::/32 +2001:db8::/32 via 2001:db8::1 (IPv4 routes were not negotiated)"},
		{all, families{}, "via 192.0.2.1 (IPv4 routes were not negotiated)"},
		{"0000 0000", families{false, true}, ""},
		{updateOf("", "800f03 000201", ""), families{true, false}, ""},
		{updateOf("", "800f07 0002 01 20 20010d", ""), families{true, false}, "(MP_UNREACH_NLRI of a family that was not negotiated)"},
		{updateOf("20", "", ""), families{false, true}, "03/0a"},
	} {
		u, err := surveyUpdate(octets(t, c.in), c.negotiated, true)
		got := summary(u)
		if err != nil {
			got = verdict(err)
		}
		if got != c.want {
			t.Errorf("%v: %s\nwant %s", c.negotiated, got, c.want)
		}
	}
}

func TestSurveyUpdateOfShortNumbers(t *testing.T) {
	t.Parallel()
	short := origin + "400204 0201 fde9" + nextHop
	for in, want := range map[string]string{
		updateOf("", short, host4):                                                     "+203.0.113.7/32 via 192.0.2.1",
		updateOf("", short+"c00706 fde9 0aff0101", host4):                              "+203.0.113.7/32 via 192.0.2.1",
		updateOf("", short+"c01106 0201 fa56ea00", host4):                              "+203.0.113.7/32 via 192.0.2.1",
		updateOf("", short+"c00708 0000fde9 0aff0101", host4):                          "+203.0.113.7/32 via 192.0.2.1 (AGGREGATOR is malformed)",
		updateOf("", mandatory, host4):                                                 "-203.0.113.7/32 via 192.0.2.1 (AS_PATH is malformed)",
		updateOf("", origin+"400204 0201 0000"+nextHop, host4):                         "-203.0.113.7/32 via 192.0.2.1 (AS_PATH is malformed)",
		updateOf("", short+"c01106 0201 00000000", host4):                              "+203.0.113.7/32 via 192.0.2.1 (AS4_PATH is malformed)",
		updateOf("", origin+"40020c 0205 fde9fde9fde9fde9fde9"+nextHop, host4):         "+203.0.113.7/32 via 192.0.2.1",
		updateOf("", origin+"50020006 0202 fde9fdea"+nextHop, host4):                   "+203.0.113.7/32 via 192.0.2.1",
		updateOf("", origin+"400206 0202 fde9fdea"+"400304 c0000201"+"40fe00", host4):  "03/02 40fe00",
		updateOf("", origin+"400206 0202 fde9fdea"+nextHop+"80fe", host4):              "-203.0.113.7/32 via 192.0.2.1 (attributes do not fit into their field)",
		updateOf("", origin+"400206 0202 fde9fdea"+nextHop+"a0fe00 e0fd00 80fc00", ""): "via 192.0.2.1",
	} {
		u, err := surveyUpdate(octets(t, in), families{true, true}, false)
		got := summary(u)
		if err != nil {
			got = verdict(err)
		}
		if got != want {
			t.Errorf("%s: %s\nwant %s", in, got, want)
		}
	}
}

// The engine's UPDATEs are what has to be counted.
func TestSurveyUpdateOfTheEngine(t *testing.T) {
	t.Parallel()
	m := gobgp.NewBGPUpdateMessage(nil, []gobgp.PathAttributeInterface{
		gobgp.NewPathAttributeOrigin(0),
		gobgp.NewPathAttributeAsPath([]gobgp.AsPathParamInterface{gobgp.NewAs4PathParam(gobgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{4200000001})}),
		gobgp.NewPathAttributeMpReachNLRI("2001:db8::1", []gobgp.AddrPrefixInterface{gobgp.NewIPAddrPrefix(32, "198.51.100.7")}),
		gobgp.NewPathAttributeCommunities([]uint32{0xffff0000}),
	}, nil)
	b, err := m.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	u, err := surveyUpdate(message(b).body(), families{true, true}, true)
	if got := summary(u); err != nil || got != "+198.51.100.7/32 via 2001:db8::1" {
		t.Errorf("%s, %v", got, err)
	}
}

// engine reads an UPDATE with the library; false says that it did not, or panicked.
func engine(m message) (withdrawn, announced []string, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	parsed, err := gobgp.ParseBGPMessage(m)
	if err != nil {
		return nil, nil, false
	}
	body := parsed.Body.(*gobgp.BGPUpdate)
	for _, p := range body.WithdrawnRoutes {
		withdrawn = append(withdrawn, p.String())
	}
	for _, p := range body.NLRI {
		announced = append(announced, p.String())
	}
	unicast := func(afi uint16, safi uint8) bool { _, ok := familyOf(afi, safi); return ok }
	for _, a := range body.PathAttributes {
		switch a := a.(type) {
		case *gobgp.PathAttributeMpReachNLRI:
			for _, p := range a.Value {
				if unicast(a.AFI, a.SAFI) {
					announced = append(announced, p.String())
				}
			}
		case *gobgp.PathAttributeMpUnreachNLRI:
			for _, p := range a.Value {
				if unicast(a.AFI, a.SAFI) {
					withdrawn = append(withdrawn, p.String())
				}
			}
		}
	}
	return withdrawn, announced, true
}

func FuzzSurveyUpdate(f *testing.F) {
	for _, c := range updateRows() {
		f.Add(octets(f, c.in), true)
		f.Add(octets(f, c.in), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, fourOctet bool) {
		if len(body) < 4 || len(body) > maxMessage-headerLen {
			return // readMessage keeps it away
		}
		u, err := surveyUpdate(body, families{true, true}, fourOctet)
		if err != nil {
			if verdict(err) == err.Error() || summary(u) != "" {
				t.Errorf("%s, %v", summary(u), err)
			}
			return
		}
		if len(u.withdrawn)+len(u.announced) > len(body) {
			t.Errorf("%d prefixes in %d octets", len(u.withdrawn)+len(u.announced), len(body))
		}
		for _, p := range slices.Concat(u.withdrawn, u.announced) {
			if !p.IsValid() || p != p.Masked() {
				t.Errorf("prefix %v", p)
			}
		}
		withdrawn, announced, ok := engine(newMessage(typeUpdate, body))
		if !ok || u.malformed != "" {
			return
		}
		if !same(u.withdrawn, withdrawn) || !same(u.announced, announced) {
			t.Errorf("%s\nthe library has -%v +%v", summary(u), withdrawn, announced)
		}
	})
}

// same compares prefixes with those of the library, in whatever order; it does not
// clear the bits behind a prefix.
func same(ours []netip.Prefix, theirs []string) bool {
	var a, b []string
	for _, p := range ours {
		a = append(a, p.String())
	}
	for _, s := range theirs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return false
		}
		b = append(b, p.Masked().String())
	}
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
