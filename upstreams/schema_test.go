package upstreams

import (
	"testing"

	"github.com/razor-steering/razor/steering"
)

func TestParseKey(t *testing.T) {
	t.Parallel()
	const v4, v6 = steering.IPv4, steering.IPv6
	for _, tt := range []struct {
		key      string
		kind     kind
		family   steering.Family
		name     string // presentation form
		spelling string
	}{
		{"r.example:CONFIG", kindConfig, v4, "r.example", "r.example:CONFIG"},
		{"r.example:A", kindPool, v4, "r.example", "r.example:A"},
		{"r.example:AAAA", kindPool, v6, "r.example", "r.example:AAAA"},
		{"r.example:A:SKIPLIST", kindSkip, v4, "r.example", "r.example:A:SKIPLIST"},
		{"r.example:AAAA:SKIPLIST", kindSkip, v6, "r.example", "r.example:AAAA:SKIPLIST"},
		{"r.example:GROUPS", kindGroups, v4, "r.example", "r.example:GROUPS"},
		{"shop.example", kindSticky, v4, "shop.example", "shop.example"},
		{"R.Example:A", kindPool, v4, "r.example", "r.example:A"},
		{"Shop.EXAMPLE", kindSticky, v4, "shop.example", "shop.example"},
		{"org:A", kindPool, v4, "org", "org:A"},
		{`a\.b.example:A`, kindPool, v4, `a\.b.example`, `a\.b.example:A`},
		{`a\058b.example:A`, kindPool, v4, "a:b.example", `a\058b.example:A`},
		{`a\058b.example`, kindSticky, v4, "a:b.example", `a\058b.example`},

		{"r.example:A:BLACKHOLE", kindBlackhole, v4, "r.example", "r.example:A:BLACKHOLE"},
		{"r.example:AAAA:BLACKHOLE", kindBlackhole, v6, "r.example", "r.example:AAAA:BLACKHOLE"},
		{"r.example:EDGES", kindEdges, v4, "r.example", "r.example:EDGES"},
		{"r.example:STATE", kindState, v4, "r.example", "r.example:STATE"},
		{"R.example:HEALTH", kindHealth, v4, "r.example", "r.example:HEALTH"},
		{"app:UPSTREAMS", kindUpstream, v4, "app", "app:UPSTREAMS"},
		{"app:UPSTREAMS:META", kindMeta, v4, "app", "app:UPSTREAMS:META"},
		{"prefix:2001:DB8::/32", kindSubnet, v6, "2001:db8::/32", "prefix:2001:db8::/32"},

		// Of others.
		{"r.example:B", kindForeign, v4, "", ""},
		{"r.example:a", kindForeign, v4, "", ""},
		{"r.example:A:", kindForeign, v4, "", ""},
		{"r.example:A:skiplist", kindForeign, v4, "", ""},
		{"r.example:A:SKIPLIST:X", kindForeign, v4, "", ""},
		{"r.example:", kindForeign, v4, "", ""},
		{":", kindForeign, v4, "", ""},
		{"", kindForeign, v4, "", ""},
		{"two words", kindForeign, v4, "", ""},
		{"shop.example.", kindForeign, v4, "", ""},
		{"{tag}:lock", kindForeign, v4, "", ""},
	} {
		t.Run(tt.key, func(t *testing.T) {
			t.Parallel()
			id, defect := parseKey(tt.key)
			if defect != nil {
				t.Fatalf("defect: %v", defect)
			}
			want := keyID{kind: tt.kind, family: tt.family}
			if tt.name != "" {
				if want.name = tt.name; tt.kind != kindSubnet {
					want.name = wire(t, tt.name)
				}
			}
			if id != want {
				t.Errorf("%+v; want %+v", id, want)
			}
			if tt.spelling == "" {
				return
			}
			if got := id.spelling(); got != tt.spelling {
				t.Errorf("spelling %q; want %q", got, tt.spelling)
			}
			if again, _ := parseKey(id.spelling()); again != id {
				t.Errorf("the spelling %q is the key %+v; want %+v", id.spelling(), again, id)
			}
		})
	}
}

