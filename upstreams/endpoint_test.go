package upstreams

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

func TestEndpoints(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		set     []string
		want    string   // endpoints, separated by commas
		defects []string // member: reason
	}{
		{"bare", []string{"[2001:DB8:0:12::a]:8080", "192.0.2.1:80"}, "192.0.2.1:80,[2001:db8:0:12::a]:8080", nil},
		{
			"attributes",
			[]string{"[2001:db8::1]:443 site=east  weight=5 sid=2001:db8:0:12::100"},
			"[2001:db8::1]:443 weight=5 sid=2001:db8:0:12::100 site=east", nil,
		},
		{"weight 0", []string{"192.0.2.1:80 weight=0"}, "192.0.2.1:80 weight=0", nil},
		{"mapped", []string{"[::ffff:192.0.2.1]:80"}, "192.0.2.1:80", nil},
		{"bad port", []string{"192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:+5", "192.0.2.1:", "192.0.2.1"}, "", []string{
			"192.0.2.1: no port", "192.0.2.1:: bad port", "192.0.2.1:+5: bad port", "192.0.2.1:0: bad port", "192.0.2.1:65536: bad port",
		}},
		{"no brackets", []string{"2001:db8::1:80"}, "", []string{"2001:db8::1:80: IPv6 address without brackets"}},
		{"bad address", []string{"[2001::dead::beef::1]:80", "host:80", "[fe80::1%eth0]:80", "010.0.0.1:80"}, "", []string{
			"010.0.0.1:80: IPv4 field has octet with leading zero", "[2001::dead::beef::1]:80: multiple :: in address",
			"[fe80::1%eth0]:80: zone identifier", "host:80: unable to parse IP",
		}},
		{"empty", []string{" "}, "", []string{" : empty"}},
		{"a bad attribute leaves the endpoint", []string{"192.0.2.1:80 site=east colour=red"}, "192.0.2.1:80 site=east", []string{
			"192.0.2.1:80 site=east colour=red: colour=red: unknown attribute",
		}},
		{"a bad weight does not", []string{"192.0.2.1:80 weight=-1 site=east"}, "", []string{
			"192.0.2.1:80 weight=-1 site=east: weight=-1: bad weight",
		}},
		{"bad sid and site", []string{"192.0.2.1:80 sid=192.0.2.1 site= x"}, "192.0.2.1:80", []string{
			"192.0.2.1:80 sid=192.0.2.1 site= x: sid=192.0.2.1: not an IPv6 address",
			"192.0.2.1:80 sid=192.0.2.1 site= x: site=: not one word", "192.0.2.1:80 sid=192.0.2.1 site= x: x: not key=value",
		}},
		{"one address twice", []string{"192.0.2.1:80 weight=9", "192.0.2.1:80 weight=2"}, "192.0.2.1:80 weight=2", []string{
			"192.0.2.1:80 weight=9: the same address as 192.0.2.1:80 weight=2",
		}},
		{"one address in three spellings", []string{"[2001:DB8::1]:80", "[2001:db8:0::1]:80", "[2001:db8::1]:80"}, "[2001:db8::1]:80", []string{
			"[2001:db8:0::1]:80: the same address as [2001:DB8::1]:80", "[2001:db8::1]:80: the same address as [2001:DB8::1]:80",
		}},
		{"a weight twice", []string{"192.0.2.1:80 weight=0 weight=7", "192.0.2.2:80 weight=x weight=7"}, "", []string{
			"192.0.2.1:80 weight=0 weight=7: weight=7: given twice",
			"192.0.2.2:80 weight=x weight=7: weight=x: bad weight", "192.0.2.2:80 weight=x weight=7: weight=7: given twice",
		}},
		{"another attribute twice", []string{"192.0.2.1:80 site=east site=west x=1 x=2"}, "192.0.2.1:80 site=east", []string{
			"192.0.2.1:80 site=east site=west x=1 x=2: site=west: given twice",
			"192.0.2.1:80 site=east site=west x=1 x=2: x=1: unknown attribute", "192.0.2.1:80 site=east site=west x=1 x=2: x=2: unknown attribute",
		}},
		{"a weight without value", []string{"192.0.2.1:80 weight"}, "", []string{"192.0.2.1:80 weight: weight: not key=value"}},
		{"sid in brackets", []string{"192.0.2.1:80 sid=[2001:DB8::1]"}, "192.0.2.1:80 sid=2001:db8::1", nil},
		{"sid in one bracket", []string{"192.0.2.1:80 sid=[2001:db8::1"}, "192.0.2.1:80", []string{
			"192.0.2.1:80 sid=[2001:db8::1: sid=[2001:db8::1: bracket not closed",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := &parser{key: "app:UPSTREAMS"}
			var got, defects []string
			for _, e := range p.endpoints(row.set) {
				got = append(got, e.String())
			}
			for _, d := range p.defects {
				defects = append(defects, d.Member+": "+d.Reason)
			}
			if strings.Join(got, ",") != row.want || !slices.Equal(defects, row.defects) {
				t.Errorf("%q\n%q\nwant %q\n%q", got, defects, row.want, row.defects)
			}
		})
	}
}

