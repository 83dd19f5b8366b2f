package integration

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/razor"
)

const soa = "ns1.example.org. hostmaster.example.org. 1 7200 900 1209600 30"

// config makes a zone.
func config(s *redistest.Server, zone string, pairs ...any) {
	s.DoArgs(append([]any{"HSET", zone + ":CONFIG", "SOA", soa, "NS", "ns1.example.org, ns2.example.org"}, pairs...)...)
}

// zones is a razor configured for zones.
func zones(names ...string) func(*razor.Config) {
	return func(c *razor.Config) { c.Zones = names }
}

// draws are the different addresses in n answers.
func (n *nameserver) draws(count int, name, qtype string, edit ...func(*dns.Msg)) map[netip.Addr]int {
	n.tb.Helper()
	seen := map[netip.Addr]int{}
	for range count {
		for _, a := range addresses(n.ask(name, qtype, edit...)) {
			seen[a]++
		}
	}
	return seen
}

func TestEditIsAnswered(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "r.example.org", "TTL", "5")
	s.Do("SADD r.example.org:A 192.0.2.1")
	n := startReady(t, s.Addr, nil)
	n.eventually("r.example.org", "A", "NOERROR 192.0.2.1")
	s.Do("SADD r.example.org:AAAA 2001:DB8:0::1")
	n.eventually("R.example.ORG", "AAAA", "NOERROR 2001:db8::1")
	s.Do("SREM r.example.org:A 192.0.2.1")
	n.eventually("r.example.org", "A", "NOERROR (SOA)")
	n.eventually("x.r.example.org", "A", "NXDOMAIN (SOA)")
	n.eventually("example.org", "A", "REFUSED")
}