func TestParseGeoKey(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ key, place string }{
		{"geoip:eu", "eu"},
		{"geoip:eu:lt", "eu:lt"},
		{"geoip:eu:lt:vl", "eu:lt:vl"},
		{"geoip:EU:LT:VL", "eu:lt:vl"},
		{"geoip:na:us:02", "na:us:02"},
	} {
		id, defect := parseKey(tt.key)
		if want := (keyID{kind: kindGeo, name: tt.place}); id != want || defect != nil {
			t.Errorf("%s: %+v, %v; want %+v", tt.key, id, defect, want)
		}
		if got := id.spelling(); got != "geoip:"+tt.place {
			t.Errorf("%s: spelling %q", tt.key, got)
		}
	}
}

func TestBadKey(t *testing.T) {
	t.Parallel()
	const place = "; want geoip:<continent>[:<country>[:<state>]], such as geoip:eu:lt"
	for _, tt := range []struct{ key, want string }{
		{"r..example:A", "r..example:A: empty label (a final dot, or two dots in a row); want a name in lower case without the final dot before :A"},
		{"r.example.:CONFIG", "r.example.:CONFIG: empty label (a final dot, or two dots in a row); want a name in lower case without the final dot before :CONFIG"},
		{":A", ":A: empty name; want a name in lower case without the final dot before :A"},
		{"a b:AAAA:SKIPLIST", "a b:AAAA:SKIPLIST: space or control character in a name; want a name in lower case without the final dot before :AAAA:SKIPLIST"},
		{`a\:GROUPS`, `a\:GROUPS: bad escape, \DDD or \X expected; want a name in lower case without the final dot before :GROUPS`},
		{"geoip:", "geoip:: not a place" + place},
		{"geoip::lt", "geoip::lt: not a place" + place},
		{"geoip:eu:", "geoip:eu:: not a place" + place},
		{"geoip:eu:lt:vl:x", "geoip:eu:lt:vl:x: not a place" + place},
		{"geoip:eu lt", "geoip:eu lt: not a place" + place},
		{"geoip:eü", `geoip:e\195\188: not a place` + place},
	} {
		t.Run(tt.key, func(t *testing.T) {
			t.Parallel()
			id, defect := parseKey(tt.key)
			if id.kind != kindForeign || defect == nil {
				t.Fatalf("%+v, %v; want a defect", id, defect)
			}
			if got := defect.String(); got != tt.want {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestInZone(t *testing.T) {
	t.Parallel()
	apex := func(name string) bool { return name == wire(t, "example") || name == wire(t, "r.other.test") }
	const kinds = "one of CONFIG, A, AAAA, A:SKIPLIST, AAAA:SKIPLIST, A:BLACKHOLE, AAAA:BLACKHOLE, GROUPS, EDGES, STATE, HEALTH behind the name"
	for _, tt := range []struct {
		key  string
		name string // of a sticky name
		want string // of a slip
	}{
		{"example", "example", ""},
		{"a.b.example", "a.b.example", ""},
		{"A.Example", "a.example", ""},
		{"x.r.other.test", "x.r.other.test", ""},
		{"other.test", "", ""},
		{"xexample", "", ""},
		{"test:B", "", ""},
		{"a.example:B", "", kinds},
		{"a.example:aaaa:skiplist", "", "AAAA:SKIPLIST in upper case"},
		{"Example:config", "", "CONFIG in upper case"},
		{"a.example:", "", kinds},
		{"a..example:B", "", ""},
		{"session:a.example", "", ""},
	} {
		t.Run(tt.key, func(t *testing.T) {
			t.Parallel()
			id, defect := inZone(tt.key, apex)
			want := keyID{}
			if tt.name != "" {
				want = keyID{kind: kindSticky, name: wire(t, tt.name)}
			}
			if id != want {
				t.Errorf("%+v; want %+v", id, want)
			}
			switch {
			case (defect != nil) != (tt.want != ""):
				t.Errorf("defect %v; want %q", defect, tt.want)
			case defect != nil && (defect.Want != tt.want || defect.Key != tt.key || defect.Reason != "unknown kind of key"):
				t.Errorf("defect %v; want %q", defect, tt.want)
			}
		})
	}
}

func TestRedisType(t *testing.T) {
	t.Parallel()
	for k, want := range map[kind]string{
		kindConfig: "hash", kindPool: "set", kindSkip: "set", kindBlackhole: "set", kindGroups: "set", kindGeo: "string", kindSticky: "string",
	} {
		if got := k.redisType(); got != want {
			t.Errorf("kind %d: %q; want %q", k, got, want)
		}
	}
}
