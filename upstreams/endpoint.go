package upstreams

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Endpoint is a member of an upstream list: where an application can be reached.
type Endpoint struct {
	Addr   netip.AddrPort
	Weight uint16     // share of new flows against its neighbours; 1 where not given, 0 takes none
	SID    netip.Addr // SRv6 SID of the backend (RFC 8986); invalid where not given
	Site   string     // "" where not given
}

// String is the endpoint as it is written in Redis.
func (e Endpoint) String() string {
	s := e.Addr.String()
	if e.Weight != 1 {
		s += " weight=" + strconv.Itoa(int(e.Weight))
	}
	if e.SID.IsValid() {
		s += " sid=" + e.SID.String()
	}
	if e.Site != "" {
		s += " site=" + e.Site
	}
	return s
}

// MarshalText is String, for JSON.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

const endpointWant = "an address and port such as [2001:db8::1]:8080, with weight=, sid= and site= behind it"

// errWeight takes the whole endpoint out: one that should take no flows must not
// get some by a slip.
var errWeight = errors.New("bad weight")

// endpoints reads the members of an UPSTREAMS set. A bad attribute but the weight
// is left out of its endpoint; of two members for one address the first in the order of their
// text counts.
func (p *parser) endpoints(set []string) []Endpoint {
	type member struct {
		Endpoint
		text string
	}
	members := make([]member, 0, len(set))
	sites := map[string]string{} // one string for each site
	for _, text := range set {
		e, ok := p.endpoint(text)
		if !ok {
			continue
		}
		if s, ok := sites[e.Site]; ok {
			e.Site = s
		} else {
			e.Site = strings.Clone(e.Site)
			sites[e.Site] = e.Site
		}
		members = append(members, member{e, text})
	}
	slices.SortStableFunc(p.defects, func(a, b Defect) int { return strings.Compare(a.Member, b.Member) })
	// Once, by both: sorting is most of the work on a large list.
	slices.SortFunc(members, func(a, b member) int {
		if c := a.Addr.Compare(b.Addr); c != 0 {
			return c
		}
		return strings.Compare(a.text, b.text)
	})
	out := make([]Endpoint, 0, len(members))
	for i, m := range members {
		if i > 0 && m.Addr == members[i-1].Addr {
			p.bad(m.String(), "another endpoint with the address "+m.Addr.String(), "one member for each address")
			continue
		}
		out = append(out, m.Endpoint)
	}
	return out
}

// endpoint reads one member; false where it cannot be used.
func (p *parser) endpoint(text string) (Endpoint, bool) {
	word, attributes := splitWord(text)
	if word == "" {
		p.bad(text, "empty", endpointWant)
		return Endpoint{}, false
	}
	addr, err := parseAddrPort(word)
	if err != nil {
		p.bad(text, err.Error(), endpointWant)
		return Endpoint{}, false
	}
	e := Endpoint{Addr: addr, Weight: 1}
	err = p.attributes(text, attributes, "weight=0 to 65535, sid= an IPv6 address, site= a name", e.Set)
	return e, !errors.Is(err, errWeight)
}

// parseAddrPort reads address and port in the forms of ParseMember; an IPv6
// address is in brackets.
func parseAddrPort(text string) (netip.AddrPort, error) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return netip.AddrPort{}, errors.New("no port")
	}
	host, port := text[:i], text[i+1:]
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		return netip.AddrPort{}, errors.New("IPv6 address without brackets")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '+' {
		return netip.AddrPort{}, errors.New("bad port")
	}
	host, err = unbracket(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return netip.AddrPort{}, errors.New(reasonOf(err, host))
	case a.Zone() != "":
		return netip.AddrPort{}, errors.New("zone identifier")
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

// Set reads one attribute, key=value. One that cannot be used leaves e as it is.
func (e *Endpoint) Set(attribute string) error {
	key, text, ok := strings.Cut(attribute, "=")
	switch {
	case !ok:
		return errNotPair
	case key == "weight":
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return errWeight
		}
		e.Weight = uint16(n)
	case key == "sid":
		a, err := netip.ParseAddr(text)
		if err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" {
			return errors.New("not an IPv6 address")
		}
		e.SID = a
	case key == "site":
		if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return errors.New("not one word")
		}
		e.Site = text
	default:
		return errAttribute
	}
	return nil
}
