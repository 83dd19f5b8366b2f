package upstreams

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/razor-steering/razor/steering"
)

// Blackhole is an attacked address or prefix: it leaves all answers of its zone,
// and gateways announce it with the blackhole community (RFC 7999). Of a plain
// IPv6 address the /64 leaves the prefixes of pools, as of a skip list.
type Blackhole struct {
	Prefix netip.Prefix // an address is one of full length
	Until  time.Time    // when it ends; zero without an end
}

// inForce tells whether its time has not yet come.
func (b Blackhole) inForce(now time.Time) bool { return b.Until.IsZero() || now.Before(b.Until) }

// String is the member as it is written in Redis.
func (b Blackhole) String() string { return withTime(MemberText(b.Prefix), "until", b.Until) }

// blackholed is a member of a BLACKHOLE set.
type blackholed struct {
	Blackhole
	text string // as it was written, for SREM
}

func (b blackholed) same(c blackholed) bool { return b.Blackhole == c.Blackhole }

// blackholes reads the members of a BLACKHOLE set, sorted by prefix, of one prefix
// the one that ends last first. An address whose end cannot be read has none: it
// was written because it is attacked.
func (p *parser) blackholes(f steering.Family, set []string) []blackholed {
	want := memberWant(f) + ", with until= and a time such as 2006-01-02T15:04:05Z behind it"
	out := make([]blackholed, 0, len(set))
	for _, text := range slices.Sorted(slices.Values(set)) {
		word, attributes := splitWord(text)
		m, err := ParseMember(f, word)
		if err != nil {
			p.bad(text, err.Error(), want)
			continue
		}
		b := blackholed{Blackhole{Prefix: m}, text}
		p.attributes(text, attributes, want, timeAttribute("until", &b.Until))
		out = append(out, b)
	}
	return slices.CompactFunc(sortBlackholes(out), func(a, b blackholed) bool {
		same := a.same(b)
		if same {
			p.bad(a.text, "the same as "+b.text, "one spelling of it")
		}
		return same
	})
}

func sortBlackholes(list []blackholed) []blackholed {
	slices.SortStableFunc(list, func(a, b blackholed) int {
		if c := a.Prefix.Compare(b.Prefix); c != 0 {
			return c
		}
		return compareEnds(b.Until, a.Until)
	})
	return list
}

// compareEnds orders times of which zero is never.
func compareEnds(a, b time.Time) int {
	switch {
	case a.IsZero() == b.IsZero():
		return a.Compare(b)
	case a.IsZero():
		return 1
	default:
		return -1
	}
}

func blackholeTexts(list []blackholed) []string {
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = b.String()
	}
	return out
}

// validity is the time for which it stays the same what of a zone's blackholes is
// in force. Outside of it the clock has gone on, or was set back.
type validity struct {
	from time.Time // the last end that has passed; zero without
	to   time.Time // the next end; zero without
}

func (v validity) holds(now time.Time) bool {
	return !now.Before(v.from) && (v.to.IsZero() || now.Before(v.to))
}

// blackhole takes what is attacked now out of a zone's answers, and notes for how
// long that is all.
func (m *model) blackhole(z *Zone) {
	now, valid := m.now(), validity{}
	for f := range z.skip {
		v := m.values[keyID{kindBlackhole, steering.Family(f), z.Name}]
		if v == nil {
			continue
		}
		entries := slices.Collect(z.skip[f].Entries())
		var last netip.Prefix
		for _, b := range v.blackholes {
			if !b.inForce(now) && b.Until.After(valid.from) {
				valid.from = b.Until
			}
			if b.Prefix == last || !b.inForce(now) {
				continue
			}
			last = b.Prefix
			z.blackholes = append(z.blackholes, b.Blackhole)
			entries = append(entries, b.Prefix)
			if compareEnds(b.Until, valid.to) < 0 {
				valid.to = b.Until
			}
		}
		if len(entries) > z.skip[f].Len() {
			z.skip[f] = steering.NewSkipList(steering.Family(f), entries)
		}
	}
	if valid != (validity{}) {
		m.valid[z.Name] = valid
	}
}

// outdated are the zones of which something else is attacked by now.
func (m *model) outdated() []string {
	var out []string
	now := m.now()
	for zone, valid := range m.valid {
		if !valid.holds(now) {
			out = append(out, zone)
		}
	}
	return out
}

// expire makes the snapshot anew where a blackhole has ended, or an edge was not heard
// for too long: no edit tells it.
func (f *Follower) expire() {
	if f.model.pulse.expire(); len(f.model.outdated())+len(f.model.pulse.turned) > 0 {
		f.publish(nil)
	}
}

// expiredDefects are the members of a BLACKHOLE set that are no longer obeyed.
func expiredDefects(id keyID, list []blackholed, now time.Time) []Defect {
	var out []Defect
	for _, b := range list {
		if !b.inForce(now) {
			out = append(out, Defect{Key: id.spelling(), Member: b.text, Reason: "expired", Want: "SREM"})
		}
	}
	return out
}

// Blackholes visits the zones, in wire form, with the addresses and prefixes that
// are attacked, IPv4 first, sorted by prefix, each once.
func (s *Snapshot) Blackholes() iter.Seq2[string, []Blackhole] {
	return func(yield func(string, []Blackhole) bool) {
		for name, z := range s.zones {
			if len(z.blackholes) > 0 && !yield(name, z.blackholes) {
				return
			}
		}
	}
}
