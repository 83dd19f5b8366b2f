package upstreams

import (
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/razor-steering/razor/steering"
)

const (
	benchPools   = 1000
	benchMembers = 1000 // of a pool
)

// benchRaws are the pools as Redis gives them: IPv4 and IPv6 in turn.
func benchRaws(b *testing.B) (ids []keyID, keys []string, raws []raw) {
	b.Helper()
	for i := range benchPools {
		key := fmt.Sprintf("n%d.r.example:A", i)
		if i%2 == 1 {
			key += "AAA"
		}
		id, _ := parseKey(key)
		members := make([]string, benchMembers)
		for j := range members {
			if k := i*benchMembers + j; id.family == steering.IPv4 {
				members[j] = netip.AddrFrom4([4]byte{10, byte(k >> 16), byte(k >> 8), byte(k)}).String()
			} else {
				members[j] = fmt.Sprintf("2001:db8:%x:%x::%x", i, j, uint16(k))
			}
		}
		ids, keys, raws = append(ids, id), append(keys, key), append(raws, raw{exists: true, set: members})
	}
	return ids, keys, raws
}

func benchConfig(b *testing.B) change {
	b.Helper()
	v, defects := parseValue(keyID{kind: kindConfig}, "", rawHash("SOA", goodSOA))
	if len(defects) > 0 {
		b.Fatal(defects)
	}
	return change{keyID{kind: kindConfig, name: wire(b, "r.example")}, v}
}

func benchLoad(b *testing.B, ids []keyID, keys []string, raws []raw) *model {
	b.Helper()
	m := newModel(nil)
	changes := []change{benchConfig(b)}
	for i, id := range ids {
		v, defects := parseValue(id, keys[i], raws[i])
		if len(defects) > 0 {
			b.Fatal(defects[0])
		}
		changes = append(changes, change{id, v})
	}
	m.apply(changes)
	return m
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkLoad is a million members from what Redis gives to a snapshot.
func BenchmarkLoad(b *testing.B) {
	ids, keys, raws := benchRaws(b)
	before := heap()
	m := benchLoad(b, ids, keys, raws)
	used := heap() - before
	if m.snapshot.MemberCount != benchPools*benchMembers {
		b.Fatal(m.snapshot.MemberCount)
	}
	runtime.KeepAlive(m)
	runtime.KeepAlive(raws)
	m = nil
	b.ReportAllocs()
	for b.Loop() {
		m = benchLoad(b, ids, keys, raws)
	}
	runtime.KeepAlive(m)
	b.ReportMetric(float64(used)/(benchPools*benchMembers), "B/member")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(benchPools*benchMembers), "ns/member")
}

// benchEdit alternates between two values of a key.
func benchEdit(b *testing.B, m *model, id keyID, one, two *value) {
	b.Helper()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		v := one
		if i%2 == 1 {
			v = two
		}
		m.apply([]change{{id, v}})
	}
}

// BenchmarkEdit is one member more or less of a pool of 1,000 among 1,000.
func BenchmarkEdit(b *testing.B) {
	m := benchLoadAll(b)
	id := keyID{kindPool, steering.IPv4, wire(b, "n0.r.example")}
	b.Run("apply", func(b *testing.B) { benchEdit(b, m, id, poolOf(0, 1000), poolOf(0, 1001)) })
	b.Run("parse", func(b *testing.B) {
		r := rawSet(memberTexts(poolOf(0, 1000).pool.Members(), 1000)...)
		b.ReportAllocs()
		for b.Loop() {
			v, _ := parseValue(id, "n0.r.example:A", r)
			m.apply([]change{{id, v}})
		}
	})
	b.Run("skip list", func(b *testing.B) {
		m.apply([]change{{keyID{kindSkip, steering.IPv4, wire(b, "r.example")}, skipOf(10_000)}})
		benchEdit(b, m, id, poolOf(0, 1000), poolOf(0, 1001))
	})
}

func benchLoadAll(b *testing.B) *model {
	b.Helper()
	ids, keys, raws := benchRaws(b)
	return benchLoad(b, ids, keys, raws)
}

