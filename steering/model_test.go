package steering

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
)

// model is the slow and obvious twin of a pool: every address of every member
// is written out and asked whether an entry of the skip list takes it. It works
// for small prefixes only.
type model struct {
	members map[netip.Prefix][]netip.Addr // what is left of each, ascending
	all     map[netip.Addr]bool
}

func newModel(f Family, members, entries []netip.Prefix) model {
	m := model{map[netip.Prefix][]netip.Addr{}, map[netip.Addr]bool{}}
	for _, member := range members {
		if FamilyOf(member.Addr()) != f {
			continue
		}
		member = member.Masked()
		var left []netip.Addr
		for a := member.Addr(); member.Contains(a); a = a.Next() {
			if !slices.ContainsFunc(entries, func(e netip.Prefix) bool {
				if f == IPv6 && e.IsSingleIP() && !member.IsSingleIP() {
					e = netip.PrefixFrom(e.Addr(), 64)
				}
				return FamilyOf(e.Addr()) == f && e.Masked().Contains(a)
			}) {
				left = append(left, a)
				m.all[a] = true
			}
		}
		if len(left) > 0 {
			m.members[member] = left
		}
	}
	return m
}

// sorted returns the members as Pool.Members yields them.
func (m model) sorted() []netip.Prefix {
	return slices.SortedFunc(maps.Keys(m.members), comparePrefixes)
}

// check compares a pool with its model: which members it has, and which address
// has which rank in each. As ranks are drawn uniformly, that is the whole truth
// about what can be drawn and how likely it is.
func (m model) check(t fataler, p *Pool) {
	t.Helper()
	want := m.sorted()
	if got := slices.Collect(p.Members()); !slices.Equal(got, want) {
		t.Fatalf("members %v, want %v", got, want)
	}
	if p.Len() != len(want) {
		t.Fatalf("Len %d, want %d", p.Len(), len(want))
	}
	for i := range p.Len() {
		member := p.member(i)
		if !p.Contains(member) {
			t.Fatalf("%v not found", member)
		}
		var got []netip.Addr
		if j := i - p.addresses.len(); j < 0 {
			got = append(got, member.Addr())
		} else {
			for rank := uint64(0); rank <= p.prefixes[j].lastFree.lo; rank++ {
				got = append(got, p.free(j, uint128{0, rank}).addr(p.Family()))
			}
		}
		if !slices.Equal(got, m.members[member]) {
			t.Fatalf("of %v is left %v, want %v", member, got, m.members[member])
		}
	}
}

// checkAnswer checks that an answer has k distinct addresses of the model, or
// as many as there are, and that a round through the members comes first: no
// member is drawn from twice before all are drawn from once. The latter is only
// told where members do not overlap.
func (m model) checkAnswer(t fataler, f Family, k int, answer []byte) {
	t.Helper()
	got := addressesOf(f, answer)
	if want := min(k, len(m.all)); len(got) != want {
		t.Fatalf("%d addresses, want %d: %v", len(got), want, got)
	}
	seen := map[netip.Addr]bool{}
	for _, a := range got {
		if seen[a] {
			t.Fatalf("%v is in the answer twice: %v", a, got)
		}
		if !m.all[a] {
			t.Fatalf("%v must not be answered: %v", a, got)
		}
		seen[a] = true
	}
	total := 0
	for _, left := range m.members {
		total += len(left)
	}
	if total > len(m.all) {
		return
	}
	for member, left := range m.members {
		n := 0
		for _, a := range got {
			if member.Contains(a) {
				n++
			}
		}
		if k <= len(m.members) && n > 1 || k >= len(m.members) && n == 0 && len(left) > 0 {
			t.Fatalf("%d addresses of %v: %v", n, member, got)
		}
	}
}

// fataler is what a *testing.T and a *rapid.T have in common.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// addressesOf reads an answer.
func addressesOf(f Family, answer []byte) []netip.Addr {
	var out []netip.Addr
	for record := range slices.Chunk(answer, f.Octets()) {
		a, ok := netip.AddrFromSlice(record)
		if !ok {
			panic(fmt.Sprintf("answer of %d octets", len(answer)))
		}
		out = append(out, a)
	}
	return out
}

// prefixes parses addresses and prefixes.
func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out[i] = netip.PrefixFrom(a, a.BitLen())
		} else {
			out[i] = netip.MustParsePrefix(text)
		}
	}
	return out
}

// texts writes addresses as a list that is easy to compare.
func texts(addresses []netip.Addr) string { return fmt.Sprint(addresses) }

func TestModel(t *testing.T) {
	m := newModel(IPv6, prefixes("2001:db8::/126", "2001:db8::1", "2001:db8:0:1::/127"),
		prefixes("2001:db8:0:1::", "2001:db8::2/127"))
	if got, want := fmt.Sprint(m.sorted()), "[2001:db8::/126 2001:db8::1/128]"; got != want {
		t.Errorf("members %s, want %s", got, want)
	}
	if len(m.all) != 2 {
		t.Errorf("addresses %v, want 2", m.all)
	}
}
