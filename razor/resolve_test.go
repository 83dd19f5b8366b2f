package razor

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// members of the pools that are hashed.
var (
	pool4 = numbered("198.18.0.1", 16)
	pool6 = numbered("2001:db8:5::1", 16)
)

// TestSticky holds names that are stuck to a route to it in each mode, and what
// the route lacks to what the mode says.
func TestSticky(t *testing.T) {
	t.Parallel()
	modes := []string{"random", "consistent_hash", "group_consistent_hash", "geoip"}
	s := newServer(fixed{snapshotOf(t, func(s *upstreams.Embedded) {
		for _, mode := range modes {
			zone := mode + ".test"
			zoneConfig(s, zone, "ANSWER", mode)
			set(t, s, zone+":A", "192.0.2.1")
			set(t, s, zone+":AAAA", "2001:db8::1")
			setString(t, s, "shop."+zone, "pinned.example")
			setString(t, s, "away."+zone, "skipped.example")
			// In upper case and with a final dot, as people write.
			setString(t, s, "Loud."+zone, "PINNED.example.")
			setString(t, s, "own."+zone, "pinned.example")
			set(t, s, "own."+zone+":AAAA", "2001:db8::2")
			set(t, s, zone+":A:SKIPLIST", "192.0.2.66")
		}
		set(t, s, "pinned.example:A", "192.0.2.5")
		set(t, s, "pinned.example:GROUPS", "pinned.example")
		set(t, s, "skipped.example:A", "192.0.2.66")
	})})
	c := newClient(t, s)
	for _, mode := range modes {
		zone := mode + ".test"
		nodata := "NOERROR aa (" + soaOf(zone, "30") + ")"
		at := func(n, data string) string { return "NOERROR aa " + n + ". 60 " + data }
		wants := map[[2]string]string{
			{"shop." + zone, "A"}:    at("shop."+zone, "A 192.0.2.5"),
			{"ShOp." + zone, "A"}:    at("ShOp."+zone, "A 192.0.2.5"),
			{"loud." + zone, "A"}:    at("loud."+zone, "A 192.0.2.5"),
			{"own." + zone, "A"}:     at("own."+zone, "A 192.0.2.5"),
			{"shop." + zone, "AAAA"}: nodata,
			{"away." + zone, "A"}:    nodata,
			{"own." + zone, "AAAA"}:  at("own."+zone, "AAAA 2001:db8::2"),
			{"x.shop." + zone, "A"}:  "NXDOMAIN aa (" + soaOf(zone, "30") + ")",
			{"other." + zone, "A"}:   "NXDOMAIN aa (" + soaOf(zone, "30") + ")",
		}
		if mode == "geoip" { // every name is there, and falls back on the zone's pool
			wants[[2]string{"shop." + zone, "AAAA"}] = at("shop."+zone, "AAAA 2001:db8::1")
			wants[[2]string{"away." + zone, "A"}] = at("away."+zone, "A 192.0.2.1")
			wants[[2]string{"own." + zone, "AAAA"}] = at("own."+zone, "AAAA 2001:db8::1")
			wants[[2]string{"x.shop." + zone, "A"}] = at("x.shop."+zone, "A 192.0.2.1")
			wants[[2]string{"other." + zone, "A"}] = at("other."+zone, "A 192.0.2.1")
		}
		if mode == "group_consistent_hash" { // a route's own pool is none of its groups'
			wants[[2]string{"own." + zone, "AAAA"}] = at("own."+zone, "AAAA 2001:db8::2")
		}
		for q, want := range wants {
			if got := outcome(c.ask(q[0], dns.StringToType[q[1]])); got != want {
				t.Errorf("%v:\n got %s\nwant %s", q, got, want)
			}
		}
	}
}

// hashed writes a zone for each way of answering.
func hashed(tb testing.TB) fill {
	return func(s *upstreams.Embedded) {
		zoneConfig(s, "hash.test", "ANSWER", "consistent_hash")
		set(tb, s, "hash.test:A", pool4...)
		set(tb, s, "hash.test:AAAA", pool6...)
		zoneConfig(s, "random.test")
		set(tb, s, "random.test:A", pool4...)
		set(tb, s, "random.test:AAAA", pool6...)
		zoneConfig(s, "group.test", "ANSWER", "group_consistent_hash")
		set(tb, s, "group.test:GROUPS", "g1.example", "G2.example", "g3.example", "g4.example", "empty.example")
		for i, g := range []string{"g1", "g2", "g3", "g4"} {
			set(tb, s, g+".example:A", pool4[4*i:4*i+4]...)
			set(tb, s, g+".example:AAAA", pool6[4*i:4*i+4]...)
		}
	}
}

