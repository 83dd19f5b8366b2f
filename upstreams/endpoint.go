package upstreams

import (
	"cmp"
	"encoding/binary"
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

// endpointAttributes are the keys of an endpoint's attributes.
var endpointAttributes = []string{"weight", "sid", "site"}

var errTwice = errors.New("given twice")

// endpoints reads the members of an UPSTREAMS set. A bad attribute is left out of
// its endpoint, and of two with one key the second. A bad weight leaves out the
// endpoint: one that should take no flows must not get some by a slip. Of two
// members for one address the first in the order of their text counts.
func (p *parser) endpoints(set []string) []Endpoint {
	read := make([]Endpoint, 0, len(set))
	texts := make([]string, 0, len(set))
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
		read, texts = append(read, e), append(texts, text)
	}
	slices.SortStableFunc(p.defects, func(a, b Defect) int { return strings.Compare(a.Member, b.Member) })
	out := make([]Endpoint, 0, len(read))
	used := "" // text of the last one
	for _, k := range sorted(read, texts) {
		e := read[k.at]
		if n := len(out); n > 0 && e.Addr == out[n-1].Addr {
			p.bad(texts[k.at], "the same address as "+used, "one member for each address")
			continue
		}
		out, used = append(out, e), texts[k.at]
	}
	return out
}

// sortKey is an endpoint's place in the order of netip.AddrPort, in a form that is
// quick to compare and to move: sorting is most of the work on a large list.
type sortKey struct {
	high, low uint64 // of an IPv6 address; an IPv4 address is low
	rank      uint32 // port, and above it whether it is IPv6
	at        int32  // index of the endpoint
}

// sorted is the order of endpoints, those of one address by their text.
func sorted(list []Endpoint, texts []string) []sortKey {
	keys := make([]sortKey, len(list))
	for i, e := range list {
		b := e.Addr.Addr().As16()
		k := sortKey{high: binary.BigEndian.Uint64(b[:8]), low: binary.BigEndian.Uint64(b[8:]), rank: uint32(e.Addr.Port()), at: int32(i)}
		if e.Addr.Addr().Is6() {
			k.rank |= 1 << 16
		}
		keys[i] = k
	}
	slices.SortFunc(keys, func(a, b sortKey) int {
		switch {
		case a.rank>>16 != b.rank>>16:
			return cmp.Compare(a.rank, b.rank)
		case a.high != b.high:
			return cmp.Compare(a.high, b.high)
		case a.low != b.low:
			return cmp.Compare(a.low, b.low)
		case a.rank != b.rank:
			return cmp.Compare(a.rank, b.rank)
		}
		return strings.Compare(texts[a.at], texts[b.at])
	})
	return keys
}

// endpoint reads one member; false where it cannot be used.
func (p *parser) endpoint(text string) (e Endpoint, ok bool) {
	word, attributes := splitWord(text)
	if word == "" {
		p.bad(text, "empty", endpointWant)
		return e, false
	}
	var err error
	if e.Addr, err = parseAddrPort(word); err != nil {
		p.bad(text, err.Error(), endpointWant)
		return e, false
	}
	e.Weight, ok = 1, true
	var seen [3]bool                               // of endpointAttributes
	for a := range strings.FieldsSeq(attributes) { // p.attributes would put every endpoint on the heap
		key, _, _ := strings.Cut(a, "=")
		i := slices.Index(endpointAttributes, key)
		err := errTwice
		if i < 0 || !seen[i] {
			err = e.Set(a)
		}
		if i >= 0 {
			seen[i] = true
		}
		if err != nil {
			p.bad(text, a+": "+err.Error(), "weight=0 to 65535, sid= an IPv6 address, site= a name, each once")
			ok = ok && key != "weight"
		}
	}
	return e, ok
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
			return errors.New("bad weight")
		}
		e.Weight = uint16(n)
	case key == "sid":
		text, err := unbracket(text)
		if err != nil {
			return err
		}
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
