package integration

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// BenchmarkEditToAnswer is the time from an edit on the primary, through a
// replica, to the answer that has it, with a million members in the lists. Let it
// run for longer than 30 s, so that a rescan falls into it.
func BenchmarkEditToAnswer(b *testing.B) {
	primary := million(b)
	n := startReady(b, primary.Replica().Addr, zones("z.example"))
	conn := n.dial(question("probe.z.example", "A"))
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		want := addr(fmt.Sprintf("192.0.2.%d", i%250+1))
		start := time.Now()
		primary.Do("DEL probe.z.example:A")
		primary.Do("SADD probe.z.example:A " + want.String())
		for conn.ask() != want {
		}
		took = append(took, time.Since(start))
	}
	reportTimes(b, took)
}

func reportTimes(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e6, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100])/1e6, "ms-p99")
	b.ReportMetric(float64(took[len(took)-1])/1e6, "ms-max")
}

// edits times edits of an application's list, from the command on the primary to
// the follower's snapshot that has it.
func edits(b *testing.B, primary *redistest.Server, f *upstreams.Follower, key string) {
	b.Helper()
	app, _ := upstreams.WireName(strings.TrimSuffix(key, ":UPSTREAMS"))
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		last := f.Snapshot()
		want := len(last.Upstream(app).Endpoints) + 1 - i%2*2
		start := time.Now()
		primary.Do([]string{"SADD ", "SREM "}[i%2] + key + " [2001:db8:ffff::1]:80")
		for len(last.Upstream(app).Endpoints) != want {
			<-f.Changed(last)
			last = f.Snapshot()
		}
		took = append(took, time.Since(start))
	}
	reportTimes(b, took)
}

// BenchmarkEditToSnapshot is an edit on the primary, through a replica, to the
// follower's snapshot: 1,000 applications of 100 endpoints are in it.
func BenchmarkEditToSnapshot(b *testing.B) {
	primary := applications(b, 1000, 100)
	f := follow(b, upstreams.Config{Address: primary.Replica().Addr}, upstreams.Options{})
	edits(b, primary, f, "app7:UPSTREAMS")
}

// BenchmarkEditInLargeList is one endpoint more or less of 100,000.
func BenchmarkEditInLargeList(b *testing.B) {
	s := applications(b, 1, 100_000)
	edits(b, s, follow(b, upstreams.Config{Address: s.Addr}, upstreams.Options{}), "app0:UPSTREAMS")
}

// applications fills a server with lists of endpoints.
func applications(b *testing.B, apps, endpoints int) *redistest.Server {
	b.Helper()
	s := redistest.Start(b)
	pipe := s.Client.Pipeline()
	for i := range apps {
		list := make([]any, endpoints)
		for j := range list {
			list[j] = fmt.Sprintf("[2001:db8:%x:%x::%x]:8080 weight=5 site=east", i, j>>16, j&0xffff)
		}
		pipe.SAdd(b.Context(), fmt.Sprintf("app%d:UPSTREAMS", i), list...)
	}
	if _, err := pipe.Exec(b.Context()); err != nil {
		b.Fatal(err)
	}
	return s
}

// million fills a server with 1,000 pools of 1,000 members, half of each family.
func million(b *testing.B) *redistest.Server {
	s := redistest.Start(b)
	config(s, "z.example")
	pipe := s.Client.Pipeline()
	for i := range 500 {
		pipe.SAdd(b.Context(), route(i)+":A", redistest.Members(false, 1000*i, 1000)...)
		pipe.SAdd(b.Context(), route(i)+":AAAA", redistest.Members(true, 1000*i, 1000)...)
	}
	if _, err := pipe.Exec(b.Context()); err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkLoadMillion is a start with a million members in a thousand pools:
// time until the snapshot, and heap that it keeps.
func BenchmarkLoadMillion(b *testing.B) {
	load(b, million(b), "B/member", func(s *upstreams.Snapshot) int { return s.MemberCount })
}

// BenchmarkLoadEndpoints is the same with 1,000 applications of 1,000 endpoints.
func BenchmarkLoadEndpoints(b *testing.B) {
	load(b, applications(b, 1000, 1000), "B/endpoint", func(s *upstreams.Snapshot) int { return s.EndpointCount })
}

func load(b *testing.B, s *redistest.Server, unit string, count func(*upstreams.Snapshot) int) {
	b.Helper()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var f *upstreams.Follower
	for b.Loop() {
		f = follow(b, upstreams.Config{Address: s.Addr}, upstreams.Options{})
	}
	kept := heap() - before
	if got := count(f.Snapshot()); got != 1_000_000 {
		b.Fatal(got, unit)
	}
	b.ReportMetric(float64(kept)/1e6/float64(max(b.N, 1)), unit)
}

// BenchmarkEditInMillion is one edit in them: from SADD or SREM to the snapshot.
func BenchmarkEditInMillion(b *testing.B) {
	s := million(b)
	f := follow(b, upstreams.Config{Address: s.Addr}, upstreams.Options{})
	for i := 0; b.Loop(); i++ {
		s.Do([]string{"SADD", "SREM"}[i%2] + " n7.z.example:A 192.0.2.1")
		for poolLen(f, route(7), steering.IPv4) != 1001-i%2 {
			runtime.Gosched()
		}
	}
}

// BenchmarkServe asks over UDP, with a window of queries under way, for names
// that are known and for others. The time is that of client and server together.
func BenchmarkServe(b *testing.B) {
	s := redistest.Start(b)
	config(s, "z.example")
	s.DoArgs(append([]any{"SADD", "n1.z.example:A"}, redistest.Members(false, 0, 512)...)...)
	n := startReady(b, s.Addr, zones("z.example"))
	for name, q := range map[string]string{"known": "n1.z.example", "unknown": "x1.z.example"} {
		b.Run(name, func(b *testing.B) {
			const window = 64
			w := n.dial(question(q, "A"))
			for range window {
				w.send()
			}
			for b.Loop() {
				w.receive()
				w.send()
			}
			for range window {
				w.receive()
			}
		})
	}
}

// BenchmarkStartFromDisk is a start while Redis is away.
func BenchmarkStartFromDisk(b *testing.B) {
	s := million(b)
	dir := b.TempDir()
	f := follow(b, upstreams.Config{Address: s.Addr}, upstreams.Options{StateDir: dir})
	await(b, "the snapshot on disk", func() bool {
		g, err := upstreams.NewFollower(upstreams.Config{}, upstreams.Options{StateDir: dir}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		return err == nil && g.Snapshot() != nil && g.Snapshot().MemberCount == f.Snapshot().MemberCount
	})
	for b.Loop() {
		if _, err := upstreams.NewFollower(upstreams.Config{}, upstreams.Options{StateDir: dir}, slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err != nil {
			b.Fatal(err)
		}
	}
}
