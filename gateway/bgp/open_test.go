package bgp

import (
	"bytes"
	"net/netip"
	"testing"

	gobgp "github.com/osrg/gobgp/v3/pkg/packet/bgp"

	"github.com/razor-steering/razor/steering"
)

// fixedOpen is AS 65001 in two octets, hold time 90 and an identifier, before the
// length of the optional parameters.
const fixedOpen = "04 fde9 005a 0aff0101"

// typical is an OPEN as routers send it: each capability in a parameter of its
// own, and some that are ignored.
const typical = "04 5ba0 0009 0aff0101 52" +
	"0206 0104 00010001" + // IPv4 unicast
	"0206 0104 00020001" + // IPv6 unicast
	"0202 8000" + // an old number of route refresh
	"0202 0200" + // route refresh
	"0202 4600" + // enhanced route refresh
	"0206 4104 fa56ea00" + // AS 4200000000
	"0208 0506 00010001 0002" + // IPv6 next hops for IPv4
	"0202 0600" + // extended messages
	"020c 400a 4078 00010180 00020100" + // graceful restart
	"020a 4508 00010101 00020101" + // add-path
	"0204 4902 0000" // a name

func typicalOpen() open {
	return open{
		as: 4200000000, fourOctet: true, hold: 9, id: netip.MustParseAddr("10.255.1.1"),
		families: families{true, true}, nextHop6: true, refresh: true,
		restart: restart{
			present: true, notification: true, seconds: 120,
			families: families{true, true}, forwarding: families{true, false},
		},
	}
}

func TestParseOpen(t *testing.T) {
	t.Parallel()
	plain := open{as: 65001, hold: 90, id: netip.MustParseAddr("10.255.1.1"), families: families{true, false}}
	with := func(change func(*open)) open {
		o := plain
		change(&o)
		return o
	}
	for _, c := range []struct {
		name string
		in   string
		want open
	}{
		{"no optional parameters", fixedOpen + "00", plain},
		{"no hold timer", "04 fde9 0000 0aff0101 00", with(func(o *open) { o.hold = 0 })},
		{"shortest hold time", "04 fde9 0003 0aff0101 00", with(func(o *open) { o.hold = 3 })},
		{"typical", typical, typicalOpen()},
		{"empty parameter", fixedOpen + "02 0200", plain},
		{"several capabilities in one parameter", fixedOpen + "10 020e 010400010001 010400020001 0200", with(func(o *open) {
			o.families, o.refresh = families{true, true}, true
		})},
		{"capabilities twice", fixedOpen + "16 0214 010400020001 010400020001 0200 0200 4600 4600", with(func(o *open) {
			o.families, o.refresh = families{false, true}, true
		})},
		{"IPv6 alone", fixedOpen + "08 0206 010400020001", with(func(o *open) { o.families = families{false, true} })},
		{"reserved octet of a family", fixedOpen + "08 0206 01040002ff01", with(func(o *open) { o.families = families{false, true} })},
		{"other families alone", fixedOpen + "0e 020c 010400190046 010400010002", with(func(o *open) { o.families = families{} })},
		{"unknown capabilities", fixedOpen + "0b 0209 f003010203 ff00 0000", plain},
		{"AS of two octets in four", fixedOpen + "08 0206 41040000fde9", with(func(o *open) { o.fourOctet = true })},
		{"AS_TRANS for one of two octets", "04 5ba0 005a 0aff0101 08 0206 41040000fde9", with(func(o *open) { o.fourOctet = true })},
		{"last of two AS numbers", "04 5ba0 005a 0aff0101 0e 020c 410400000001 41040000fde9", with(func(o *open) { o.fourOctet = true })},
		{"AS_TRANS itself", "04 5ba0 005a 0aff0101 00", with(func(o *open) { o.as = 23456 })},
		{"other next hops", fixedOpen + "0a 0208 0506 000100800002", plain},
		{"next hops", fixedOpen + "10 020e 050c 000100800002 000100010002", with(func(o *open) { o.nextHop6 = true })},
		{"restart without families", fixedOpen + "06 0204 4002 8fff", with(func(o *open) {
			o.restart = restart{present: true, restarting: true, seconds: 4095}
		})},
		{"last of two restarts", fixedOpen + "0e 020c 4006 c001 00020180 4002 0002", with(func(o *open) {
			o.restart = restart{present: true, seconds: 2}
		})},
		{"restart of other families", fixedOpen + "0a 0208 4006 0001 00010280", with(func(o *open) {
			o.restart = restart{present: true, seconds: 1}
		})},
		{"RFC 9072", fixedOpen + "ff ff 0009 020006 010400020001", with(func(o *open) { o.families = families{false, true} })},
		{"RFC 9072, another short length", fixedOpen + "01 ff 0009 020006 010400020001", with(func(o *open) { o.families = families{false, true} })},
		{"RFC 9072, nothing in it", fixedOpen + "ff ff 0000", plain},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := octets(t, c.in)
			got, err := parseOpen(in)
			if err != nil || got != c.want {
				t.Fatalf("%+v, %v\nwant %+v", got, err, c.want)
			}
			for n := range in {
				if _, err := parseOpen(in[:n]); err == nil {
					t.Errorf("taken when cut to %d octets", n)
				}
			}
			if _, err := parseOpen(append(in, 0)); verdict(err) != "02/00" {
				t.Errorf("with an octet behind it: %v", err)
			}
			roundTrip(t, got)
		})
	}
}

