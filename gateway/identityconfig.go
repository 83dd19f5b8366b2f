package gateway

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/upstreams"
)

// IdentityConfig are the settings of who a gateway is. All may be empty: see Identify.
type IdentityConfig struct {
	// AS is a number, or "auto".
	AS string
	// ASTemplate makes the AS out of the host name: digits, and "{rack:4}" for what the
	// group "rack" of HostPattern matched, filled up with zeros to 4 digits.
	ASTemplate string
	// HostPattern is a regular expression with named groups, such as
	// "^r(?P<rack>[0-9]+)h(?P<host>[0-9]+)".
	HostPattern string
	// RouterID is an IPv4 address, or "auto".
	RouterID string
	// Node is the /64 of this node, or "auto".
	Node string
	// Links are the interfaces to the peers.
	Links []string
	// Anycast are prefixes that others have as well: they say nothing of this host.
	Anycast []netip.Prefix
}

// Check lists what is wrong with the settings; keys are paths below section.
func (c IdentityConfig) Check(section string) []upstreams.Defect {
	_, defects := c.parse(section)
	return defects
}

// rules are an IdentityConfig that was understood.
type rules struct {
	section  string
	as       uint32         // 0: derived
	template string         // with pattern; else empty
	pattern  *regexp.Regexp // has every group of template
	routerID netip.Addr     // zero: derived
	node     netip.Prefix   // zero: found
}

func (c IdentityConfig) parse(section string) (rules, []upstreams.Defect) {
	r := rules{section: section}
	var out []upstreams.Defect
	bad := func(key, member, reason, want string) {
		out = append(out, upstreams.Defect{Key: section + "." + key, Member: member, Reason: reason, Want: want})
	}
	if given(c.AS) {
		if r.as = parseAS(c.AS); r.as == 0 {
			bad("as", c.AS, "not the number of an AS", `auto, or a number such as "4200000001"`)
		}
	}
	if given(c.RouterID) {
		var err error
		if r.routerID, err = netip.ParseAddr(c.RouterID); err != nil || !isRouterID(r.routerID) {
			bad("router_id", c.RouterID, "not a router ID", `auto, or a unicast IPv4 address such as "192.0.2.1"`)
		}
	}
	if given(c.Node) {
		var err error
		if r.node, err = netip.ParsePrefix(c.Node); err != nil || !isNode(r.node) {
			bad("node", c.Node, "not the /64 of a node", `auto, or one such as "2001:db8:0:12::/64"`)
		}
	}
	return r, append(out, r.parseTemplate(c)...)
}

// given tells whether a setting is not left to be derived.
func given(value string) bool { return value != "" && value != "auto" }

// parseAS is 0 for what is no number that a speaker may have.
func parseAS(text string) uint32 {
	n, _ := bgp.ParseAS(text)
	return n
}

func isNode(p netip.Prefix) bool {
	return p.Addr().Is6() && p.Addr().IsGlobalUnicast() && !p.Addr().Is4In6() && p.Bits() == 64 && p == p.Masked()
}

// placeholder is a group in a template, with the number of digits that it has.
var placeholder = regexp.MustCompile(`\{(\w+)(?::([1-9]))?\}`)

const wantTemplate = `digits and groups of host_pattern, such as "42{rack:4}{host:4}"`

func (r *rules) parseTemplate(c IdentityConfig) []upstreams.Defect {
	key, patternKey := r.section+".as_template", r.section+".host_pattern"
	switch {
	case c.ASTemplate == "" && c.HostPattern == "":
		return nil
	case c.ASTemplate == "":
		return []upstreams.Defect{{Key: patternKey, Member: c.HostPattern, Reason: "nothing uses it", Want: "as_template, or no such key"}}
	case given(c.AS):
		return []upstreams.Defect{{Key: key, Member: c.ASTemplate, Reason: "the AS is given", Want: "as: auto, or no such key"}}
	case strings.Trim(placeholder.ReplaceAllString(c.ASTemplate, ""), "0123456789") != "":
		return []upstreams.Defect{{Key: key, Member: c.ASTemplate, Reason: "not a template", Want: wantTemplate}}
	}
	pattern, err := regexp.Compile(c.HostPattern)
	if err != nil {
		return []upstreams.Defect{{Key: patternKey, Member: c.HostPattern, Reason: err.Error(), Want: `a regular expression such as "^r(?P<rack>[0-9]+)h(?P<host>[0-9]+)"`}}
	}
	for _, m := range placeholder.FindAllStringSubmatch(c.ASTemplate, -1) {
		if pattern.SubexpIndex(m[1]) < 0 {
			return []upstreams.Defect{{Key: key, Member: c.ASTemplate, Reason: "host_pattern has no group " + m[1], Want: wantTemplate}}
		}
	}
	r.template, r.pattern = c.ASTemplate, pattern
	return nil
}

// fill is the AS that the template makes of a host name.
func (r rules) fill(host string) (uint32, error) {
	match := r.pattern.FindStringSubmatch(host)
	if match == nil {
		return 0, upstreams.Defect{Key: r.section + ".host_pattern", Member: r.pattern.String(), Reason: fmt.Sprintf("does not match the host name %q", host), Want: "a pattern that does"}
	}
	bad := func(reason string) error {
		return upstreams.Defect{Key: r.section + ".as_template", Member: r.template, Reason: fmt.Sprintf("of the host name %q: %s", host, reason), Want: "a private AS: 64512 to 65534, or 4200000000 to 4294967294"}
	}
	var wrong error
	text := placeholder.ReplaceAllStringFunc(r.template, func(group string) string {
		p := placeholder.FindStringSubmatch(group)
		value := match[r.pattern.SubexpIndex(p[1])]
		n, err := strconv.ParseUint(value, 10, 32)
		digits := strconv.FormatUint(n, 10)
		width, _ := strconv.Atoi(p[2])
		switch {
		case err != nil:
			wrong = bad(fmt.Sprintf("%s is %q, not a number", p[1], value))
		case width > 0 && len(digits) > width:
			wrong = bad(fmt.Sprintf("%s is %d, of more than %d digits", p[1], n, width))
		}
		return strings.Repeat("0", max(0, width-len(digits))) + digits
	})
	if wrong != nil {
		return 0, wrong
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || !isPrivateAS(n) {
		return 0, bad("the AS is " + text)
	}
	return uint32(n), nil
}

func isPrivateAS(n uint64) bool {
	return firstPrivate2 <= n && n <= lastPrivate2 || firstPrivate4 <= n && n <= lastPrivate4
}