// subnets are client subnets spread over the address space.
func subnets(bits, n int) []string {
	var out []string
	for i := range n {
		var p netip.Prefix
		if bits <= 32 {
			p = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(11 + i*7), byte(i * 13), byte(i * 29), byte(i)}), bits)
		} else {
			p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i), byte(i * 3), byte(i * 7), 1}), bits)
		}
		out = append(out, p.Masked().String())
	}
	return out
}

func TestConsistentHash(t *testing.T) {
	t.Parallel()
	s := newServer(fixed{snapshotOf(t, hashed(t))})
	c := newClient(t, s)
	ask := func(c *client, qtype uint16, options ...string) string {
		return one(t, c.askWith("hash.test", qtype, options...))
	}
	for _, f := range []struct {
		qtype        uint16
		bits, longer int
		sources      [3]string // two of one subnet, one of another
		pool         []string
	}{
		{dns.TypeA, 24, 32, [3]string{"203.0.113.1", "203.0.113.254", "203.0.112.1"}, pool4},
		{dns.TypeAAAA, 48, 56, [3]string{"2001:db8:7::1", "2001:db8:7:ffff::1", "2001:db8:8::1"}, pool6},
	} {
		family := steering.IPv4
		if f.qtype == dns.TypeAAAA {
			family = steering.IPv6
		}
		var prefixes []netip.Prefix
		for _, a := range f.pool {
			addr := netip.MustParseAddr(a)
			prefixes = append(prefixes, netip.PrefixFrom(addr, addr.BitLen()))
		}
		model := steering.NewPool(family, prefixes)
		seen := map[string]bool{}
		for _, sub := range subnets(f.bits, 200) {
			got := ask(c, f.qtype, subnet(sub))
			seen[got] = true
			p := netip.MustParsePrefix(sub)
			want, _ := netip.AddrFromSlice(model.Hash(nil, 1, p))
			if got != want.String() {
				t.Fatalf("%s: %s, want %s", sub, got, want)
			}
			// A longer subnet is cut to the length that counts.
			longer := netip.PrefixFrom(p.Addr(), f.longer)
			if again := ask(c, f.qtype, subnet(longer.String())); again != got {
				t.Errorf("%s: %s, %s: %s", sub, got, longer, again)
			}
		}
		if len(seen) != len(f.pool) {
			t.Errorf("200 subnets got %d of %d members", len(seen), len(f.pool))
		}
		// Without a client subnet the source address counts, by the same lengths.
		first := ask(c.from(f.sources[0]), f.qtype)
		if second := ask(c.from(f.sources[1]), f.qtype); first != second {
			t.Errorf("%s: %s, %s: %s", f.sources[0], first, f.sources[1], second)
		}
		p, _ := netip.MustParseAddr(f.sources[0]).Prefix(f.bits)
		if same := ask(c, f.qtype, subnet(p.String())); same != first {
			t.Errorf("%s as source: %s, as client subnet: %s", p, first, same)
		}
		p, _ = netip.MustParseAddr(f.sources[2]).Prefix(f.bits)
		if got, want := ask(c.from(f.sources[2]), f.qtype), ask(c, f.qtype, subnet(p.String())); got != want {
			t.Errorf("%s as source: %s, as client subnet: %s", p, got, want)
		}
	}
}