// BenchmarkStickyEdit is one sticky name more or less among 100,000.
func BenchmarkStickyEdit(b *testing.B) {
	m := newModel(nil)
	changes := []change{benchConfig(b)}
	for i := range 100_000 {
		changes = append(changes, change{
			keyID{kind: kindSticky, name: wire(b, "shop"+strconv.Itoa(i)+".r.example")},
			&value{route: wire(b, "n"+strconv.Itoa(i%1000)+".r.example")},
		})
	}
	before := heap()
	m.apply(changes)
	b.Logf("%d octets a name", (heap()-before)/100_000)
	id := keyID{kind: kindSticky, name: wire(b, "shop7.r.example")}
	b.Run("change", func(b *testing.B) {
		benchEdit(b, m, id, &value{route: wire(b, "n1.r.example")}, &value{route: wire(b, "n2.r.example")})
	})
	b.Run("add and remove", func(b *testing.B) { benchEdit(b, m, id, nil, &value{route: wire(b, "n2.r.example")}) })
	b.Run("place", func(b *testing.B) {
		benchEdit(b, m, keyID{kind: kindGeo, name: "eu"}, &value{route: wire(b, "n1.r.example")}, &value{route: wire(b, "n2.r.example")})
	})
	b.Run("CONFIG", func(b *testing.B) { benchEdit(b, m, benchConfig(b).id, benchConfig(b).value, benchConfig(b).value) })
}

// skipOf has n entries, spread over the addresses of benchRaws.
func skipOf(n int) *value {
	entries := make([]netip.Prefix, n)
	for i := range entries {
		k := i * (benchPools * benchMembers / n)
		entries[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k >> 16), byte(k >> 8), byte(k)}), 32)
	}
	return &value{skip: steering.NewSkipList(steering.IPv4, entries)}
}

// BenchmarkSkipListEdit is one entry more or less of 10,000, over a million
// members.
func BenchmarkSkipListEdit(b *testing.B) {
	m := benchLoadAll(b)
	id := keyID{kindSkip, steering.IPv4, wire(b, "r.example")}
	b.Run("apply", func(b *testing.B) { benchEdit(b, m, id, skipOf(10_000), skipOf(9_999)) })
	b.Run("one entry", func(b *testing.B) { benchEdit(b, m, id, skipOf(1), nil) })
	b.Run("parse", func(b *testing.B) {
		r := rawSet(memberTexts(skipOf(10_000).skip.Entries(), 10_000)...)
		b.ReportAllocs()
		for b.Loop() {
			v, _ := parseValue(id, "r.example:A:SKIPLIST", r)
			m.apply([]change{{id, v}})
		}
	})
}

// BenchmarkLossOf is the comparison that a rescan makes.
func BenchmarkLossOf(b *testing.B) {
	before, now := benchLoadAll(b), benchLoadAll(b)
	for b.Loop() {
		if l := lossOf(before.values, now.values, before.snapshot.zones, time.Time{}); l.Members > 0 {
			b.Fatal(l)
		}
	}
}

// BenchmarkSave is the writing of a million members.
func BenchmarkSave(b *testing.B) {
	m := benchLoadAll(b)
	for b.Loop() {
		if err := writeCommands(io.Discard, m.values); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReport is a key with bad members that one more comes to, and many bad
// keys that a rescan finds again.
func BenchmarkReport(b *testing.B) {
	const n = 10_000
	f, err := NewFollower(Config{}, Options{}, quiet(), nil)
	if err != nil {
		b.Fatal(err)
	}
	bad := make([]Defect, n)
	keys := map[string][]Defect{}
	for i := range bad {
		bad[i] = Defect{Key: "r.example:A", Member: "bad" + strconv.Itoa(i), Reason: "unable to parse IP", Want: want4}
		key := "bad" + strconv.Itoa(i)
		keys[key] = []Defect{{Key: key, Reason: "unknown kind of key"}}
	}
	b.Run("members", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			f.report("r.example:A", bad[:n-i%2])
		}
	})
	b.Run("keys", func(b *testing.B) {
		for b.Loop() {
			f.reportAll(keys)
		}
	})
}
