package upstreams

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/razor-steering/razor/steering"
)

// ParseMember reads an address or prefix of a pool or skip list of family f. A
// full-length prefix is an address; host bits are cleared. Understood are
// brackets, any case, leading zeros in the groups of IPv6, and IPv4-mapped
// IPv6 (RFC 4291 §2.5.5.2) where f is IPv4. The error says what is wrong, in a
// few words and without the member.
func ParseMember(f steering.Family, text string) (netip.Prefix, error) {
	addr, length, isPrefix := strings.Cut(text, "/")
	addr, err := unbracket(addr)
	if err != nil {
		return netip.Prefix{}, err
	}
	a, err := netip.ParseAddr(addr)
	switch {
	case err != nil:
		return netip.Prefix{}, errors.New(reasonOf(err, addr))
	case a.Zone() != "":
		return netip.Prefix{}, errors.New("zone identifier")
	}
	bits := a.BitLen()
	if isPrefix {
		if strings.Contains(length, "/") {
			return netip.Prefix{}, errors.New("more than one slash")
		}
		// ParsePrefix knows which lengths are well written.
		whole := a.String() + "/" + length
		p, err := netip.ParsePrefix(whole)
		if err != nil {
			return netip.Prefix{}, errors.New(reasonOf(err, whole))
		}
		bits = p.Bits()
	}
	return inFamily(f, a, bits)
}

func unbracket(s string) (string, error) {
	if !strings.HasPrefix(s, "[") {
		return s, nil
	}
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return "", errors.New("bracket not closed")
	}
	if !strings.Contains(inner, ":") {
		return "", errors.New("brackets around something that is not IPv6")
	}
	return inner, nil
}

func inFamily(f steering.Family, a netip.Addr, bits int) (netip.Prefix, error) {
	if a.Is4In6() {
		if f == steering.IPv6 {
			return netip.Prefix{}, errors.New("IPv4-mapped address among IPv6")
		}
		if bits < 96 {
			return netip.Prefix{}, errors.New("prefix wider than the IPv4-mapped addresses")
		}
		a, bits = a.Unmap(), bits-96
	}
	if steering.FamilyOf(a) != f {
		return netip.Prefix{}, errors.New(steering.FamilyOf(a).String() + " among " + f.String())
	}
	return netip.PrefixFrom(a, bits).Masked(), nil
}

// reasonOf is what a netip error says after the quotation of its input.
func reasonOf(err error, input string) string {
	s := err.Error()
	if _, reason, ok := strings.Cut(s, strconv.Quote(input)+"): "); ok {
		s = reason
	}
	// The position's rest is quoted input, which the reader of the error has.
	s, _, _ = strings.Cut(s, ` (at "`)
	return s
}

// MemberText writes an address without its length, a prefix with it (RFC 5952).
func MemberText(m netip.Prefix) string {
	if m.IsSingleIP() {
		return m.Addr().String()
	}
	return m.String()
}
