package integration

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/razor"
)

func TestEveryAddressOfAPrefixIsDrawn(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "z.example")
	s.Do("SADD z.example:A 192.0.2.248/29")
	s.Do("SADD z.example:AAAA 2001:db8::/126")
	n := startReady(t, s.Addr, nil)
	if got := n.draws(400, "z.example", "A"); len(got) != 8 || got[netip.MustParseAddr("192.0.2.255")] == 0 {
		t.Errorf("drawn of a /29: %v", got)
	}
	if got := n.draws(200, "z.example", "AAAA"); len(got) != 4 {
		t.Errorf("drawn of a /126: %v", got)
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "z.example", "COUNT", "4")
	s.DoArgs(append([]any{"SADD", "n1.z.example:A"}, redistest.Members(false, 0, 512)...)...)
	s.Do("SADD n2.z.example:A 192.0.2.1 192.0.2.2 192.0.2.3")
	s.Do("HSET n2.z.example:CONFIG COUNT 2")
	n := startReady(t, s.Addr, zones("z.example"))
	for name, want := range map[string]int{"n1.z.example": 4, "n2.z.example": 2} {
		got := addresses(n.ask(name, "A"))
		slices.SortFunc(got, netip.Addr.Compare)
		if len(slices.Compact(got)) != want {
			t.Errorf("%s: %v, want %d different addresses", name, got, want)
		}
	}
	s.Do("HSET z.example:CONFIG COUNT 255")
	n.until("the answer does not fit into UDP", func() bool { return n.ask("n1.z.example", "A").Truncated })
	m, err := n.exchange("tcp", question("n1.z.example", "A"))
	if err != nil || len(m.Answer) != 255 {
		t.Errorf("over TCP: %d addresses, %v; want 255", len(m.Answer), err)
	}
}

func TestConsistentHash(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "z.example", "ANSWER", "consistent_hash")
	s.DoArgs(append([]any{"SADD", "z.example:A"}, redistest.Members(false, 0, 64)...)...)
	s.DoArgs(append([]any{"SADD", "z.example:AAAA"}, redistest.Members(true, 0, 64)...)...)
	n := startReady(t, s.Addr, nil)
	src := startReady(t, s.Addr, func(c *razor.Config) { c.HashMethod = "src" })
	seen := map[string]bool{}
	for i := range 200 {
		client := subnet(fmt.Sprintf("203.0.%d.0/24", i))
		first := outcome(n.ask("z.example", "A", client))
		seen[first] = true
		again := n.ask("z.example", "A", subnet(fmt.Sprintf("203.0.%d.77/32", i)))
		if got := outcome(again); got != first {
			t.Errorf("subnet %d: %s, then %s", i, first, got)
		}
		if scope := again.IsEdns0().Option[0].(*dns.EDNS0_SUBNET).SourceScope; scope != 24 {
			t.Errorf("scope %d, want 24", scope)
		}
		if got := src.ask("z.example", "A", client); outcome(got) != outcome(src.ask("z.example", "A")) {
			t.Error("hash_method src goes by the client subnet")
		}
	}
	if len(seen) < 40 {
		t.Errorf("200 subnets reach %d of 64 members", len(seen))
	}
	m := n.ask("z.example", "AAAA", subnet("2001:db8:1:2::/64"))
	if scope := m.IsEdns0().Option[0].(*dns.EDNS0_SUBNET).SourceScope; scope != 48 {
		t.Errorf("IPv6 scope %d, want 48", scope)
	}
	// /0: the client wants its address not to be used.
	if got, want := outcome(n.ask("z.example", "A", subnet("0.0.0.0/0"))), outcome(n.ask("z.example", "A")); got != want {
		t.Errorf("/0: %s, want that of the source address %s", got, want)
	}
}

func TestGroupConsistentHash(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "z.example", "ANSWER", "group_consistent_hash")
	s.Do("SADD z.example:GROUPS G1 G2 gone")
	s.Do("SADD G1:A 192.0.2.1 192.0.2.2")
	s.Do("SADD g2:A 192.0.2.9 192.0.2.10")
	n := startReady(t, s.Addr, nil)
	members := map[netip.Addr]int{}
	for i := range 40 {
		got := n.draws(8, "z.example", "A", subnet(fmt.Sprintf("203.0.%d.0/24", i)))
		first := got[netip.MustParseAddr("192.0.2.1")] + got[netip.MustParseAddr("192.0.2.2")]
		if first != 0 && first != 8 {
			t.Errorf("subnet %d draws of both groups: %v", i, got)
		}
		for a := range got {
			members[a]++
		}
	}
	if len(members) != 4 {
		t.Errorf("not all members are drawn: %v", members)
	}
}