// roundTrip writes o, and reads it with our parser and with that of the engine.
func roundTrip(t *testing.T, o open) {
	t.Helper()
	m := o.encode()
	if n, err := checkHeader(m); n != len(m) || err != nil {
		t.Fatalf("% x: %d, %v", m, n, err)
	}
	if _, err := gobgp.ParseBGPMessage(m); err != nil {
		t.Errorf("% x: the library says %v", m, err)
	}
	if again, err := parseOpen(m.body()); err != nil || again != o {
		t.Errorf("% x\nis  %+v, %v\nwas %+v", m, again, err, o)
	}
	if as, err := gobgpAS(m); err != nil || as != o.as {
		t.Errorf("% x: AS %d, %v, want %d", m, as, err, o.as)
	}
}

// gobgpAS is the AS that the library finds in an OPEN.
func gobgpAS(m message) (uint32, error) {
	parsed, err := gobgp.ParseBGPMessage(m)
	if err != nil {
		return 0, err
	}
	body := parsed.Body.(*gobgp.BGPOpen)
	as := uint32(body.MyAS)
	for _, p := range body.OptParams {
		for _, c := range p.(*gobgp.OptionParameterCapability).Capability {
			if four, ok := c.(*gobgp.CapFourOctetASNumber); ok {
				as = four.CapValue
			}
		}
	}
	return as, nil
}

func TestParseOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"too short", "04 fde9 005a 0aff0101", "01/02 001c"},
		{"version 3", "03 fde9 005a 0aff0101 00", "02/01 0004"},
		{"version 5, in another shape", "05 0000 0000 00000000 ff", "02/01 0004"},
		{"AS 0", "04 0000 005a 0aff0101 00", "02/02"},
		{"AS 0 in four octets", "04 5ba0 005a 0aff0101 08 0206 410400000000", "02/02"},
		{"AS 0 in two octets", "04 0000 005a 0aff0101 08 0206 41040000fde9", "02/02"},
		{"two AS numbers", fixedOpen + "08 0206 41040000fdea", "02/02"},
		{"hold time 1", "04 fde9 0001 0aff0101 00", "02/06"},
		{"hold time 2", "04 fde9 0002 0aff0101 00", "02/06"},
		{"identifier 0", "04 fde9 005a 00000000 00", "02/03"},
		{"authentication", fixedOpen + "03 0101 00", "02/04"},
		{"parameter 0", fixedOpen + "02 0000", "02/04"},
		{"unknown parameter behind a capability", fixedOpen + "06 0202 0200 0300", "02/04"},
		{"parameter 255 behind a capability", fixedOpen + "06 0202 0200 ff00", "02/04"},
		{"parameter 255 in RFC 9072", fixedOpen + "ff ff 0003 ff0000", "02/04"},
		{"length of parameters too small", fixedOpen + "03 0202 0200", "02/00"},
		{"length of parameters too large", fixedOpen + "05 0202 0200", "02/00"},
		{"parameters behind length 0", fixedOpen + "00 0202 0200", "02/00"},
		{"parameter without a length", fixedOpen + "01 02", "02/00"},
		{"parameter beyond the end", fixedOpen + "04 0203 0200", "02/00"},
		{"RFC 9072 without a length", fixedOpen + "ff ff 00", "02/00"},
		{"RFC 9072, length too large", fixedOpen + "ff ff 0008 020004 0200", "02/00"},
		{"RFC 9072, parameter cut", fixedOpen + "ff ff 0002 0200", "02/00"},
		{"RFC 9072, parameter too long", fixedOpen + "ff ff 0005 020003 0200", "02/00"},
		{"capability without a length", fixedOpen + "03 0201 02", "02/00"},
		{"capability beyond the parameter", fixedOpen + "04 0202 0201", "02/00"},
		{"capability beyond the parameter, into the next", fixedOpen + "08 0202 0104 0202 0001", "02/00"},
		{"multiprotocol of 3 octets", fixedOpen + "07 0205 0103 000100", "02/00"},
		{"multiprotocol of 5 octets", fixedOpen + "09 0207 0105 0001000100", "02/00"},
		{"route refresh of 1 octet", fixedOpen + "05 0203 0201 00", "02/00"},
		{"next hop of 5 octets", fixedOpen + "09 0207 0505 0001000100", "02/00"},
		{"next hop of 7 octets", fixedOpen + "0b 0209 0507 00010001000200", "02/00"},
		{"restart of nothing", fixedOpen + "04 0202 4000", "02/00"},
		{"restart of 1 octet", fixedOpen + "05 0203 4001 00", "02/00"},
		{"restart of 5 octets", fixedOpen + "09 0207 4005 0078000101", "02/00"},
		{"AS of 2 octets", fixedOpen + "06 0204 4102 fde9", "02/00"},
		{"AS of 5 octets", fixedOpen + "09 0207 4105 0000fde900", "02/00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if o, err := parseOpen(octets(t, c.in)); verdict(err) != c.want || o != (open{}) {
				t.Errorf("%s, %+v, want %s", verdict(err), o, c.want)
			}
		})
	}
}

