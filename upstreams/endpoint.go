package upstreams

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
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

// Source is who owns an upstream list.
type Source string

// The values of source in META.
const (
	SourceOperator Source = "operator" // the Consul sync never touches the list
	SourceConsul   Source = "consul"
)

// Upstream is the list of an application, `<app>:UPSTREAMS` and its META.
type Upstream struct {
	Endpoints []Endpoint // by address and port, each once
	Source    Source     // "" where META does not say
	Index     uint64     // of Consul, when the list was written
	Updated   time.Time  // zero where META does not say
}

// equal tells whether two upstreams say the same, META included.
func (u *Upstream) equal(old *Upstream) bool {
	return u.sameList(old) && u.Source == old.Source && u.Index == old.Index && u.Updated.Equal(old.Updated)
}

// sameList tells whether two upstreams have the same endpoints. Where one was made
// of the other that is seen without looking at them.
func (u *Upstream) sameList(old *Upstream) bool {
	if old == nil || len(u.Endpoints) != len(old.Endpoints) {
		return false
	}
	return len(u.Endpoints) == 0 || &u.Endpoints[0] == &old.Endpoints[0] || slices.Equal(u.Endpoints, old.Endpoints)
}

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
func (p *parser) endpoint(text string) (e Endpoint, ok bool) {
	e.Weight = 1
	for f := range strings.FieldsSeq(text) {
		if !e.Addr.IsValid() {
			addr, err := parseAddrPort(f)
			if err != nil {
				p.bad(text, err.Error(), endpointWant)
				return e, false
			}
			e.Addr, ok = addr, true
			continue
		}
		if err := e.set(f); err != nil {
			p.bad(text, f+": "+err.Error(), "weight=0 to 65535, sid= an IPv6 address, site= a name")
			ok = ok && !errors.Is(err, errWeight)
		}
	}
	if !e.Addr.IsValid() {
		p.bad(text, "empty", endpointWant)
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

// set reads one attribute.
func (e *Endpoint) set(attribute string) error {
	key, text, ok := strings.Cut(attribute, "=")
	switch {
	case !ok:
		return errors.New("not key=value")
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
		if text == "" {
			return errors.New("empty")
		}
		e.Site = text
	default:
		return errors.New("unknown attribute")
	}
	return nil
}

// meta is an UPSTREAMS:META hash.
type meta struct {
	source  Source
	index   uint64
	updated time.Time
	fields  map[string]string // the usable fields as they were written
}

func (p *parser) meta(hash map[string]string) *meta {
	m := &meta{fields: map[string]string{}}
	for field, text := range hash {
		var err error
		switch field {
		case "source":
			if m.source = Source(text); m.source != SourceConsul && m.source != SourceOperator {
				m.source, err = "", errors.New("unknown")
			}
		case "index":
			m.index, err = strconv.ParseUint(text, 10, 64)
		case "updated":
			m.updated, err = time.Parse(time.RFC3339, text)
		default:
			err = errors.New("unknown field")
		}
		if err != nil {
			p.bad(field+" "+text, "cannot be used", "source consul or operator, index a number, updated a time as 2006-01-02T15:04:05Z")
			continue
		}
		m.fields[field] = text
	}
	return m
}
