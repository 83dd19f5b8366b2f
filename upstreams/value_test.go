package upstreams

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/razor-steering/razor/steering"
)

// rawSet, rawHash and rawText are contents of keys as Redis gives them.
func rawSet(members ...string) raw { return raw{exists: true, set: members} }

func rawText(text string) raw { return raw{exists: true, text: text} }

func rawHash(pairs ...string) raw {
	r := raw{exists: true, hash: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		r.hash[pairs[i]] = pairs[i+1]
	}
	return r
}

// texts are members as an operator reads them.
func texts(members func(func(netip.Prefix) bool)) string {
	var out []string
	for m := range members {
		out = append(out, MemberText(m))
	}
	return strings.Join(out, " ")
}

// said is what a value says, in a comparable form.
func said(v *value) string {
	switch {
	case v == nil:
		return "nothing"
	case v.pool != nil:
		return v.pool.Family().String() + " " + texts(v.pool.Members())
	case v.skip != nil:
		return "skip " + texts(v.skip.Entries())
	case v.groups != nil:
		out := []string{"groups"}
		for i, name := range v.groups.Names() {
			out = append(out, name+"="+NameText(v.groups.Route(i)))
		}
		return strings.Join(out, " ")
	case v.config != nil:
		out := "config"
		for _, f := range slices.Sorted(maps.Keys(v.config.fields)) {
			out += " " + f + "=" + v.config.fields[f]
		}
		return out
	}
	if v.route == "" {
		return strings.Join(v.words(), " ")
	}
	return "route " + NameText(v.route)
}

const (
	want4 = "; want an IPv4 address or prefix such as 192.0.2.1 or 192.0.2.0/24"
	want6 = "; want an IPv6 address or prefix such as 2001:db8::1 or 2001:db8::/64"
)