func TestOpenCheck(t *testing.T) {
	t.Parallel()
	own := open{as: 65000, id: netip.MustParseAddr("10.255.1.2"), families: families{true, true}}
	for _, c := range []struct {
		name string
		as   uint32
		peer open
		want string
	}{
		{"external", 65001, open{as: 65001, id: own.id, families: families{true, true}}, "ok"},
		{"internal", 65000, open{as: 65000, id: netip.MustParseAddr("10.255.1.3"), families: families{false, true}}, "ok"},
		{"another AS", 65001, open{as: 65002, id: own.id, families: families{true, true}}, "02/02"},
		{"own identifier", 65000, open{as: 65000, id: own.id, families: families{true, true}}, "02/03"},
		{"no family", 65001, open{as: 65001, id: own.id}, "02/07 010400010001010400020001"},
	} {
		if got := verdict(c.peer.check(c.as, own)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	own.families = families{false, true}
	peer := open{as: 65001, id: own.id, families: families{true, false}}
	if got := verdict(peer.check(65001, own)); got != "02/07 010400020001" {
		t.Errorf("no common family: %s", got)
	}
}

func TestSetRestart(t *testing.T) {
	t.Parallel()
	m := newMessage(typeOpen, octets(t, typical))
	for _, restarting := range []bool{true, false, false, true} {
		if err := setRestart(m, restarting); err != nil {
			t.Fatal(err)
		}
		want := typicalOpen()
		want.restart.restarting = restarting
		want.restart.forwarding = families{true, true}
		if got, err := parseOpen(m.body()); err != nil || got != want {
			t.Errorf("restarting %t: %+v, %v", restarting, got, err)
		}
	}
	// Every other octet is as it was.
	was := newMessage(typeOpen, octets(t, typical))
	changed := 0
	for i := range m {
		if m[i] != was[i] {
			changed++
		}
	}
	if changed != 2 {
		t.Errorf("%d octets differ", changed)
	}

	none := open{as: 1, id: netip.MustParseAddr("10.255.1.1"), families: families{true, true}}.encode()
	was = bytes.Clone(none)
	if err := setRestart(none, true); err != nil || !bytes.Equal(none, was) {
		t.Errorf("without the capability: % x, %v", none, err)
	}
	odd := newMessage(typeOpen, octets(t, fixedOpen+"05 0203 4001 00"))
	if err := setRestart(odd, true); verdict(err) != "02/00" {
		t.Errorf("restart of 1 octet: %v", err)
	}
	for n := range len(m) - headerLen {
		if err := setRestart(bytes.Clone(m[:headerLen+n]), true); err == nil {
			t.Errorf("taken when cut to %d octets", n)
		}
	}
}

// The engine's own OPEN is what setRestart is for.
func TestSetRestartOfTheEngine(t *testing.T) {
	t.Parallel()
	tuples := []*gobgp.CapGracefulRestartTuple{
		gobgp.NewCapGracefulRestartTuple(gobgp.RF_IPv4_UC, false),
		gobgp.NewCapGracefulRestartTuple(gobgp.RF_IPv6_UC, false),
	}
	parameters := gobgp.NewOptionParameterCapability([]gobgp.ParameterCapabilityInterface{
		gobgp.NewCapMultiProtocol(gobgp.RF_IPv6_UC),
		gobgp.NewCapGracefulRestart(false, true, 30, tuples),
		gobgp.NewCapFourOctetASNumber(4200000001),
	})
	b, err := gobgp.NewBGPOpenMessage(asTrans, 9, "10.255.1.1", []gobgp.OptionParameterInterface{parameters}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	m := message(b)
	if err := setRestart(m, true); err != nil {
		t.Fatal(err)
	}
	want := open{
		as: 4200000001, fourOctet: true, hold: 9, id: netip.MustParseAddr("10.255.1.1"), families: families{false, true},
		restart: restart{true, true, true, 30, families{true, true}, families{true, true}},
	}
	if got, err := parseOpen(m.body()); err != nil || got != want {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
}

func FuzzParseOpen(f *testing.F) {
	f.Add(octets(f, typical))
	f.Add(octets(f, fixedOpen+"00"))
	f.Add(octets(f, fixedOpen+"ff ff 0009 020006 010400020001"))
	f.Add(octets(f, fixedOpen+"0e 020c 4006 c001 00020180 4002 0002"))
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := parseOpen(body)
		if err != nil {
			if got := verdict(err); got == err.Error() || o != (open{}) {
				t.Errorf("%+v, %s", o, got)
			}
			return
		}
		if o.as == 0 || o.hold == 1 || o.hold == 2 || !o.id.Is4() || o.id.IsUnspecified() {
			t.Errorf("%+v", o)
		}
		for family, on := range o.restart.forwarding {
			if on && !o.restart.families[family] {
				t.Errorf("forwarding of %v alone", steering.Family(family))
			}
		}
		roundTrip(t, o)
		if err := setRestart(newMessage(typeOpen, body), true); err != nil {
			t.Errorf("a good OPEN is refused: %v", err)
		}
	})
}
