package razor

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/miekg/dns"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// places are what a database of the tests knows: prefix to "NA US NY", where the
// state is of databases with cities alone.
type places map[string]string

// clients are the places that most tests go by.
var clients = places{
	"203.0.113.0/24":   "NA US NY",
	"198.51.100.0/24":  "NA US CA",
	"192.0.2.0/24":     "NA CA QC",
	"100.64.0.0/16":    "EU LT VL",
	"100.65.0.0/16":    "AF",
	"2001:db8:e::/48":  "EU LT VL",
	"2001:db8:f::/48":  "NA US NY",
	"2001:db8:10::/48": "SA BR",
}

// mmdb is a database in MaxMind's format, with states or without.
func mmdb(tb testing.TB, states bool, known places) []byte {
	tb.Helper()
	o := mmdbwriter.Options{DatabaseType: "GeoLite2-Country", RecordSize: 24, IncludeReservedNetworks: true}
	if states {
		o.DatabaseType = "GeoLite2-City"
	}
	w, err := mmdbwriter.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	for prefix, place := range known {
		codes := strings.Fields(place)
		r := mmdbtype.Map{"continent": mmdbtype.Map{"code": mmdbtype.String(codes[0]), "geoname_id": mmdbtype.Uint32(1)}}
		if len(codes) > 1 {
			r["country"] = mmdbtype.Map{"iso_code": mmdbtype.String(codes[1]), "names": mmdbtype.Map{"en": mmdbtype.String("x")}}
		}
		if states && len(codes) > 2 {
			r["subdivisions"] = mmdbtype.Slice{
				mmdbtype.Map{"iso_code": mmdbtype.String(codes[2])},
				mmdbtype.Map{"iso_code": mmdbtype.String("999")},
			}
			r["location"] = mmdbtype.Map{"latitude": mmdbtype.Float64(1.5)}
		}
		_, network, err := net.ParseCIDR(prefix)
		if err != nil {
			tb.Fatal(err)
		}
		if err := w.Insert(network, r); err != nil {
			tb.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// mmdbFile is such a database in a file.
func mmdbFile(tb testing.TB, states bool, known places) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "geo.mmdb")
	if err := os.WriteFile(path, mmdb(tb, states, known), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// withGeo opens a database for a server.
func withGeo(tb testing.TB, path string) func(*server) {
	return func(s *server) {
		g, err := openGeo(path)
		if err != nil {
			tb.Fatal(err)
		}
		s.geo, s.cfg.GeoIP = g, path
	}
}

func TestPlace(t *testing.T) {
	t.Parallel()
	for _, states := range []bool{true, false} {
		g, err := openGeo(mmdbFile(t, states, clients))
		if err != nil {
			t.Fatal(err)
		}
		for addr, want := range map[string]steering.Place{
			"203.0.113.9":     {Continent: "NA", Country: "US", Subdivision: "NY"},
			"100.65.1.1":      {Continent: "AF"},
			"2001:db8:e::1":   {Continent: "EU", Country: "LT", Subdivision: "VL"},
			"2001:db8:10::1":  {Continent: "SA", Country: "BR"},
			"2001:db8:ffff::": {},
			"10.0.0.1":        {},
			"::":              {},
		} {
			if !states {
				want.Subdivision = ""
			}
			if got := g.place(netip.MustParseAddr(addr)); got != want {
				t.Errorf("%s: %+v, want %+v", addr, got, want)
			}
		}
		if got := g.place(netip.Addr{}); got != (steering.Place{}) {
			t.Errorf("no address: %+v", got)
		}
	}
	var none *geo
	if got := none.place(netip.MustParseAddr("203.0.113.9")); got != (steering.Place{}) {
		t.Errorf("without a database: %+v", got)
	}
}

// geographic writes a zone that answers by geography. New York has no IPv6 and
// Europe no IPv4.
func geographic(tb testing.TB) fill {
	return func(s *upstreams.Embedded) {
		zoneConfig(s, "geo.test", "ANSWER", "geoip")
		set(tb, s, "geo.test:A", "198.18.0.1")
		set(tb, s, "geo.test:AAAA", "2001:db8:1::1")
		for key, route := range map[string]string{
			"geoip:na:us:ny": "ny.example", "geoip:na:us": "us.example", "geoip:na": "na.example",
			"geoip:eu": "eu.example", "geoip:sa:br": "gone.example", "geoip:sa": "sa.example",
		} {
			setString(tb, s, key, route)
		}
		set(tb, s, "ny.example:A", "198.18.0.2")
		set(tb, s, "us.example:A", "198.18.0.3")
		set(tb, s, "us.example:AAAA", "2001:db8:1::3")
		set(tb, s, "na.example:A", "198.18.0.4")
		set(tb, s, "na.example:AAAA", "2001:db8:1::4")
		set(tb, s, "eu.example:AAAA", "2001:db8:1::5")
		set(tb, s, "sa.example:A", "198.18.0.6", "198.18.66.6")
		setString(tb, s, "pinned.geo.test", "us.example")
		set(tb, s, "geo.test:A:SKIPLIST", "198.18.66.0/24")
		set(tb, s, "own.geo.test:A", "198.18.0.99")
	}
}

func TestGeography(t *testing.T) {
	t.Parallel()
	lists := fixed{snapshotOf(t, geographic(t))}
	const (
		a4, a6 = dns.TypeA, dns.TypeAAAA
	)
	for _, r := range []struct {
		name    string
		client  string
		qtype   uint16
		city    string // answer by a database with states
		country string // and without
	}{
		{"geo.test", "203.0.113.0/24", a4, "198.18.0.2", "198.18.0.3"},        // New York
		{"geo.test", "203.0.113.0/24", a6, "2001:db8:1::3", "2001:db8:1::3"},  // its route lacks the family: the country
		{"geo.test", "2001:db8:f::/48", a4, "198.18.0.2", "198.18.0.3"},       // New York by IPv6
		{"geo.test", "198.51.100.0/24", a4, "198.18.0.3", "198.18.0.3"},       // no key of the state
		{"geo.test", "192.0.2.0/24", a4, "198.18.0.4", "198.18.0.4"},          // no key of the country
		{"geo.test", "192.0.2.0/24", a6, "2001:db8:1::4", "2001:db8:1::4"},    // the same by IPv6
		{"geo.test", "100.64.0.0/24", a6, "2001:db8:1::5", "2001:db8:1::5"},   // the continent
		{"geo.test", "2001:db8:e::/56", a6, "2001:db8:1::5", "2001:db8:1::5"}, // the continent by IPv6
		{"geo.test", "100.64.0.0/24", a4, "198.18.0.1", "198.18.0.1"},         // it lacks the family: the zone
		{"geo.test", "100.65.0.0/24", a4, "198.18.0.1", "198.18.0.1"},         // no key of the continent
		{"geo.test", "2001:db8:10::/48", a4, "198.18.0.6", "198.18.0.6"},      // a route without a pool; and the skip list holds elsewhere
		{"geo.test", "10.0.0.0/8", a4, "198.18.0.1", "198.18.0.1"},            // not in the database
		{"geo.test", "::/0", a4, "198.18.0.2", "198.18.0.3"},                  // the resolver's place
		{"www.geo.test", "203.0.113.0/24", a4, "198.18.0.2", "198.18.0.3"},    // any name is there
		{"a.b.c.d.geo.test", "192.0.2.0/24", a4, "198.18.0.4", "198.18.0.4"},  // however deep
		{"own.geo.test", "192.0.2.0/24", a4, "198.18.0.4", "198.18.0.4"},      // also one with a pool
		{"pinned.geo.test", "192.0.2.0/24", a4, "198.18.0.3", "198.18.0.3"},   // stuck before geography
		{"x.pinned.geo.test", "192.0.2.0/24", a4, "198.18.0.4", "198.18.0.4"}, // and what is below is not
	} {
		for _, states := range []bool{true, false} {
			want := r.city
			if !states {
				want = r.country
			}
			c := newClient(t, newServer(lists, withGeo(t, mmdbFile(t, states, clients)))).from("203.0.113.53")
			m := c.askWith(r.name, r.qtype, subnet(r.client))
			if got := one(t, m); got != want {
				t.Errorf("%s for %s, states %t: %s, want %s", r.name, r.client, states, got, want)
			}
			scope := min(netip.MustParsePrefix(r.client).Bits(), 24)
			if strings.Contains(r.client, ":") {
				scope = min(netip.MustParsePrefix(r.client).Bits(), 48)
			}
			if r.name == "pinned.geo.test" {
				scope = 0
			}
			if got := scopeOf(m); got != scope {
				t.Errorf("%s for %s: scope %d, want %d", r.name, r.client, got, scope)
			}
			// The same without a client subnet, asked by the client itself.
			if p := netip.MustParsePrefix(r.client); p.Bits() > 0 {
				if got := one(t, c.from(p.Addr().Next().String()).ask(r.name, r.qtype)); got != want {
					t.Errorf("%s asked by %s, states %t: %s, want %s", r.name, p.Addr(), states, got, want)
				}
			}
		}
	}
}

// TestGeographyWildcard: with geography every name at or below the zone is there.
func TestGeographyWildcard(t *testing.T) {
	t.Parallel()
	lists := fixed{snapshotOf(t, geographic(t))}
	nodata := "NOERROR aa (" + soaOf("geo.test", "30") + ")"
	for what, c := range map[string]*client{
		"without a database": newClient(t, newServer(lists)),
		"with one":           newClient(t, newServer(lists, withGeo(t, mmdbFile(t, true, clients)))).from("10.0.0.1"),
	} {
		for n, want := range map[string]string{
			"geo.test":         "NOERROR aa geo.test. 60 A 198.18.0.1",
			"any.geo.test":     "NOERROR aa any.geo.test. 60 A 198.18.0.1",
			"*.a.b.c.geo.test": "NOERROR aa *.a.b.c.geo.test. 60 A 198.18.0.1",
			"geo.tes":          "REFUSED",
		} {
			if got := outcome(c.ask(n, dns.TypeA)); got != want {
				t.Errorf("%s, %s: %s, want %s", what, n, got, want)
			}
		}
		for _, qtype := range []uint16{dns.TypeSOA, dns.TypeNS, dns.TypeMX, 0, 65535} {
			if got := outcome(c.ask("any.geo.test", qtype)); got != nodata {
				t.Errorf("%s, type %d: %s", what, qtype, got)
			}
		}
	}
}

func TestTraceTXT(t *testing.T) {
	t.Parallel()
	lists := fixed{snapshotOf(t, func(s *upstreams.Embedded) {
		geographic(t)(s)
		zoneConfig(s, "random.test")
		set(t, s, "random.test:A", "198.18.0.1")
		set(t, s, "random.test:AAAA", "2001:db8:1::1")
		set(t, s, "four.random.test:A", "198.18.0.4")
		set(t, s, "six.random.test:AAAA", "2001:db8:1::6")
		set(t, s, "b.a.random.test:A", "198.18.0.9")
	})}
	database := withGeo(t, mmdbFile(t, true, clients))
	for _, r := range []struct {
		name, source, subnet string
		want                 string
	}{
		{"geo.test", "203.0.113.9", "", "Razor/203.0.113.9 (NA:US)/198.18.0.2"},
		{"www.geo.test", "203.0.113.9", "", "Razor/203.0.113.9 (NA:US)/198.18.0.2"},
		{"geo.test", "2001:db8:e::9", "", "Razor/2001:db8:e::9 (EU:LT)/2001:db8:1::5"},
		{"geo.test", "10.0.0.1", "203.0.113.0/24", "Razor/203.0.113.0 (NA:US)/198.18.0.2"},
		{"geo.test", "203.0.113.9", "0.0.0.0/0", "Razor/203.0.113.9 (NA:US)/198.18.0.2"},
		{"geo.test", "10.0.0.1", "", "Razor/10.0.0.1/198.18.0.1"},
		{"pinned.geo.test", "203.0.113.9", "", "Razor/203.0.113.9/198.18.0.3"},
		{"random.test", "203.0.113.9", "", "Razor/203.0.113.9/198.18.0.1"},
		{"random.test", "::ffff:203.0.113.9", "", "Razor/203.0.113.9/198.18.0.1"},
		{"random.test", "2001:db8:e::9", "", "Razor/2001:db8:e::9/2001:db8:1::1"},
		{"random.test", "fe80::9%lo", "", "Razor/fe80::9/2001:db8:1::1"},
		{"four.random.test", "2001:db8:e::9", "", "Razor/2001:db8:e::9/198.18.0.4"},
		{"six.random.test", "203.0.113.9", "", "Razor/203.0.113.9/2001:db8:1::6"},
		{"a.random.test", "203.0.113.9", "", "Razor/203.0.113.9/"},
	} {
		c := newClient(t, newServer(lists, database, tracing)).from(r.source)
		var options []string
		if r.subnet != "" {
			options = append(options, subnet(r.subnet))
		}
		m := c.askWith(r.name, dns.TypeTXT, options...)
		if got, want := outcome(m), `NOERROR aa `+r.name+`. 60 TXT "`+r.want+`"`; got != want {
			t.Errorf("%s from %s, subnet %q:\n got %s\nwant %s", r.name, r.source, r.subnet, got, want)
		}
		off := newClient(t, newServer(lists, database)).from(r.source)
		if m := off.askWith(r.name, dns.TypeTXT, options...); len(m.Answer) > 0 || len(m.Ns) != 1 || m.Rcode != dns.RcodeSuccess {
			t.Errorf("%s with tracing off: %s", r.name, outcome(m))
		}
	}
	c := newClient(t, newServer(lists, database, tracing))
	if got := outcome(c.ask("no.random.test", dns.TypeTXT)); !strings.HasPrefix(got, "NXDOMAIN") {
		t.Error(got)
	}
}

// journal is a log that a test reads while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// until waits for something that has to come.
func until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("waiting until %s: timed out", what)
		}
	}
}

