package upstreams

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// appChange is a list of an application, with its endpoints' last octets.
func appChange(app string, hosts ...byte) change {
	id := keyID{kind: kindUpstream, name: mustWire(app)}
	if len(hosts) == 0 {
		return change{id, nil}
	}
	v := &value{}
	for _, h := range hosts {
		v.list = append(v.list, Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, h}), 80), Weight: 1})
	}
	return change{id, v}
}

func metaChange(app string, index uint64) change {
	return change{keyID{kind: kindMeta, name: mustWire(app)}, &value{meta: &meta{Meta: Meta{Source: SourceConsul, Index: index}}}}
}

// since is what a new snapshot differs by, in text.
func since(s, old *Snapshot) []string {
	var out []string
	for app, u := range s.UpstreamsSince(old) {
		if u == nil {
			out = append(out, NameText(app)+" gone")
		} else {
			out = append(out, fmt.Sprint(NameText(app), " ", len(u.Endpoints)))
		}
	}
	slices.Sort(out)
	return out
}

func TestUpstreamsSince(t *testing.T) {
	t.Parallel()
	m := newModel(nil)
	none := m.snapshot
	first := m.apply([]change{appChange("a", 1, 2), appChange("b", 1), metaChange("b", 1)})
	for _, tt := range []struct {
		name    string
		changes []change
		want    []string
	}{
		{"nothing", nil, nil},
		{"another pool", []change{{keyID{kind: kindPool, name: mustWire("r.example")}, poolOf(0, 3)}}, nil},
		{"one more endpoint", []change{appChange("a", 1, 2, 3)}, []string{"a 3"}},
		{"another endpoint", []change{appChange("a", 1, 4, 3)}, []string{"a 3"}},
		{"the same again", []change{appChange("a", 1, 4, 3)}, nil},
		{"META alone", []change{metaChange("b", 2)}, nil},
		{"META with the list", []change{metaChange("b", 3), appChange("b", 1, 2)}, []string{"b 2"}},
		{"a new one and one that goes", []change{appChange("c", 1), appChange("a")}, []string{"a gone", "c 1"}},
		{"one that never was", []change{appChange("d")}, nil},
	} {
		old := m.snapshot
		s := m.apply(tt.changes)
		if got := since(s, old); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v; want %v", tt.name, got, tt.want)
		}
	}
	for name, tt := range map[string]struct{ s, old *Snapshot }{"nil": {m.snapshot, nil}, "the empty one": {m.snapshot, none}} {
		if got, want := since(tt.s, tt.old), []string{"b 2", "c 1"}; !slices.Equal(got, want) {
			t.Errorf("since %s: %v; want %v", name, got, want)
		}
	}
	if got, want := since(m.snapshot, first), []string{"a gone", "b 2", "c 1"}; !slices.Equal(got, want) {
		t.Errorf("over several: %v; want %v", got, want)
	}
	if got, want := since(none, m.snapshot), []string{"b gone", "c gone"}; !slices.Equal(got, want) {
		t.Errorf("backwards: %v; want %v", got, want)
	}
	for range m.snapshot.UpstreamsSince(none) {
		break // a visit that ends early
	}
}

// An upstream of which nothing changed is the same one.
func TestUnchangedUpstreamKeepsItsPointer(t *testing.T) {
	t.Parallel()
	m := newModel(nil)
	app := mustWire("a")
	u := m.apply([]change{appChange("a", 1, 2), metaChange("a", 1)}).Upstream(app)
	if m.apply([]change{appChange("a", 1, 2), metaChange("a", 1), appChange("b", 1)}).Upstream(app) != u {
		t.Error("written as it was: another upstream")
	}
	got := m.apply([]change{metaChange("a", 2)}).Upstream(app)
	if got == u || got.Index != 2 || u.Index != 1 || m.snapshot.EndpointCount != 3 {
		t.Errorf("after its META: %+v, before %+v, %d endpoints", got, u, m.snapshot.EndpointCount)
	}
}