// Every row of the schema, and every lifted limit of the original, as what is
// asked and what is answered. The lists are written before and after the start:
// both ways of reading must agree.
func TestSchema(t *testing.T) {
	t.Parallel()
	type query struct {
		name, qtype, want string
		edit              func(*dns.Msg)
	}
	rows := []struct {
		name    string
		zones   []string
		lists   []string // redis-cli lines
		edit    func(*razor.Config)
		queries []query
	}{
		{
			name:  "CONFIG: SOA, NS and the default TTL of 60",
			zones: []string{"z.example"},
			lists: []string{"SADD z.example:A 192.0.2.1"},
			queries: []query{
				{name: "z.example", qtype: "SOA", want: "NOERROR ns1.example.org. hostmaster.example.org. 1 7200 900 1209600 30"},
				{name: "z.example", qtype: "NS", want: "NOERROR ns1.example.org. ns2.example.org."},
				{name: "z.example", qtype: "A", want: "NOERROR 192.0.2.1"},
			},
		},
		{
			name:  "the configured zone's CONFIG holds for every name below",
			zones: []string{"z.example"},
			lists: []string{"SADD n1.z.example:A 192.0.2.1", "SADD a.b.z.example:AAAA 2001:db8::1"},
			queries: []query{
				{name: "n1.z.example", qtype: "A", want: "NOERROR 192.0.2.1"},
				{name: "n1.z.example", qtype: "SOA", want: "NOERROR (SOA)"},
				{name: "a.b.z.example", qtype: "AAAA", want: "NOERROR 2001:db8::1"},
				{name: "b.z.example", qtype: "A", want: "NOERROR (SOA)"}, // empty non-terminal
				{name: "c.z.example", qtype: "A", want: "NXDOMAIN (SOA)"},
				{name: "example", qtype: "SOA", want: "REFUSED"},
			},
		},
		{
			name:  "without zones each name has its own CONFIG",
			lists: []string{"HSET n1.example:CONFIG SOA SOATEXT NS ns1.example.org", "SADD n1.example:A 192.0.2.1", "SADD n2.example:A 192.0.2.2"},
			queries: []query{
				{name: "n1.example", qtype: "A", want: "NOERROR 192.0.2.1"},
				{name: "n1.example", qtype: "NS", want: "NOERROR ns1.example.org."},
				{name: "n2.example", qtype: "A", want: "REFUSED"},
			},
		},
		{
			name:  "no SOA, no zone",
			lists: []string{"HSET n1.example:CONFIG TTL 60", "SADD n1.example:A 192.0.2.1", "HSET n2.example:CONFIG SOA SOATEXT"},
			queries: []query{
				{name: "n1.example", qtype: "A", want: "REFUSED"},
				{name: "n2.example", qtype: "NS", want: "NOERROR (SOA)"},
			},
		},
		{
			name:  "keys match queries whatever the case",
			zones: []string{"Z.Example"},
			lists: []string{"SADD N1.Z.example:A 192.0.2.1"},
			queries: []query{
				{name: "n1.z.EXAMPLE", qtype: "A", want: "NOERROR 192.0.2.1"},
			},
		},
		{
			name:  "prefixes of any length",
			zones: []string{"z.example"},
			lists: []string{"SADD a.z.example:A 192.0.2.7/32", "SADD a.z.example:AAAA 2001:db8::7/128", "SADD b.z.example:A 0.0.0.0/0", "SADD b.z.example:A:SKIPLIST x"},
			queries: []query{
				{name: "a.z.example", qtype: "A", want: "NOERROR 192.0.2.7"},
				{name: "a.z.example", qtype: "AAAA", want: "NOERROR 2001:db8::7"},
			},
		},
		{
			name:  "skip list: addresses and prefixes; a plain IPv6 address takes its /64 out of prefixes",
			zones: []string{"z.example"},
			lists: []string{
				"SADD z.example:A:SKIPLIST 192.0.2.1 198.51.100.0/24",
				"SADD z.example:AAAA:SKIPLIST 2001:db8:0:1::5",
				"SADD a.z.example:A 192.0.2.1 192.0.2.2 198.51.100.7 198.51.100.128/25",
				"SADD a.z.example:AAAA 2001:db8:0:1::5 2001:db8:0:1::6 2001:db8:0:1::/64",
				"SADD all.z.example:A 192.0.2.1 198.51.100.0/25",
			},
			queries: []query{
				{name: "a.z.example", qtype: "A", want: "NOERROR 192.0.2.2"},
				{name: "a.z.example", qtype: "AAAA", want: "NOERROR 2001:db8:0:1::6"},
				{name: "all.z.example", qtype: "A", want: "NOERROR (SOA)"},
			},
		},
		{
			name:  "address forms",
			zones: []string{"z.example"},
			lists: []string{
				"SADD a.z.example:A ::ffff:192.0.2.1 010.0.0.1 192.0.2.300 host.example 2001:db8::1",
				"SADD a.z.example:AAAA [2001:0DB8::1] 2001::dead::beef::1 fe80::1%eth0 192.0.2.1 ::ffff:192.0.2.1",
			},
			queries: []query{
				{name: "a.z.example", qtype: "A", want: "NOERROR 192.0.2.1"},
				{name: "a.z.example", qtype: "AAAA", want: "NOERROR 2001:db8::1"},
			},
		},
		{
			name:  "a name with only A answers NODATA for AAAA and for other types",
			zones: []string{"z.example"},
			lists: []string{"SADD a.z.example:A 192.0.2.1"},
			queries: []query{
				{name: "a.z.example", qtype: "AAAA", want: "NOERROR (SOA)"},
				{name: "a.z.example", qtype: "MX", want: "NOERROR (SOA)"},
				{name: "a.z.example", qtype: "CNAME", want: "NOERROR (SOA)"},
				{name: "a.z.example", qtype: "TXT", want: "NOERROR (SOA)"},
				{name: "a.z.example", qtype: "ANY", want: "NOERROR 192.0.2.1"},
			},
		},
		{
			name:  "sticky names work in every mode",
			zones: []string{"r.example", "h.example", "g.example"},
			lists: []string{
				"HSET h.example:CONFIG SOA SOATEXT ANSWER consistent_hash",
				"HSET g.example:CONFIG SOA SOATEXT ANSWER group_consistent_hash",
				"HSET r.example:CONFIG SOA SOATEXT",
				"SADD n1.r.example:A 192.0.2.1", "SADD n1.g.example:GROUPS G1", "SADD g1:A 192.0.2.9",
				"SET shop.r.example n1.r.example", "SET shop.h.example N1.R.example.", "SET shop.g.example n1.g.example",
				"SET lost.r.example nowhere.example", "SADD own.r.example:AAAA 2001:db8::5", "SET own.r.example n1.r.example",
			},
			queries: []query{
				{name: "shop.r.example", qtype: "A", want: "NOERROR 192.0.2.1"},
				{name: "shop.h.example", qtype: "A", want: "NOERROR 192.0.2.1"},
				{name: "shop.g.example", qtype: "A", want: "NOERROR 192.0.2.9"},
				{name: "shop.r.example", qtype: "AAAA", want: "NOERROR (SOA)"},
				{name: "lost.r.example", qtype: "A", want: "NOERROR (SOA)"},
				{name: "own.r.example", qtype: "AAAA", want: "NOERROR 2001:db8::5"}, // what the route lacks
			},
		},
		{
			name:  "EDGES: the pools of the edges, without those that are drained",
			zones: []string{"z.example"},
			lists: []string{
				"SADD all.z.example:EDGES west east", "SADD west:A 192.0.2.1", "SADD east:A 192.0.2.2", "SADD east:AAAA 2001:db8::2",
				"SET east:STATE draining", "SADD gone.z.example:EDGES east", "SET shop.z.example all.z.example", "SET west:STATE nonsense",
			},
			queries: []query{
				{name: "all.z.example", qtype: "A", want: "NOERROR 192.0.2.1"},
				{name: "all.z.example", qtype: "AAAA", want: "NOERROR (SOA)"},
				{name: "shop.z.example", qtype: "A", want: "NOERROR 192.0.2.1"},
				{name: "gone.z.example", qtype: "A", want: "NOERROR (SOA)"},
			},
		},
		{
			name:  "prefix: the longest one around the client, before geography; ECS off",
			zones: []string{"g.example", "off.example"},
			lists: []string{
				"HSET g.example:CONFIG SOA SOATEXT ANSWER geoip", "HSET off.example:CONFIG SOA SOATEXT ANSWER geoip ECS off",
				"SADD g.example:A 192.0.2.1", "SADD off.example:A 192.0.2.9", "SADD r1:A 192.0.2.2", "SADD r2:A 192.0.2.3", "SADD r3:AAAA 2001:db8::3",
				"SET prefix:203.0.113.0/24 r1", "SET prefix:203.0.113.64/26 r2", "SET prefix:203.0.0.0/16 r3", "SET prefix:2001:db8:7::/48 r1",
			},
			queries: []query{
				{name: "x.g.example", qtype: "A", want: "NOERROR 192.0.2.2", edit: subnet("203.0.113.0/24")},
				{name: "x.g.example", qtype: "A", want: "NOERROR 192.0.2.3", edit: subnet("203.0.113.65/32")},
				{name: "x.g.example", qtype: "A", want: "NOERROR 192.0.2.2", edit: subnet("203.0.113.1/32")},
				{name: "x.g.example", qtype: "A", want: "NOERROR 192.0.2.1", edit: subnet("203.0.1.0/24")}, // what the route lacks
				{name: "x.g.example", qtype: "AAAA", want: "NOERROR 2001:db8::3", edit: subnet("203.0.1.0/24")},
				{name: "x.g.example", qtype: "A", want: "NOERROR 192.0.2.2", edit: subnet("2001:db8:7::/48")},
				{name: "x.g.example", qtype: "A", want: "NOERROR 192.0.2.1", edit: subnet("198.51.100.0/24")},
				{name: "x.off.example", qtype: "A", want: "NOERROR 192.0.2.9", edit: subnet("203.0.113.0/24")},
			},
		},
		{
			name:  "legacy hash: the original's formula over the sorted members",
			zones: []string{"h.example", "g.example"},
			edit:  func(c *razor.Config) { c.Hash = "legacy" },
			lists: []string{
				"HSET h.example:CONFIG SOA SOATEXT ANSWER consistent_hash",
				"HSET g.example:CONFIG SOA SOATEXT ANSWER group_consistent_hash",
				"SADD a.h.example:A 10.0.0.9 10.0.0.10 10.0.0.11", // as text: .10 .11 .9
				"SADD a.h.example:AAAA 2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4 2001:db8::5",
				"SADD a.g.example:GROUPS eu us ap", // as text: ap eu us
				"SADD ap:A 192.0.2.1", "SADD eu:A 192.0.2.2", "SADD us:A 192.0.2.3",
			},
			queries: []query{
				{name: "a.h.example", qtype: "A", want: "NOERROR 10.0.0.9", edit: subnet("192.0.2.0/24")},          // 0xc0000200 mod 3 = 2
				{name: "a.h.example", qtype: "A", want: "NOERROR 10.0.0.11", edit: subnet("10.0.0.0/24")},          // 0x0a000000 mod 3 = 1
				{name: "a.h.example", qtype: "AAAA", want: "NOERROR 2001:db8::5", edit: subnet("2001:db8:4::/48")}, // 0x20010db80004 mod 5 = 4
				{name: "a.g.example", qtype: "A", want: "NOERROR 192.0.2.3", edit: subnet("192.0.2.0/24")},
			},
		},
	}
	for _, row := range rows {
		for _, when := range []string{"before", "after"} {
			t.Run(row.name+"/"+when, func(t *testing.T) {
				t.Parallel()
				s := redistest.Start(t)
				config(s, "ready.example")
				write := func() {
					for _, z := range row.zones {
						config(s, z)
					}
					for _, line := range row.lists {
						var args []any
						for w := range strings.FieldsSeq(line) {
							args = append(args, strings.ReplaceAll(w, "SOATEXT", soa))
						}
						s.DoArgs(args...)
					}
				}
				edit := func(c *razor.Config) {
					if c.Zones = row.zones; c.Zones != nil {
						c.Zones = append(slices.Clone(c.Zones), "ready.example")
					}
					if row.edit != nil {
						row.edit(c)
					}
				}
				if when == "before" {
					write()
				}
				n := startReady(t, s.Addr, edit)
				if when == "after" {
					write()
				}
				for _, q := range row.queries {
					var edits []func(*dns.Msg)
					if q.edit != nil {
						edits = append(edits, q.edit)
					}
					n.eventually(q.name, q.qtype, q.want, edits...)
				}
			})
		}
	}
}