// TestGeoReplaced: a database that is replaced on disk is taken over, and one
// that cannot be read leaves the last good one in place.
func TestGeoReplaced(t *testing.T) {
	t.Parallel()
	client := netip.MustParseAddr("203.0.113.9")
	before, after := places{"203.0.113.0/24": "NA US NY"}, places{"203.0.113.0/24": "EU LT VL"}
	write := func(t *testing.T, path string, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Error(err)
		}
	}
	move := func(t *testing.T, path string, data []byte) {
		write(t, path+".new", data)
		if err := os.Rename(path+".new", path); err != nil {
			t.Error(err)
		}
	}
	for _, r := range []struct {
		name string
		bad  func(t *testing.T, path string, good []byte) // first; nil for none
		good func(t *testing.T, path string, data []byte)
	}{
		{name: "moved into place", good: move},
		{name: "written over", good: write},
		{name: "garbage, then moved", good: move, bad: func(t *testing.T, path string, _ []byte) {
			write(t, path, bytes.Repeat([]byte("no database "), 1000))
		}},
		{name: "emptied, then written", good: write, bad: func(t *testing.T, path string, _ []byte) { write(t, path, nil) }},
		{name: "half of it, then all", good: write, bad: func(t *testing.T, path string, data []byte) {
			write(t, path, data[:len(data)/2])
		}},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			path := mmdbFile(t, true, before)
			g, err := openGeo(path)
			if err != nil {
				t.Fatal(err)
			}
			var j journal
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- g.watch(ctx, slog.New(slog.NewTextHandler(&j, nil))) }()
			t.Cleanup(func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
			if got := g.place(client).Continent; got != "NA" {
				t.Fatalf("before: %q", got)
			}
			data := mmdb(t, true, after)
			if r.bad != nil {
				r.bad(t, path, data)
				until(t, "it is said", func() bool { return strings.Contains(j.String(), "cannot be read") })
				if got := g.place(client).Continent; got != "NA" {
					t.Errorf("the last good database does not serve: %q", got)
				}
			}
			r.good(t, path, data)
			until(t, "the new database serves", func() bool { return g.place(client).Continent == "EU" })
		})
	}
	t.Run("removed", func(t *testing.T) {
		t.Parallel()
		path := mmdbFile(t, true, before)
		g, err := openGeo(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), geoCheck+geoCheck/2)
		defer cancel()
		if err := g.watch(ctx, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
		if got := g.place(client).Continent; got != "NA" {
			t.Errorf("the last good database does not serve: %q", got)
		}
	})
}
