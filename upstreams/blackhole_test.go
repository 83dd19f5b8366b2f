package upstreams

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/steering"
)

func TestParseBlackhole(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		f    steering.Family
		set  []string
		want string // prefixes and ends
		bad  []string
	}{
		{"addresses and prefixes", steering.IPv4, []string{"192.0.2.1", "198.51.100.0/24 until=2026-11-21T05:31:00Z"}, "192.0.2.1, 198.51.100.0/24 until=2026-11-21T05:31:00Z", nil},
		{"IPv6, another zone of time", steering.IPv6, []string{"[2001:DB8:0::1]   until=2026-11-21T07:31:00.5+02:00"}, "2001:db8::1 until=2026-11-21T05:31:00.5Z", nil},
		{"of one prefix the last end first", steering.IPv4, []string{"192.0.2.1 until=2026-01-01T00:00:00Z", "192.0.2.1/32 until=2027-01-01T00:00:00Z", "192.0.2.1", "::ffff:192.0.2.1"}, "192.0.2.1, 192.0.2.1 until=2027-01-01T00:00:00Z, 192.0.2.1 until=2026-01-01T00:00:00Z", []string{"::ffff:192.0.2.1: the same as 192.0.2.1"}},
		{"a bad end is no end", steering.IPv4, []string{"192.0.2.1 until=tomorrow"}, "192.0.2.1", []string{"192.0.2.1 until=tomorrow: until=tomorrow: not a time"}},
		{"other attributes", steering.IPv4, []string{"192.0.2.1 till=x for"}, "192.0.2.1", []string{"192.0.2.1 till=x for: till=x: unknown attribute", "192.0.2.1 till=x for: for: not key=value"}},
		{"bad addresses alone", steering.IPv6, []string{"", "192.0.2.1", "2001:db8::1", "2001::dead::beef::1 until=2026-11-21T05:31:00Z"}, "2001:db8::1", []string{
			": unable to parse IP", "192.0.2.1: IPv4 among IPv6", "2001::dead::beef::1 until=2026-11-21T05:31:00Z: multiple :: in address",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := &parser{}
			var got, bad []string
			for _, b := range p.blackholes(tt.f, tt.set) {
				got = append(got, b.String())
			}
			for _, d := range p.defects {
				bad = append(bad, d.Member+": "+d.Reason)
			}
			if strings.Join(got, ", ") != tt.want || !slices.Equal(bad, tt.bad) {
				t.Errorf("%q\n%q\nwant %q\n%q", got, bad, tt.want, tt.bad)
			}
		})
	}
}

func FuzzBlackhole(f *testing.F) {
	for _, s := range []string{"192.0.2.1 until=2026-11-21T05:31:00Z", "[2001:db8::1]/64", "::ffff:192.0.2.1 until=", "=", " "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, family := range families {
			for _, b := range (&parser{}).blackholes(family, []string{text}) {
				again := (&parser{}).blackholes(family, []string{b.String()})
				if len(again) != 1 || again[0].Blackhole != b.Blackhole {
					t.Errorf("%q is %v, written and read again %v", text, b, again)
				}
			}
		}
	})
}