// Many subscribers, each with its own pace, end up with what the lists say.
func TestSubscribers(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{})
	const subscribers, apps, edits = 50, 20, 300
	var wg sync.WaitGroup
	results := make([]map[string]int, subscribers)
	for i := range subscribers {
		wg.Go(func() {
			lists := map[string]int{}
			for last := (*Snapshot)(nil); lists[mustWire("end")] == 0; {
				<-w.Changed(last)
				s := w.Snapshot()
				if s == last {
					t.Error("told of a change that is none")
					return
				}
				for app, u := range s.UpstreamsSince(last) {
					if u == nil {
						delete(lists, app)
					} else {
						lists[app] = len(u.Endpoints)
					}
				}
				last = s
			}
			results[i] = lists
		})
	}
	for i := range edits {
		key := fmt.Sprintf("app%d:UPSTREAMS", i%apps)
		if i%7 == 6 {
			w.do("DEL " + key)
		} else {
			w.do(fmt.Sprintf("SADD %s 192.0.2.%d:80", key, i%250))
		}
	}
	w.do("SADD end:UPSTREAMS 192.0.2.1:80")
	wg.Wait()
	want := map[string]int{}
	for app, u := range w.Snapshot().Upstreams() {
		want[app] = len(u.Endpoints)
	}
	for i, got := range results {
		if !maps.Equal(got, want) {
			t.Fatalf("subscriber %d has %v; want %v", i, got, want)
		}
	}
}

// closed tells whether a channel is.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestChanged(t *testing.T) { // not parallel: it counts allocations
	f, err := NewFollower(Config{}, Options{}, quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	first := f.Changed(nil)
	if closed(first) {
		t.Error("changed before the first snapshot")
	}
	f.publish([]change{appChange("a", 1)})
	s := f.Snapshot()
	if !closed(first) || !closed(f.Changed(nil)) {
		t.Error("not told of the first snapshot")
	}
	if closed(f.Changed(s)) {
		t.Error("told of the snapshot that there is")
	}
	if n := testing.AllocsPerRun(100, func() { closed(f.Changed(s)) }); n > 0 {
		t.Errorf("waiting allocates %v times", n)
	}
	f.publish([]change{appChange("a", 2)})
	if !closed(f.Changed(s)) || closed(f.Changed(f.Snapshot())) {
		t.Error("not told of the second snapshot, or told of a third")
	}
}

// BenchmarkSubscription is what subscribers cost: one that waits, and one that is
// told of an edit of one among 1,000 applications of 100 endpoints.
func BenchmarkSubscription(b *testing.B) {
	f, err := NewFollower(Config{}, Options{}, quiet(), nil)
	if err != nil {
		b.Fatal(err)
	}
	hosts := make([]byte, 101)
	for i := range hosts {
		hosts[i] = byte(i)
	}
	var changes []change
	for i := range 1000 {
		changes = append(changes, appChange(fmt.Sprintf("app%d", i), hosts[:100]...))
	}
	f.publish(changes)
	b.Run("idle", func(b *testing.B) {
		b.ReportAllocs()
		last := f.Snapshot()
		for b.Loop() {
			if closed(f.Changed(last)) {
				b.Fatal("changed")
			}
		}
	})
	one, other := appChange("app7", hosts...), appChange("app7", hosts[:100]...)
	edit := func(i int) {
		if i%2 == 0 {
			f.publish([]change{one})
		} else {
			f.publish([]change{other})
		}
	}
	b.Run("edit", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			edit(i)
		}
	})
	b.Run("edit and visit", func(b *testing.B) {
		b.ReportAllocs()
		visits := 0
		last := f.Snapshot()
		for i := 0; b.Loop(); i++ {
			edit(i)
			<-f.Changed(last)
			s := f.Snapshot()
			for range s.UpstreamsSince(last) {
				visits++
			}
			last = s
		}
		b.ReportMetric(float64(visits)/float64(b.N), "visits/op")
	})
}
