package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

var (
	errNotAS        = errors.New("not the number of an AS")
	errNotAddress   = errors.New("not the address of a peer")
	errZone         = errors.New("link-local without its interface, or an interface that does not belong there")
	errNotCommunity = errors.New("not a community")
	errNotPassword  = errors.New("not a password")
)

// Route is a prefix to announce with its attributes. The next hop is the address
// of the session's own end.
type Route struct {
	Prefix      netip.Prefix      `json:"prefix"`
	Communities []Community       `json:"communities,omitempty"`
	Large       []LargeCommunity  `json:"large,omitempty"`
	MED         *uint32           `json:"med,omitempty"` // none when nil
	PeerMED     map[string]uint32 `json:"-"`             // of single peers, by name
	Prepend     int               `json:"prepend,omitempty"`
	Blackhole   bool              `json:"-"` // only for peers that take it
	// Lowered has any other route preferred: at peers of another AS by a longer path,
	// at those of ours by the least local preference.
	Lowered   bool    `json:"-"`
	LocalPref *uint32 `json:"local_pref,omitempty"` // for peers of our AS; 100 when nil
}

// Community is one of RFC 1997: AS and value, 16 bits each.
type Community uint32

// Well-known communities.
const (
	GracefulShutdown Community = 0xFFFF0000 // RFC 8326
	BlackholeRoute   Community = 0xFFFF029A // RFC 7999
	NoExport         Community = 0xFFFFFF01
	NoAdvertise      Community = 0xFFFFFF02
	NoExportSubAS    Community = 0xFFFFFF03
)

var wellKnown = map[string]Community{
	"graceful-shutdown": GracefulShutdown, "blackhole": BlackholeRoute,
	"no-export": NoExport, "no-advertise": NoAdvertise, "no-export-subconfed": NoExportSubAS,
}

// String is the community as operators write it.
func (c Community) String() string {
	for name, known := range wellKnown {
		if c == known {
			return name
		}
	}
	return strconv.Itoa(int(c>>16)) + ":" + strconv.Itoa(int(c&0xFFFF))
}

// LargeCommunity is one of RFC 8092: administrator and two values, 32 bits each.
type LargeCommunity [3]uint32

// ParseCommunity reads "65000:100" or the name of a well-known one.
func ParseCommunity(text string) (Community, error) {
	if c, ok := wellKnown[strings.ToLower(text)]; ok {
		return c, nil
	}
	parts, err := numbers(text, 2, 16)
	if err != nil {
		return 0, err
	}
	return Community(parts[0]<<16 | parts[1]), nil
}

// ParseLargeCommunity reads "4200000000:1:2".
func ParseLargeCommunity(text string) (LargeCommunity, error) {
	parts, err := numbers(text, 3, 32)
	if err != nil {
		return LargeCommunity{}, err
	}
	return LargeCommunity(parts), nil
}

func numbers(text string, n, bits int) ([]uint32, error) {
	words := strings.Split(text, ":")
	if len(words) != n {
		return nil, errNotCommunity
	}
	out := make([]uint32, n)
	for i, word := range words {
		v, err := strconv.ParseUint(word, 10, bits)
		if err != nil {
			return nil, errNotCommunity
		}
		out[i] = uint32(v)
	}
	return out, nil
}

// Equal tells whether two routes are the same to every peer.
func (r Route) Equal(s Route) bool {
	return r.equal(s) && r.Blackhole == s.Blackhole && r.Lowered == s.Lowered && maps.Equal(r.PeerMED, s.PeerMED)
}

// equal tells whether two routes look the same on the wire.
func (r Route) equal(s Route) bool {
	return r.Prefix == s.Prefix && r.Prepend == s.Prepend && slices.Equal(r.Communities, s.Communities) &&
		slices.Equal(r.Large, s.Large) && sameNumber(r.MED, s.MED) && sameNumber(r.LocalPref, s.LocalPref)
}

func sameNumber(a, b *uint32) bool { return (a == nil) == (b == nil) && (a == nil || *a == *b) }

// sortRoutes orders routes by prefix, of one prefix a blackhole first.
func sortRoutes(routes []Route) {
	slices.SortStableFunc(routes, func(a, b Route) int {
		c := ComparePrefixes(a.Prefix, b.Prefix)
		if c == 0 && a.Blackhole != b.Blackhole {
			c = 1
			if a.Blackhole {
				c = -1
			}
		}
		return c
	})
}

// ComparePrefixes orders prefixes by address, then length.
func ComparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// change is how one list of routes becomes another.
type change struct {
	Announce []Route        `json:"announce,omitempty"`
	Withdraw []netip.Prefix `json:"withdraw,omitempty"`
}

func (c change) empty() bool { return len(c.Announce)+len(c.Withdraw) == 0 }

// changeOf is the change from one list to another; both are sorted.
func changeOf(from, to []Route) change {
	var c change
	for len(from)+len(to) > 0 {
		switch order := compareFirst(from, to); {
		case order < 0:
			c.Withdraw = append(c.Withdraw, from[0].Prefix)
			from = from[1:]
		case order > 0:
			c.Announce = append(c.Announce, to[0])
			to = to[1:]
		default:
			if !from[0].equal(to[0]) {
				c.Announce = append(c.Announce, to[0])
			}
			from, to = from[1:], to[1:]
		}
	}
	return c
}

func compareFirst(a, b []Route) int {
	switch {
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return ComparePrefixes(a[0].Prefix, b[0].Prefix)
}

// String is the attributes of a route in words, each after a space.
func (r Route) String() string {
	var b strings.Builder
	for _, c := range r.Communities {
		b.WriteString(" " + c.String())
	}
	for _, l := range r.Large {
		fmt.Fprintf(&b, " %d:%d:%d", l[0], l[1], l[2])
	}
	if r.MED != nil {
		fmt.Fprintf(&b, " med=%d", *r.MED)
	}
	for _, name := range slices.Sorted(maps.Keys(r.PeerMED)) {
		fmt.Fprintf(&b, " med(%s)=%d", name, r.PeerMED[name])
	}
	if r.Prepend > 0 {
		fmt.Fprintf(&b, " prepend=%d", r.Prepend)
	}
	if r.Lowered {
		b.WriteString(" lowered")
	}
	return b.String()
}