// TestScope is how much of the client subnet an answer depends on (RFC 7871 §7.2.1).
func TestScope(t *testing.T) {
	t.Parallel()
	lists := fixed{snapshotOf(t, hashed(t))}
	for _, r := range []struct {
		name, subnet string
		want         int
		bySource     int // with hash_method src
	}{
		{"hash.test", "203.0.113.0/24", 24, 0},
		{"hash.test", "203.0.113.7/32", 24, 0},
		{"hash.test", "203.0.0.0/16", 16, 0},
		{"hash.test", "128.0.0.0/1", 1, 0},
		{"hash.test", "0.0.0.0/0", 0, 0},
		{"hash.test", "2001:db8:7::/48", 48, 0},
		{"hash.test", "2001:db8:7::/56", 48, 0},
		{"hash.test", "2001:db8:7::1/128", 48, 0},
		{"hash.test", "2001:d00::/24", 24, 0},
		{"hash.test", "::/0", 0, 0},
		// An IPv4 address in an IPv6 option: its 24 bits stand behind 96 others.
		{"hash.test", "::ffff:203.0.113.0/120", 120, 0},
		{"hash.test", "::ffff:203.0.113.7/128", 120, 0},
		{"hash.test", "::ffff:203.0.0.0/112", 112, 0},
		{"hash.test", "::ffff:0.0.0.0/96", 96, 0},
		{"group.test", "203.0.113.0/24", 24, 0},
		{"group.test", "2001:db8:7::/64", 48, 0},
		{"random.test", "203.0.113.0/24", 0, 0},
		{"random.test", "2001:db8:7::/48", 0, 0},
		{"no.hash.test", "203.0.113.0/24", 0, 0},
		{"no.test", "203.0.113.0/24", 0, 0},
	} {
		for want, edit := range map[*int]func(*server){&r.want: func(*server) {}, &r.bySource: bySource} {
			c := newClient(t, newServer(lists, edit))
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeANY} {
				m := c.askWith(r.name, qtype, subnet(r.subnet))
				if got := scopeOf(m); got != *want {
					t.Errorf("%s %s for %s: scope %d, want %d", r.name, dns.TypeToString[qtype], r.subnet, got, *want)
				}
			}
			// What does not depend on the client says so.
			if got := scopeOf(c.askWith(r.name, dns.TypeSOA, subnet(r.subnet))); got != 0 {
				t.Errorf("%s SOA for %s: scope %d", r.name, r.subnet, got)
			}
		}
	}
}

// TestNoSubnetWanted: with /0 the client asks that its address is not used; the
// resolver's is (RFC 7871 §7.1.2).
func TestNoSubnetWanted(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{snapshotOf(t, hashed(t))}, tracing))
	for _, source := range subnets(24, 50) {
		from := c.from(netip.MustParsePrefix(source).Addr().Next().String())
		want := one(t, from.ask("hash.test", dns.TypeA))
		for what, o := range map[string]string{"IPv4": ecs(1, 0, 0, ""), "IPv6": ecs(2, 0, 0, ""), "none": ecs(0, 0, 0, "")} {
			m := from.askWith("hash.test", dns.TypeA, o)
			if got := one(t, m); got != want || scopeOf(m) != 0 {
				t.Errorf("%s, family %s: %s with scope %d, want %s", source, what, got, scopeOf(m), want)
			}
		}
	}
}

// TestHashBySource ignores client subnets.
func TestHashBySource(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{snapshotOf(t, hashed(t))}, bySource))
	want := one(t, c.ask("hash.test", dns.TypeA))
	for _, sub := range subnets(24, 50) {
		if got := one(t, c.askWith("hash.test", dns.TypeA, subnet(sub))); got != want {
			t.Fatalf("%s: %s, want %s", sub, got, want)
		}
	}
	if got := one(t, c.from("::ffff:192.0.2.1").ask("hash.test", dns.TypeA)); got != want {
		t.Errorf("from an IPv4-mapped source: %s, want %s", got, want)
	}
}

// TestGroupHash: the client's subnet chooses the group, chance the member.
func TestGroupHash(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{snapshotOf(t, hashed(t))}))
	for qtype, pool := range map[uint16][]string{dns.TypeA: pool4, dns.TypeAAAA: pool6} {
		groups := map[int]int{}
		for _, sub := range subnets(24, 60) {
			seen := map[string]bool{}
			group := -1
			for range 60 {
				got := one(t, c.askWith("group.test", qtype, subnet(sub)))
				seen[got] = true
				g := slices.Index(pool, got) / 4
				if group >= 0 && g != group {
					t.Fatalf("%s: groups %d and %d", sub, group, g)
				}
				group = g
			}
			if len(seen) != 4 {
				t.Errorf("%s: %d members of the group ever came", sub, len(seen))
			}
			groups[group]++
		}
		if len(groups) != 4 {
			t.Errorf("60 subnets chose %v", groups)
		}
	}
}

