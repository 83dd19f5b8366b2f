package upstreams

import (
	"strings"
	"testing"
)

// liveStore is a store with good and bad things.
func liveStore(t *testing.T) Config {
	t.Helper()
	e := startEmbedded(t)
	for key, members := range map[string][]string{
		"n2.r.example:A":         {"192.0.2.2", "192.0.2.10", "198.51.100.0/24"},
		"n2.r.example:AAAA":      {"2001:db8::2", "[2001:DB8:0::1]", "2001::dead::beef::1"},
		"n1.r.example:A":         {"192.0.2.1", "192.0.2.01", "localhost"},
		"N3.elsewhere.test:AAAA": {"2001:db8:3::/64"},
		"r.example:A:SKIPLIST":   {"192.0.2.2"},
		"broken.example:A":       {"rubbish"},
		"a.r.example:SKIPLIST":   {"192.0.2.1"},
		"b..example:A":           {"192.0.2.1"},
		"user:17:friends":        {"x"},
	} {
		if err := e.SAdd(key, members...); err != nil {
			t.Fatal(err)
		}
	}
	e.HSet("r.example:CONFIG", "SOA", goodSOA, "TTL", "1h")
	e.HSet("nosoa.example:CONFIG", "TTL", "5")
	e.HSet("badsoa.example:CONFIG", "SOA", "x\x1b[31m 1 2 3 4 5 6")
	for key, text := range map[string]string{"shop.r.example": "n1.r.example", "s.r.example": "a..b", "geoip:eu:": "n1", "geoip:eu": "n1"} {
		if err := e.Set(key, text); err != nil {
			t.Fatal(err)
		}
	}
	return Config{Address: e.Addr()}
}

func TestCheckLive(t *testing.T) {
	t.Parallel()
	cfg := liveStore(t)
	defects, err := CheckLive(t.Context(), cfg, []string{"r.example", "nosoa.example.", "badsoa.example", "Missing.example"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range defects {
		got = append(got, d.String())
	}
	soa := "want ns1.example.org. hostmaster.example.org. SERIAL REFRESH RETRY EXPIRE MINIMUM"
	want := []string{
		`Missing.example:CONFIG: the zone has no SOA and is refused; want HSET Missing.example:CONFIG SOA …`,
		`a.r.example:SKIPLIST: "SKIPLIST": unknown kind of key; want one of CONFIG, A, AAAA, A:SKIPLIST, AAAA:SKIPLIST, A:BLACKHOLE, AAAA:BLACKHOLE, GROUPS, EDGES, STATE, HEALTH behind the name`,
		`b..example:A: empty label (a final dot, or two dots in a row); want a name in lower case without the final dot before :A`,
		`badsoa.example:CONFIG: "SOA x\027[31m 1 2 3 4 5 6": x\027[31m: space or control character in a name; ` + soa,
		`broken.example:A: "rubbish": unable to parse IP` + want4,
		`geoip:eu:: not a place; want geoip:<continent>[:<country>[:<state>]], such as geoip:eu:lt`,
		`n1.r.example:A: "192.0.2.01": IPv4 field has octet with leading zero` + want4,
		`n1.r.example:A: "localhost": unable to parse IP` + want4,
		`n2.r.example:AAAA: "2001::dead::beef::1": multiple :: in address` + want6,
		`nosoa.example.:CONFIG: the zone has no SOA and is refused; want HSET nosoa.example.:CONFIG SOA …`,
		`r.example:CONFIG: "TTL 1h": not a usable number; want 0 to 2147483647`,
		`s.r.example: "a..b": empty label (a final dot, or two dots in a row); want the name of a route`,
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("%s\nwant\n%s\n%s", g, w, textDiff(g, w))
	}
}

func TestCheckLiveFails(t *testing.T) {
	t.Parallel()
	cfg := liveStore(t)
	if _, err := CheckLive(t.Context(), cfg, []string{"a..b"}); err == nil {
		t.Error("a zone that is no name")
	}
	if _, err := CheckLive(t.Context(), Config{Address: "127.0.0.1:1"}, nil); err == nil {
		t.Error("no server")
	}
	if _, err := CheckLive(t.Context(), Config{Address: cfg.Address, TLS: &TLSConfig{CA: "/missing"}}, nil); err == nil {
		t.Error("no authority")
	}
}

func TestListLive(t *testing.T) {
	t.Parallel()
	cfg := liveStore(t)
	for _, tt := range []struct {
		name string
		only []string
		json bool
		want string
	}{
		{"table", nil, false, `NAME               A  AAAA  ENDPOINTS  EDGES  STATE
n1.r.example       1  0     0          0      active
n2.r.example       3  2     0          0      active
n3.elsewhere.test  0  1     0          0      active
`},
		{"members", []string{"N2.R.Example.", "n1.r.example"}, false, `n2.r.example	192.0.2.2
n2.r.example	192.0.2.10
n2.r.example	198.51.100.0/24
n2.r.example	2001:db8::1
n2.r.example	2001:db8::2
n1.r.example	192.0.2.1
`},
		{"JSON", []string{"n2.r.example", "n3.elsewhere.test"}, true, `[
  {
    "name": "n2.r.example",
    "a": [
      "192.0.2.2/32",
      "192.0.2.10/32",
      "198.51.100.0/24"
    ],
    "aaaa": [
      "2001:db8::1/128",
      "2001:db8::2/128"
    ]
  },
  {
    "name": "n3.elsewhere.test",
    "aaaa": [
      "2001:db8:3::/64"
    ]
  }
]
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			if err := ListLive(t.Context(), cfg, []string{"r.example"}, tt.only, tt.json, &b); err != nil {
				t.Fatal(err)
			}
			if b.String() != tt.want {
				t.Errorf("%s\nwant\n%s", b.String(), tt.want)
			}
		})
	}
	t.Run("no such route", func(t *testing.T) {
		t.Parallel()
		var b strings.Builder
		err := ListLive(t.Context(), cfg, nil, []string{"n1.r.example", "n9.r.example"}, false, &b)
		if err == nil || err.Error() != "n9.r.example: no such list in Redis" || b.Len() > 0 {
			t.Errorf("%q, %v", b.String(), err)
		}
	})
	t.Run("nothing as JSON", func(t *testing.T) {
		t.Parallel()
		var b strings.Builder
		if err := ListLive(t.Context(), Config{Address: startEmbedded(t).Addr()}, nil, nil, true, &b); err != nil || b.String() != "[]\n" {
			t.Errorf("%q, %v", b.String(), err)
		}
	})
}