func TestGeography(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "z.example", "ANSWER", "geoip")
	s.Do("SADD z.example:A 192.0.2.1")
	s.Do("SADD z.example:AAAA 2001:db8::1")
	s.Do("SADD vilnius.example:A 192.0.2.2")
	s.Do("SADD lithuania.example:A 192.0.2.3")
	s.Do("SADD europe.example:A 192.0.2.4")
	s.Do("SADD europe.example:AAAA 2001:db8::4")
	s.Do("SET geoip:eu:lt:vl vilnius.example")
	s.Do("SET geoip:eu:lt lithuania.example")
	s.Do("SET geoip:eu europe.example")
	s.Do("SET stuck.z.example vilnius.example")
	file := filepath.Join(t.TempDir(), "city.mmdb")
	writeGeo(t, file, map[string]place{
		"203.0.113.0/24": {"EU", "LT", "VL"}, "198.51.100.0/24": {"EU", "LT", "KU"},
		"192.0.2.0/24": {"EU", "DE", ""}, "2001:db8::/32": {"NA", "US", "CA"},
	})
	n := startReady(t, s.Addr, func(c *razor.Config) {
		c.Zones, c.GeoIP, c.TraceTXT = []string{"z.example"}, file, true
	})
	for _, row := range []struct{ name, qtype, client, want string }{
		{"any.z.example", "A", "203.0.113.0/24", "NOERROR 192.0.2.2"},
		{"any.z.example", "A", "198.51.100.0/24", "NOERROR 192.0.2.3"},
		{"any.z.example", "A", "192.0.2.0/24", "NOERROR 192.0.2.4"},
		{"any.z.example", "A", "2001:db8::/48", "NOERROR 192.0.2.1"},
		{"any.z.example", "AAAA", "203.0.113.0/24", "NOERROR 2001:db8::4"}, // what the country lacks
		{"a.b.c.z.example", "AAAA", "8.8.8.0/24", "NOERROR 2001:db8::1"},
		{"z.example", "A", "203.0.113.0/24", "NOERROR 192.0.2.2"},
		{"stuck.z.example", "A", "192.0.2.0/24", "NOERROR 192.0.2.2"},
		{"stuck.z.example", "AAAA", "192.0.2.0/24", "NOERROR 2001:db8::4"},
		{"any.z.example", "MX", "203.0.113.0/24", "NOERROR (SOA)"},
		{"any.z.example", "TXT", "203.0.113.0/24", `NOERROR "Razor/203.0.113.0 (EU:LT)/192.0.2.2"`},
		{"stuck.z.example", "TXT", "203.0.113.0/24", `NOERROR "Razor/203.0.113.0/192.0.2.2"`},
		{"any.z.example", "TXT", "8.8.8.0/24", `NOERROR "Razor/8.8.8.0/192.0.2.1"`},
	} {
		if got := outcome(n.ask(row.name, row.qtype, subnet(row.client))); got != row.want {
			t.Errorf("%s %s from %s: %s, want %s", row.name, row.qtype, row.client, got, row.want)
		}
	}
	s.Do("SET geoip:na:us europe.example")
	n.eventually("any.z.example", "AAAA", "NOERROR 2001:db8::4", subnet("2001:db8::/48"))
	writeGeo(t, file, map[string]place{"203.0.113.0/24": {"NA", "US", ""}})
	n.eventually("any.z.example", "A", "NOERROR 192.0.2.4", subnet("203.0.113.0/24"))
}

// Names stuck to a route draw from a fixed few of its addresses each.
func TestShard(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "z.example")
	s.DoArgs(append([]any{"SADD", "n1.z.example:A"}, redistest.Members(false, 0, 512)...)...)
	s.Do("HSET n1.z.example:CONFIG SHARD 4")
	s.Do("SET a.z.example n1.z.example")
	s.Do("SET b.z.example n1.z.example")
	n := startReady(t, s.Addr, zones("z.example"))
	a, b := n.draws(200, "a.z.example", "A"), n.draws(200, "B.z.example", "A")
	if len(a) != 4 || len(b) != 4 || fmt.Sprint(slices.Sorted(maps.Keys(names(a)))) == fmt.Sprint(slices.Sorted(maps.Keys(names(b)))) {
		t.Errorf("drawn of the shards: %v, %v", a, b)
	}
	if got := n.draws(200, "n1.z.example", "A"); len(got) < 100 {
		t.Errorf("the route itself draws of %d addresses", len(got))
	}
	// One of its addresses is attacked: the name gets one other, and keeps three.
	for attacked := range a {
		s.Do("SADD z.example:A:SKIPLIST " + attacked.String())
		n.until("the skip list is obeyed", func() bool { return n.metric("razor_upstreams_edit_duration_seconds") > 0 })
		after := n.draws(200, "a.z.example", "A")
		kept := 0
		for addr := range after {
			if a[addr] > 0 {
				kept++
			}
		}
		if len(after) != 4 || kept != 3 || after[attacked] > 0 {
			t.Errorf("%v attacked: %v, then %v", attacked, a, after)
		}
		break
	}
}

func names(seen map[netip.Addr]int) map[string]int {
	out := map[string]int{}
	for a, n := range seen {
		out[a.String()] = n
	}
	return out
}

// The scope is as fine as the prefixes tell clients apart, and no finer.
func TestScopeOfPrefixes(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "z.example", "ANSWER", "geoip")
	s.Do("SADD z.example:A 192.0.2.1")
	s.Do("SET prefix:203.0.113.64/26 z.example")
	n := startReady(t, s.Addr, nil)
	for client, want := range map[string]uint8{"203.0.113.64/32": 26, "203.0.113.1/32": 26, "203.0.113.0/24": 24, "203.0.114.1/32": 24, "203.0.0.0/16": 16} {
		m := n.ask("z.example", "A", subnet(client))
		if got := m.IsEdns0().Option[0].(*dns.EDNS0_SUBNET).SourceScope; got != want {
			t.Errorf("%s: scope %d, want %d", client, got, want)
		}
	}
}