func TestParseValue(t *testing.T) {
	t.Parallel()
	wrong := raw{exists: true, wrong: true}
	label64 := strings.Repeat("a", 64)
	for _, tt := range []struct {
		name, key string
		raw       raw
		want      string // what the value says
		defects   []string
	}{
		{"pool", "r:A", rawSet("192.0.2.2", "192.0.2.1", "198.51.100.0/24"), "IPv4 192.0.2.1 192.0.2.2 198.51.100.0/24", nil},
		{"pool of IPv6", "r:AAAA", rawSet("[2001:DB8:0::1]", "2001:db8:1::/64"), "IPv6 2001:db8::1 2001:db8:1::/64", nil},
		{"address and its prefix", "r:A", rawSet("192.0.2.1", "192.0.2.0/24"), "IPv4 192.0.2.0/24 192.0.2.1", nil},
		{"skip list", "r:A:SKIPLIST", rawSet("192.0.2.1", "192.0.2.128/25"), "skip 192.0.2.1 192.0.2.128/25", nil},
		{"groups", "r:GROUPS", rawSet("G2", "g1.example."), "groups G2=g2 g1.example.=g1.example", nil},
		{"sticky", "shop.example", rawText("Node1.Route.Example."), "route node1.route.example", nil},
		{"place", "geoip:eu", rawText("node1"), "route node1", nil},
		{"config", "r:CONFIG", rawHash("SOA", goodSOA, "NS", "a.", "TTL", "0"), "config NS=a. SOA=" + goodSOA + " TTL=0", nil},
		{
			"fields of ours", "r:CONFIG", rawHash("FLOOR", "0.25", "ON_EMPTY", "closed", "ECS", "on", "SHARD", "4", "ALPN", "h3", "PORT", "443"),
			"config ALPN=h3 ECS=on FLOOR=0.25 ON_EMPTY=closed PORT=443 SHARD=4", nil,
		},
		{"nothing there", "r:A", raw{}, "nothing", nil},

		{"bad type of a pool", "r:A", wrong, "nothing", []string{"r:A: wrong type; want a set"}},
		{"bad type of a skip list", "r:A:SKIPLIST", wrong, "nothing", []string{"r:A:SKIPLIST: wrong type; want a set"}},
		{"bad type of groups", "r:GROUPS", wrong, "nothing", []string{"r:GROUPS: wrong type; want a set"}},
		{"bad type of CONFIG", "r:CONFIG", wrong, "nothing", []string{"r:CONFIG: wrong type; want a hash"}},
		{"bad type of a sticky name", "shop", wrong, "nothing", []string{"shop: wrong type; want a string"}},
		{"bad type of a place", "geoip:eu", wrong, "nothing", []string{"geoip:eu: wrong type; want a string"}},
		{
			"bad member among good ones", "r:A", rawSet("192.0.2.1", "192.0.2.02", "192.0.2.3"), "IPv4 192.0.2.1 192.0.2.3",
			[]string{`r:A: "192.0.2.02": IPv4 field has octet with leading zero` + want4},
		},
		{
			"bad IPv6 members", "r:AAAA", rawSet("2001::dead::beef::1", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"), "IPv6 2001:db8::1",
			[]string{
				`r:AAAA: "2001::dead::beef::1": multiple :: in address` + want6,
				`r:AAAA: "192.0.2.1": IPv4 among IPv6` + want6,
				`r:AAAA: "::ffff:192.0.2.1": IPv4-mapped address among IPv6` + want6,
			},
		},
		{"bad members alone", "r:A", rawSet("node1"), "nothing", []string{`r:A: "node1": unable to parse IP` + want4}},
		{"bad empty member", "r:A", rawSet("", "192.0.2.1"), "IPv4 192.0.2.1", []string{`r:A: unable to parse IP` + want4}},
		{
			"bad skip list entry", "r:AAAA:SKIPLIST", rawSet("2001:db8::1", "fe80::1%eth0"), "skip 2001:db8::1",
			[]string{`r:AAAA:SKIPLIST: "fe80::1%eth0": zone identifier` + want6},
		},
		{
			"bad two spellings of an address", "r:AAAA", rawSet("2001:db8::1", "[2001:db8::1]", "2001:DB8:0::1", "2001:db8::2"), "IPv6 2001:db8::1 2001:db8::2",
			[]string{
				`r:AAAA: "2001:db8::1": the same as 2001:DB8:0::1; want one spelling of it`,
				`r:AAAA: "[2001:db8::1]": the same as 2001:DB8:0::1; want one spelling of it`,
			},
		},
		{
			"bad two spellings of a prefix", "r:A", rawSet("192.0.2.0/24", "192.0.2.7/24"), "IPv4 192.0.2.0/24",
			[]string{`r:A: "192.0.2.7/24": the same as 192.0.2.0/24; want one spelling of it`},
		},
		{
			"bad spelling twice beside a bad member", "r:A", rawSet("x", "192.0.2.1", "192.0.2.1/32"), "IPv4 192.0.2.1",
			[]string{`r:A: "x": unable to parse IP` + want4, `r:A: "192.0.2.1/32": the same as 192.0.2.1; want one spelling of it`},
		},
		{"bad group", "r:GROUPS", rawSet("g1", "g 2"), "groups g1=g1", []string{`r:GROUPS: "g 2": space or control character in a name; want the name of a group`}},
		{"bad groups alone", "r:GROUPS", rawSet("."), "nothing", []string{`r:GROUPS: ".": empty name; want the name of a group`}},
		{"bad route", "shop", rawText("a..b"), "nothing", []string{`shop: "a..b": empty label (a final dot, or two dots in a row); want the name of a route`}},
		{"bad empty route", "shop", rawText(""), "nothing", []string{`shop: empty name; want the name of a route`}},
		{"bad long label of a place's route", "geoip:eu", rawText(label64), "nothing", []string{`geoip:eu: "` + label64 + `": label longer than 63 octets; want the name of a route`}},
		{
			"bad SOA", "r:CONFIG", rawHash("SOA", "a. b. 1", "TTL", "5"), "config TTL=5",
			[]string{`r:CONFIG: "SOA a. b. 1": 3 fields; want ns1.example.org. hostmaster.example.org. SERIAL REFRESH RETRY EXPIRE MINIMUM`},
		},
		{"bad NS among good ones", "r:CONFIG", rawHash("NS", "a., b..c ,d"), "config NS=a., b..c ,d", []string{`r:CONFIG: "NS b..c": empty label (a final dot, or two dots in a row); want names separated by commas`}},
		{"bad NS alone", "r:CONFIG", rawHash("NS", "."), "nothing", []string{`r:CONFIG: "NS .": empty name; want names separated by commas`}},
		{"bad TTL", "r:CONFIG", rawHash("TTL", "1h", "COUNT", "2"), "config COUNT=2", []string{`r:CONFIG: "TTL 1h": not a usable number; want 0 to 2147483647`}},
		{"bad TTL of 32 bits", "r:CONFIG", rawHash("TTL", "2147483648"), "nothing", []string{`r:CONFIG: "TTL 2147483648": not a usable number; want 0 to 2147483647`}},
		{"bad negative TTL", "r:CONFIG", rawHash("TTL", "-1"), "nothing", []string{`r:CONFIG: "TTL -1": not a usable number; want 0 to 2147483647`}},
		{"bad empty TTL", "r:CONFIG", rawHash("TTL", ""), "nothing", []string{`r:CONFIG: "TTL ": not a usable number; want 0 to 2147483647`}},
		{"bad COUNT", "r:CONFIG", rawHash("COUNT", "0"), "nothing", []string{`r:CONFIG: "COUNT 0": not a usable number; want 1 to 255`}},
		{"bad large COUNT", "r:CONFIG", rawHash("COUNT", "256"), "nothing", []string{`r:CONFIG: "COUNT 256": not a usable number; want 1 to 255`}},
		{"bad ANSWER", "r:CONFIG", rawHash("ANSWER", "Random"), "nothing", []string{`r:CONFIG: "ANSWER Random": unknown; want random, consistent_hash, group_consistent_hash, geoip`}},
		{"bad field", "r:CONFIG", rawHash("ttl", "5", "TTL", "6"), "config TTL=6", []string{`r:CONFIG: "ttl": unknown field; want SOA, NS, TTL, ANSWER, COUNT, SHARD, ECS, FLOOR, ON_EMPTY, ALPN or PORT`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			id, defect := parseKey(tt.key)
			if defect != nil {
				t.Fatal(defect)
			}
			v, defects := parseValue(id, tt.key, tt.raw)
			if got := said(v); got != tt.want {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
			var got []string
			for _, d := range defects {
				got = append(got, d.String())
			}
			if !slices.Equal(got, tt.defects) {
				t.Errorf("defects:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tt.defects, "\n"))
			}
		})
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		hash   raw
		soa    bool
		badSOA bool
		ns     []string
		ttl    uint32
		answer Answer
		count  int
	}{
		{"defaults", rawHash("FLOOR", "1"), false, false, nil, 60, AnswerRandom, 0},
		{"all", rawHash("SOA", goodSOA, "NS", "b.x., A.x,b.X", "TTL", "7", "ANSWER", "geoip", "COUNT", "255"), true, false, []string{"b.x", "a.x"}, 7, AnswerGeography, 255},
		{"largest TTL", rawHash("TTL", "2147483647"), false, false, nil, 1<<31 - 1, AnswerRandom, 0},
		{"random", rawHash("ANSWER", "random"), false, false, nil, 60, AnswerRandom, 0},
		{"hash", rawHash("ANSWER", "consistent_hash"), false, false, nil, 60, AnswerHash, 0},
		{"group hash", rawHash("ANSWER", "group_consistent_hash"), false, false, nil, 60, AnswerGroupHash, 0},
		{"commas without names", rawHash("NS", " , a ,, "), false, false, []string{"a"}, 60, AnswerRandom, 0},
		{"bad values count as missing", rawHash("SOA", "x", "NS", "b..c,a", "TTL", "x", "ANSWER", "x", "COUNT", "x"), false, true, []string{"a"}, 60, AnswerRandom, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v, _ := parseValue(keyID{kind: kindConfig, name: wire(t, "r")}, "r:CONFIG", tt.hash)
			if v == nil {
				t.Fatal("no value")
			}
			c := v.config
			var ns []string
			for _, n := range c.ns {
				ns = append(ns, NameText(n))
			}
			if (c.soa != nil) != tt.soa || slices.Contains(c.bad, "SOA") != tt.badSOA || !slices.Equal(ns, tt.ns) || c.ttl != tt.ttl || c.answer != tt.answer || c.count != tt.count {
				t.Errorf("%+v; want %+v", c, tt)
			}
		})
	}
}

func TestParseState(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want, bad string }{
		{"active", "active", ""},
		{"draining", "draining", ""},
		{"drained since=2026-11-21T07:31:00+02:00", "drained since=2026-11-21T05:31:00Z", ""},
		{"active  since=2026-11-21T05:31:00Z ", "active since=2026-11-21T05:31:00Z", ""},
		{"draining since=yesterday", "draining", "since=yesterday: not a time"},
		{"draining until=2026-11-21T05:31:00Z", "draining", "until=2026-11-21T05:31:00Z: unknown attribute"},
		{"Draining", "", "unknown state"},
		{"", "", "unknown state"},
		{"since=2026-11-21T05:31:00Z", "", "unknown state"},
	} {
		v, defects := parseValue(keyID{kind: kindState}, "e:STATE", rawText(tt.text))
		got, bad := "", ""
		if v != nil {
			got = stateText(v.state, v.since)
		}
		for _, d := range defects {
			bad += d.Reason
		}
		if got != tt.want || bad != tt.bad {
			t.Errorf("%q: %q, defect %q; want %q, %q", tt.text, got, bad, tt.want, tt.bad)
		}
	}
}

func TestAnswerString(t *testing.T) {
	t.Parallel()
	for a, want := range map[Answer]string{
		AnswerRandom: "random", AnswerHash: "consistent_hash", AnswerGroupHash: "group_consistent_hash", AnswerGeography: "geoip",
	} {
		if got := a.String(); got != want {
			t.Errorf("%d is %q; want %q", a, got, want)
		}
	}
}

func TestValueEqual(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		key   string
		a, b  raw
		equal bool
	}{
		{"r:A", rawSet("192.0.2.1", "192.0.2.2"), rawSet("192.0.2.2", "192.0.2.1"), true},
		{"r:A", rawSet("192.0.2.1"), rawSet("192.0.2.1", "192.0.2.2"), false},
		{"r:A", rawSet("192.0.2.1", "192.0.2.2"), rawSet("192.0.2.1"), false},
		{"r:A", rawSet("192.0.2.1"), rawSet("192.0.2.2"), false},
		{"r:A", rawSet("192.0.2.0/24"), rawSet("192.0.2.0/25"), false},
		{"r:A", rawSet("192.0.2.0"), rawSet("192.0.2.0/24"), false},
		{"r:AAAA", rawSet("2001:db8::1"), rawSet("[2001:DB8::1]"), true},
		{"r:A:SKIPLIST", rawSet("192.0.2.1", "192.0.2.2"), rawSet("192.0.2.2", "192.0.2.1"), true},
		{"r:A:SKIPLIST", rawSet("192.0.2.1"), rawSet("192.0.2.0/24"), false},
		{"r:A:SKIPLIST", rawSet("192.0.2.1"), rawSet("192.0.2.1", "192.0.2.2"), false},
		{"r:A:BLACKHOLE", rawSet("192.0.2.1", "192.0.2.2"), rawSet("192.0.2.2", "192.0.2.1"), true},
		{"r:A:BLACKHOLE", rawSet("192.0.2.1"), rawSet("192.0.2.1 until=2026-11-21T05:31:00Z"), false},
		{"e:STATE", rawText("drained"), rawText(" drained"), true},
		{"e:STATE", rawText("drained"), rawText("draining"), false},
		{"e:STATE", rawText("drained since=2026-11-21T05:31:00Z"), rawText("drained since=2026-11-21T06:31:00+01:00"), true},
		{"e:STATE", rawText("drained since=2026-11-21T05:31:00Z"), rawText("drained"), false},
		{"e:HEALTH", rawText("up at=2026-11-21T05:31:00Z"), rawText(" up  at=2026-11-21T06:31:00+01:00"), true},
		{"e:HEALTH", rawText("up at=2026-11-21T05:31:00Z"), rawText("up at=2026-11-21T05:31:01Z"), false},
		{"e:HEALTH", rawText("up"), rawText("down"), false},
		{"r:GROUPS", rawSet("a", "b"), rawSet("b", "a"), true},
		{"r:GROUPS", rawSet("a", "b"), rawSet("a"), false},
		{"r:GROUPS", rawSet("a"), rawSet("A"), false}, // the text is hashed
		{"shop", rawText("a."), rawText("A"), true},
		{"shop", rawText("a"), rawText("b"), false},
		{"geoip:eu", rawText("a"), rawText("b"), false},
		{"r:CONFIG", rawHash("TTL", "5", "COUNT", "1"), rawHash("COUNT", "1", "TTL", "5"), true},
		{"r:CONFIG", rawHash("TTL", "5"), rawHash("TTL", "6"), false},
		{"r:CONFIG", rawHash("TTL", "5"), rawHash("TTL", "5", "COUNT", "1"), false},
		{"r:CONFIG", rawHash("TTL", "5"), rawHash("TTL", "5", "SOA", "x"), false}, // the SOA went bad
		{"r:CONFIG", rawHash("TTL", "5"), rawHash("TTL", "5", "x", "y"), true},
	} {
		id, _ := parseKey(tt.key)
		a, _ := parseValue(id, tt.key, tt.a)
		b, _ := parseValue(id, tt.key, tt.b)
		if a.equal(b) != tt.equal || b.equal(a) != tt.equal {
			t.Errorf("%s: %s equal %s: %v, %v; want %v", tt.key, said(a), said(b), a.equal(b), b.equal(a), tt.equal)
		}
		if !a.equal(a) || !b.equal(b) {
			t.Errorf("%s: not equal to itself", tt.key)
		}
	}
}

// TestParsedFamily guards the order of the families, which the arrays of a
// snapshot are indexed by.
func TestParsedFamily(t *testing.T) {
	t.Parallel()
	if steering.IPv4 != 0 || steering.IPv6 != 1 {
		t.Fatal("arrays by family assume 0 and 1")
	}
}
