package hostile

import (
	"fmt"
	"slices"
)

// knownCapabilities are the codes that a speaker may look into.
var knownCapabilities = []byte{1, 2, 3, 5, 6, 7, 8, 9, 64, 65, 67, 68, 69, 70, 71, 73, 75, 128, 131}

// opens are OPENs, sent at once.
func (c *cases) opens() {
	typical := parameter(2, capabilities())
	add := func(name string, b []byte) { c.add(OpenSent, "OPEN: "+name, b) }
	for _, version := range []int{0, 1, 3, 5, 255} {
		add(fmt.Sprintf("version %d", version), message(typeOpen, openBody(version, AS, Hold, ID, len(typical), typical)))
	}
	for _, as := range []int{0, 1, 23456, 65535} {
		add(fmt.Sprintf("AS %d", as), message(typeOpen, openBody(4, as, Hold, ID, 0, nil)))
	}
	for _, hold := range []int{1, 2} {
		add(fmt.Sprintf("hold time %d", hold), open(hold, typical))
	}
	add("identifier 0.0.0.0", message(typeOpen, openBody(4, AS, Hold, "0.0.0.0", len(typical), typical)))
	for n := range 256 {
		if n < 5 || n > 250 || n != len(typical) && n/2 == len(typical)/2 {
			add(fmt.Sprintf("%d octets of parameters, %d said", len(typical), n), message(typeOpen, openBody(4, AS, Hold, ID, n, typical)))
		}
	}
	whole := open(Hold, typical)[headerLen:]
	for n := 10; n < len(whole); n++ {
		add(fmt.Sprintf("cut at %d octets", n), message(typeOpen, whole[:n]))
		if n > 10 { // the length of the parameters fits, what is in them does not
			cut := typical[:n-10]
			add(fmt.Sprintf("parameters cut at %d octets", len(cut)), message(typeOpen, openBody(4, AS, Hold, ID, len(cut), cut)))
		}
	}
	c.parameters()
	c.capabilities()
}

// parameters are OPENs with odd optional parameters.
func (c *cases) parameters() {
	add := func(name string, b []byte) { c.add(OpenSent, "OPEN: "+name, b) }
	for typ := range 256 {
		if typ != 2 {
			add(fmt.Sprintf("parameter %d", typ), open(Hold, parameter(byte(typ), []byte{0, 0})))
		}
	}
	add("255 octets of empty parameters", open(Hold, slices.Repeat([]byte{2, 0}, 127)))
	wide := func(n int, b []byte) []byte {
		return message(typeOpen, openBody(4, AS, Hold, ID, 255, slices.Concat([]byte{255}, u16(n), b)))
	}
	typical := slices.Concat([]byte{2}, u16(len(capabilities())), capabilities())
	add("extended length 0", wide(0, nil))
	add("extended length without a length", message(typeOpen, openBody(4, AS, Hold, ID, 255, []byte{255, 0})))
	for n := range len(typical) + 3 {
		if n != len(typical) {
			add(fmt.Sprintf("extended length of %d for %d", n, len(typical)), wide(n, typical))
		}
	}
	for n := range typical {
		add(fmt.Sprintf("extended length, cut at %d", n), wide(n, typical[:n]))
	}
	add("extended length of 65535", wide(65535, typical))
	add("extended parameter of 65535", wide(3, []byte{2, 255, 255}))
	add("extended length in the extended ones", wide(3, []byte{255, 0, 0}))
	large := capability(251, zeros(255))
	large = slices.Repeat(large, 15)
	add("4,000 octets of parameters", wide(3+len(large), slices.Concat([]byte{2}, u16(len(large)), large)))
}

// capabilities are OPENs with odd capabilities beside sound ones.
func (c *cases) capabilities() {
	with := func(extra []byte) []byte { return open(Hold, parameter(2, capabilities(), extra)) }
	for _, code := range knownCapabilities {
		for n := range 10 {
			c.add(OpenSent, fmt.Sprintf("OPEN: capability %d of %d zeros", code, n), with(capability(code, zeros(n))))
			c.add(OpenSent, fmt.Sprintf("OPEN: capability %d of %d ones", code, n), with(capability(code, slices.Repeat([]byte{255}, n))))
		}
		c.add(OpenSent, fmt.Sprintf("OPEN: capability %d beyond the end", code), with([]byte{code, 4, 0}))
		c.add(OpenSent, fmt.Sprintf("OPEN: capability %d, length 255", code), with([]byte{code, 255}))
		c.add(OpenSent, fmt.Sprintf("OPEN: capability %d without a length", code), with([]byte{code}))
	}
	for _, n := range []int{0, 1, 60} {
		for _, first := range []int{10, 140, 200} {
			var unknown []byte
			for code := first; code < first+50 && len(unknown)+2+n < 200; code++ {
				unknown = append(unknown, capability(byte(code), zeros(n))...)
			}
			c.survivor(OpenSent, fmt.Sprintf("OPEN: unknown capabilities from %d of %d octets", first, n), with(unknown))
		}
	}
	c.survivor(OpenSent, "OPEN: all capabilities twice", with(capabilities()))
	c.survivor(OpenSent, "OPEN: each in a parameter", open(Hold, slices.Concat(
		parameter(2, capability(1, []byte{0, 1, 0, 1})), parameter(2, capability(1, []byte{0, 2, 0, 1})),
		parameter(2), parameter(2, capability(65, u16(0), u16(AS))))))
	var many []byte
	for _, f := range families {
		many = append(many, capability(1, u16(f.afi), []byte{0, f.safi})...)
	}
	c.survivor(OpenSent, "OPEN: families that nobody speaks", with(many))
}