// A TTL that cannot be used keeps the last good one.
func TestTTL(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "z.example")
	s.Do("SADD z.example:A 192.0.2.1")
	n := startReady(t, s.Addr, nil)
	ttl := func() uint32 { return n.ask("z.example", "A").Answer[0].Header().Ttl }
	for _, row := range []struct {
		set  string
		want uint32
	}{{"7", 7}, {"0", 0}, {"abc", 0}, {"300", 300}, {"-1", 300}, {"2147483648", 300}} {
		s.Do("HSET z.example:CONFIG TTL " + row.set)
		n.until(fmt.Sprintf("TTL %s gives %d", row.set, row.want), func() bool { return ttl() == row.want })
	}
	// RFC 2308: the SOA of a negative answer has the smaller of its TTL and MINIMUM.
	if got := n.ask("z.example", "AAAA").Ns[0].Header().Ttl; got != 30 {
		t.Errorf("TTL of the SOA in a negative answer %d, want 30", got)
	}
}

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

func TestDefectsTakeNothingWithThem(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "z.example", "TTL", "soon", "TTTL", "5")
	s.Do("SADD z.example:A 192.0.2.1 192.0.2.256 nonsense")
	s.Do("SADD z.example:A:SKIPLIST 192.0.2.1/33")
	s.Do("SET z.example:AAAA oops")
	s.Do("SADD z.example:a 192.0.2.77")
	n := startReady(t, s.Addr, nil)
	n.eventually("z.example", "A", "NOERROR 192.0.2.1")
	if got := n.metric("razor_upstreams_rejected"); got != 7 {
		t.Errorf("razor_upstreams_rejected %v, want 7\n%s", got, n.log)
	}
	for _, words := range []string{
		`member=192.0.2.256 reason=`, `member=nonsense reason=`, `member=192.0.2.1/33 reason=`,
		`key=z.example:AAAA member="" reason="wrong type"`, `member="TTL soon"`, `member=TTTL reason="unknown field"`, `key=z.example:a member=a`,
	} {
		if c := strings.Count(n.log.String(), words); c != 1 {
			t.Errorf("%q logged %d times, want once", words, c)
		}
	}
	// The key of a wrong type keeps its last good value.
	s.Do("DEL z.example:AAAA")
	s.Do("SADD z.example:AAAA 2001:db8::1")
	n.eventually("z.example", "AAAA", "NOERROR 2001:db8::1")
	s.Do("SET z.example:AAAA oops")
	n.until("the defect is seen", func() bool { return strings.Count(n.log.String(), `reason="wrong type"`) == 2 })
	n.eventually("z.example", "AAAA", "NOERROR 2001:db8::1")
}

func TestAllSkipListed(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "z.example")
	s.Do("SADD z.example:A 192.0.2.1 192.0.2.2")
	n := startReady(t, s.Addr, nil)
	s.Do("SADD z.example:A:SKIPLIST 192.0.2.0/24")
	n.eventually("z.example", "A", "NOERROR (SOA)")
	if n.metric("razor_upstreams_pools_emptied") != 1 || !strings.Contains(n.log.String(), "skip list leaves nothing") {
		t.Errorf("not said in metric and log:\n%s", n.log)
	}
	s.Do("DEL z.example:A:SKIPLIST")
	n.until("answered again", func() bool { return len(addresses(n.ask("z.example", "A"))) == 1 })
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
