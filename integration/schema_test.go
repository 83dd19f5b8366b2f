package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

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
		lists   []string // redis-cli lines; _until= and _since= have a space in front
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
			name:  "blackhole: as the skip list, until its time",
			zones: []string{"z.example"},
			lists: []string{
				"SADD z.example:A:BLACKHOLE 192.0.2.1_until=2999-01-01T00:00:00Z 198.51.100.0/24 192.0.2.2_until=2020-01-01T00:00:00Z",
				"SADD z.example:AAAA:BLACKHOLE 2001:db8:0:1::5_until=2999-01-01T00:00:00Z 2001::dead::beef::1",
				"SADD z.example:A:SKIPLIST 192.0.2.3",
				"SADD a.z.example:A 192.0.2.1 192.0.2.2 192.0.2.3 198.51.100.7 198.51.100.128/25",
				"SADD a.z.example:AAAA 2001:db8:0:1::5 2001:db8:0:1::6 2001:db8:0:1::/64",
				"SADD all.z.example:A 192.0.2.1 192.0.2.3 198.51.100.0/25",
			},
			queries: []query{
				{name: "a.z.example", qtype: "A", want: "NOERROR 192.0.2.2"},
				{name: "a.z.example", qtype: "AAAA", want: "NOERROR 2001:db8:0:1::6"},
				{name: "all.z.example", qtype: "A", want: "NOERROR (SOA)"},
			},
		},
		{
			name:  "fields of ours in CONFIG hinder nothing, good or bad",
			zones: []string{"z.example"},
			lists: []string{
				"SADD z.example:A 192.0.2.1", "HSET z.example:CONFIG FLOOR 2 ON_EMPTY shut ALPN , PORT 0",
				"SADD a.z.example:A 192.0.2.2", "HSET a.z.example:CONFIG FLOOR 0.25 ON_EMPTY closed ALPN h2,h3 PORT 8443",
			},
			queries: []query{
				{name: "z.example", qtype: "A", want: "NOERROR 192.0.2.1"},
				{name: "a.z.example", qtype: "A", want: "NOERROR 192.0.2.2"},
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
				"SET east:STATE draining_since=2026-11-21T05:31:00Z", "SADD gone.z.example:EDGES east", "SET shop.z.example all.z.example", "SET west:STATE nonsense",
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
							args = append(args, strings.NewReplacer("SOATEXT", soa, "_until=", " until=", "_since=", " since=").Replace(w))
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
	if n.metric("razor_upstreams_pools_emptied") != 1 || !strings.Contains(n.log.String(), "skip list and blackhole leave nothing") {
		t.Errorf("not said in metric and log:\n%s", n.log)
	}
	s.Do("DEL z.example:A:SKIPLIST")
	n.until("answered again", func() bool { return len(addresses(n.ask("z.example", "A"))) == 1 })
}

// A blackhole is in the answers at once, and out of them when its time comes:
// nothing is edited then.
func TestBlackholeEnds(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "z.example")
	s.Do("SADD z.example:A 192.0.2.1")
	n := startReady(t, s.Addr, nil)
	n.eventually("z.example", "A", "NOERROR 192.0.2.1")
	s.Do("SADD z.example:A:BLACKHOLE 192.0.2.1")
	n.eventually("z.example", "A", "NOERROR (SOA)")
	s.DoArgs("SADD", "z.example:A:BLACKHOLE", "192.0.2.1 until="+time.Now().Add(2*time.Second).Format(time.RFC3339Nano))
	s.Do("SREM z.example:A:BLACKHOLE 192.0.2.1")
	n.eventually("z.example", "A", "NOERROR 192.0.2.1")
	if got := s.Do("SCARD z.example:A:BLACKHOLE"); got != int64(1) {
		t.Errorf("%v members are left, want the expired one", got)
	}
}