// TestHashLegacy are examples of the formula of pdns-razor, reckoned by hand:
// IPv4 (address & 0xffffff00) mod n, IPv6 (address >> 80) mod n, into the members
// or groups sorted bytewise.
func TestHashLegacy(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{snapshotOf(t, func(s *upstreams.Embedded) {
		for _, n := range []int{3, 4, 7} {
			zone := "m" + strconv.Itoa(n) + ".test"
			zoneConfig(s, zone, "ANSWER", "consistent_hash")
			// Bytewise: .10, .11, .12, .13, .7, .8, .9.
			set(t, s, zone+":A", numbered("198.18.0.7", 7)[7-n:]...)
			set(t, s, zone+":AAAA", numbered("2001:db8::7", 7)[7-n:]...)
		}
		zoneConfig(s, "g3.test", "ANSWER", "group_consistent_hash")
		set(t, s, "g3.test:GROUPS", "b.example", "a.example", "c.example")
		set(t, s, "a.example:A", "198.18.1.1")
		set(t, s, "b.example:A", "198.18.1.2")
		set(t, s, "c.example:A", "198.18.1.3")
	})}, legacy))
	for _, r := range []struct {
		zone   string
		qtype  uint16
		subnet string
		want   string
	}{
		// 192.0.2.0 is 3221225984: 2 mod 3, 0 mod 4, 4 mod 7.
		{"m3.test", dns.TypeA, "192.0.2.0/24", "198.18.0.13"},
		{"m4.test", dns.TypeA, "192.0.2.0/24", "198.18.0.10"},
		{"m7.test", dns.TypeA, "192.0.2.0/24", "198.18.0.7"},
		// 192.0.3.0 is 256 more, which is 1 mod 3 and 4 mod 7.
		{"m3.test", dns.TypeA, "192.0.3.0/24", "198.18.0.11"},
		{"m7.test", dns.TypeA, "192.0.3.0/24", "198.18.0.11"},
		// The last octet does not count.
		{"m3.test", dns.TypeA, "192.0.3.255/32", "198.18.0.11"},
		// With 4 members every IPv4 client gets the first.
		{"m4.test", dns.TypeA, "203.0.113.0/24", "198.18.0.10"},
		{"m4.test", dns.TypeA, "8.8.8.0/24", "198.18.0.10"},
		// 2001:db8:1::/48 is 0x20010db80001: 0 mod 3, 1 mod 4.
		{"m3.test", dns.TypeA, "2001:db8:1::/48", "198.18.0.11"},
		{"m4.test", dns.TypeA, "2001:db8:1::/48", "198.18.0.11"},
		{"m4.test", dns.TypeAAAA, "2001:db8:2::/48", "2001:db8::c"},
		{"m4.test", dns.TypeAAAA, "2001:db8:2:ffff::/64", "2001:db8::c"},
		{"g3.test", dns.TypeA, "192.0.2.0/24", "198.18.1.3"},
		{"g3.test", dns.TypeA, "192.0.3.0/24", "198.18.1.1"},
		{"g3.test", dns.TypeA, "192.0.4.0/24", "198.18.1.2"},
	} {
		for range 5 {
			if got := one(t, c.askWith(r.zone, r.qtype, subnet(r.subnet))); got != r.want {
				t.Errorf("%s for %s: %s, want %s", r.zone, r.subnet, got, r.want)
				break
			}
		}
	}
}

// TestSkipList: what is on the list is never answered, in any mode.
func TestSkipList(t *testing.T) {
	t.Parallel()
	modes := []string{"random", "consistent_hash", "group_consistent_hash", "geoip"}
	c := newClient(t, newServer(fixed{snapshotOf(t, func(s *upstreams.Embedded) {
		for _, mode := range modes {
			for _, zone := range []string{mode + ".some.test", mode + ".all.test"} {
				zoneConfig(s, zone, "ANSWER", mode)
				set(t, s, zone+":A", numbered("198.18.0.0", 8)...)
				set(t, s, zone+":AAAA", "2001:db8:0:1::1", "2001:db8:0:2::/64")
				set(t, s, zone+":GROUPS", "skipped.example", zone)
			}
			set(t, s, mode+".some.test:A:SKIPLIST", "198.18.0.0/30", "198.18.0.7")
			set(t, s, mode+".some.test:AAAA:SKIPLIST", "2001:db8:0:2::dead")
			set(t, s, mode+".all.test:A:SKIPLIST", "198.18.0.0/15")
			set(t, s, mode+".all.test:AAAA:SKIPLIST", "2001:db8::/32")
		}
		set(t, s, "skipped.example:A", "198.18.0.7")
		set(t, s, "skipped.example:AAAA", "2001:db8:0:2::/64")
	})}))
	for _, mode := range modes {
		seen := map[string]bool{}
		for _, sub := range subnets(24, 100) {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
				seen[one(t, c.askWith(mode+".some.test", qtype, subnet(sub)))] = true
				n := mode + ".all.test"
				if got, want := outcome(c.askWith(n, qtype, subnet(sub))), "NOERROR aa ("+soaOf(n, "30")+")"; got != want {
					t.Fatalf("%s with everything skipped: %s", mode, got)
				}
			}
		}
		var got []string
		for a := range seen {
			got = append(got, a)
		}
		slices.Sort(got)
		if want := []string{"198.18.0.4", "198.18.0.5", "198.18.0.6", "2001:db8:0:1::1"}; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", mode, got, want)
		}
	}
}