// A plain IPv6 address takes its /64 out of prefixes, as in a skip list, until its
// time comes.
func TestBlackholeEnds(t *testing.T) {
	t.Parallel()
	now := worldDay
	m := newModel(nil)
	m.now = func() time.Time { return now }
	at := func(hours int) string { return worldDay.Add(time.Duration(hours) * time.Hour).Format(time.RFC3339) }
	m.apply([]change{
		parsed(t, "z.example:CONFIG", rawHash("SOA", goodSOA)),
		parsed(t, "z.example:A", rawSet("192.0.2.1", "192.0.2.2", "192.0.2.3")),
		parsed(t, "z.example:AAAA", rawSet("2001:db8::1", "2001:db8::2", "2001:db8::/64")),
		parsed(t, "z.example:A:SKIPLIST", rawSet("192.0.2.3")),
		parsed(t, "z.example:A:BLACKHOLE", rawSet("192.0.2.1 until="+at(2), "192.0.2.3 until="+at(1), "192.0.2.2 until="+at(0))),
		parsed(t, "z.example:AAAA:BLACKHOLE", rawSet("2001:db8::1 until="+at(3), "2001:db8:5::/48")),
	})
	for _, step := range []struct {
		hours          int
		want, attacked string
	}{
		{0, "192.0.2.2 2001:db8::2", "192.0.2.1 192.0.2.3 2001:db8::1 2001:db8:5::/48"},
		{1, "192.0.2.2 2001:db8::2", "192.0.2.1 2001:db8::1 2001:db8:5::/48"},
		{2, "192.0.2.1 192.0.2.2 2001:db8::2", "2001:db8::1 2001:db8:5::/48"},
		{3, "192.0.2.1 192.0.2.2 2001:db8::/64 2001:db8::1 2001:db8::2", "2001:db8:5::/48"},
		{2, "192.0.2.1 192.0.2.2 2001:db8::2", "2001:db8::1 2001:db8:5::/48"}, // the clock is set back
		{9, "192.0.2.1 192.0.2.2 2001:db8::/64 2001:db8::1 2001:db8::2", "2001:db8:5::/48"},
	} {
		now = worldDay.Add(time.Duration(step.hours) * time.Hour)
		if waits := len(m.outdated()) > 0; waits != (step.hours > 0) {
			t.Errorf("hour %d: something has ended: %v", step.hours, waits)
		}
		s := m.apply(nil)
		var attacked []string
		for _, list := range s.Blackholes() {
			for _, b := range list {
				attacked = append(attacked, MemberText(b.Prefix))
			}
		}
		if got := answered(s, "z.example"); got != step.want || strings.Join(attacked, " ") != step.attacked {
			t.Errorf("hour %d: answered %s, attacked %s; want %s, %s", step.hours, got, attacked, step.want, step.attacked)
		}
		if len(m.outdated()) > 0 {
			t.Errorf("hour %d: it ends again", step.hours)
		}
	}
}

// A follower notices an end by itself, be Redis there or away.
func TestFollowerExpires(t *testing.T) {
	t.Parallel()
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprint("away ", away), func(t *testing.T) {
			t.Parallel()
			e := startEmbedded(t)
			w := follow(t, e.Addr(), Options{Rescan: time.Hour})
			w.waitLink(LinkTracking)
			w.zone("r.example")
			w.do("SADD r.example:A 192.0.2.1 192.0.2.2")
			w.do("SADD r.example:A:BLACKHOLE 192.0.2.1 192.0.2.7")
			w.wait("blackholed", func() bool { s := w.Snapshot(); return s.ZoneCount() == 1 && answered(s, "r.example") == "192.0.2.2" })
			w.doArgs("SADD", "r.example:A:BLACKHOLE", "192.0.2.1 until="+time.Now().Add(2*time.Second).Format(time.RFC3339Nano))
			w.do("SREM r.example:A:BLACKHOLE 192.0.2.1")
			w.wait("the end is known", func() bool {
				for _, list := range w.Snapshot().Blackholes() {
					return !slices.Contains(list, Blackhole{Prefix: prefixes("192.0.2.1")[0]})
				}
				return false
			})
			if away {
				e.Close()
				w.waitLink(LinkDown)
			}
			w.wait("back", func() bool { return answered(w.Snapshot(), "r.example") == "192.0.2.1 192.0.2.2" })
		})
	}
}

func TestCheckNamesExpired(t *testing.T) {
	t.Parallel()
	e := startEmbedded(t)
	e.HSet("r.example:CONFIG", "SOA", goodSOA)
	if err := e.SAdd("r.example:A:BLACKHOLE", "192.0.2.1 until=2020-01-01T00:00:00Z", "192.0.2.2", "192.0.2.3 until=2999-01-01T00:00:00Z"); err != nil {
		t.Fatal(err)
	}
	defects, err := CheckLive(t.Context(), Config{Address: e.Addr()}, nil)
	want := Defect{Key: "r.example:A:BLACKHOLE", Member: "192.0.2.1 until=2020-01-01T00:00:00Z", Reason: "expired", Want: "SREM"}
	if err != nil || !slices.Equal(defects, []Defect{want}) {
		t.Errorf("%v, %v; want %v", defects, err, want)
	}
}

// What a hold waits for: a blackhole that is in force, not one that has ended.
func TestBlackholeGuards(t *testing.T) {
	t.Parallel()
	before := map[keyID]*value{}
	c := parsed(t, "a:A:BLACKHOLE", rawSet("192.0.2.1 until=2026-11-21T05:00:00Z", "192.0.2.2 until=2026-11-21T06:00:00Z"))
	before[c.id] = c.value
	for hour, guards := range map[int]int{4: 1, 5: 1, 6: 0} {
		l := lossOf(before, nil, nil, worldDay.Add(time.Duration(hour)*time.Hour))
		if l.Guards != guards || l.NamesOf != 0 {
			t.Errorf("at %d:00 %+v; want %d guards", hour, l, guards)
		}
	}
}