func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"[2001:db8::1]:80 weight=5 sid=2001:db8::2 site=x", "192.0.2.1:80", "[::ffff:192.0.2.1]:1", "a:b", "[:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p := &parser{}
		for _, e := range p.endpoints([]string{text}) {
			again := (&parser{}).endpoints([]string{e.String()})
			if len(again) != 1 || again[0] != e {
				t.Errorf("%q is %v, written and read again %v", text, e, again)
			}
		}
	})
}

// Lists and their META are in the snapshot, and go with their keys.
func TestUpstreams(t *testing.T) {
	t.Parallel()
	m := newModel(nil)
	app := mustWire("shop")
	s := m.apply([]change{
		parsed(t, "Shop:UPSTREAMS", raw{exists: true, set: []string{"192.0.2.1:80", "192.0.2.2:80 weight=3"}}),
		parsed(t, "shop:UPSTREAMS:META", raw{exists: true, hash: map[string]string{"source": "consul", "index": "17", "updated": "2026-01-02T03:04:05Z"}}),
	})
	u := s.Upstream(app)
	if u == nil || len(u.Endpoints) != 2 || u.Endpoints[1].Weight != 3 || u.Source != SourceConsul || u.Index != 17 ||
		!u.Updated.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) || s.EndpointCount != 2 {
		t.Errorf("%+v, %d endpoints", u, s.EndpointCount)
	}
	s = m.apply([]change{parsed(t, "shop:UPSTREAMS", raw{exists: true, set: []string{"192.0.2.1:80"}})})
	if s.Upstream(app).Source != SourceConsul || s.EndpointCount != 1 || len(u.Endpoints) != 2 {
		t.Errorf("%+v, %d endpoints, before %+v", s.Upstream(app), s.EndpointCount, u)
	}
	s = m.apply([]change{{keyID{kind: kindUpstream, name: app}, nil}})
	if s.Upstream(app) != nil || s.EndpointCount != 0 {
		t.Errorf("%+v, %d endpoints after the list is gone", s.Upstream(app), s.EndpointCount)
	}
	for range s.Upstreams() {
		t.Error("a list is left")
	}
}

// Names above an application are known as long as it has a list.
func TestUpstreamsBelow(t *testing.T) {
	t.Parallel()
	m := newModel(nil)
	list := raw{exists: true, set: []string{"192.0.2.1:80"}}
	gone := func(name string) change { return change{keyID{kind: kindUpstream, name: mustWire(name)}, nil} }
	for _, step := range []struct {
		change change
		want   []string
	}{
		{parsed(t, "web.example.org:UPSTREAMS", list), []string{"example.org", "org"}},
		{parsed(t, "web.example.org:UPSTREAMS", raw{exists: true, set: []string{"192.0.2.2:80"}}), []string{"example.org", "org"}},
		{parsed(t, "a.web.example.org:UPSTREAMS", list), []string{"example.org", "org", "web.example.org"}},
		{parsed(t, "mail.org:UPSTREAMS", list), []string{"example.org", "org", "web.example.org"}},
		{parsed(t, "org:UPSTREAMS:META", raw{exists: true, hash: map[string]string{"index": "1"}}), []string{"example.org", "org", "web.example.org"}},
		{gone("web.example.org"), []string{"example.org", "org", "web.example.org"}},
		{gone("a.web.example.org"), []string{"org"}},
		{gone("mail.org"), nil},
	} {
		s := m.apply([]change{step.change})
		var got []string
		for _, name := range []string{"example.org", "org", "web.example.org", "a.web.example.org", "mail.org", "net"} {
			if s.UpstreamsBelow(mustWire(name)) {
				got = append(got, name)
			}
		}
		if !slices.Equal(got, step.want) {
			t.Errorf("%v: %q, want %q", step.change.id, got, step.want)
		}
	}
	if m.snapshot.UpstreamsBelow("\x00") {
		t.Error("the root is above something")
	}
}

func TestBadMeta(t *testing.T) {
	t.Parallel()
	id, _ := parseKey("shop:UPSTREAMS:META")
	v, defects := parseValue(id, "shop:UPSTREAMS:META", raw{exists: true, hash: map[string]string{"source": "me", "index": "-1", "updated": "now", "x": "y"}})
	if v != nil || len(defects) != 4 {
		t.Errorf("%+v, %v", v, defects)
	}
}

// BenchmarkUpstreams parses and keeps 1,000 applications of 1,000 endpoints.
func BenchmarkUpstreams(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	sets := make([][]string, 1000)
	for i := range sets {
		for j := range 1000 {
			a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i), 14: byte(j >> 8), 15: byte(j)})
			sets[i] = append(sets[i], fmt.Sprintf("[%v]:%d site=east", a, 1024+r.IntN(1000)))
		}
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var m *model
	for b.Loop() {
		m = newModel(nil)
		var changes []change
		for i, set := range sets {
			id, _ := parseKey(fmt.Sprintf("app%d:UPSTREAMS", i))
			v, _ := parseValue(id, "", raw{exists: true, set: set})
			changes = append(changes, change{id, v})
		}
		m.apply(changes)
	}
	b.ReportMetric(float64(heap()-before)/1e6, "B/endpoint")
	b.ReportMetric(float64(unsafe.Sizeof(Endpoint{})), "B/struct")
	runtime.KeepAlive(sets)
	runtime.KeepAlive(m)
}
