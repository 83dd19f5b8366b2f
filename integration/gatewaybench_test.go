package integration

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/integration/netlab"
)

// quiet is a benchmark that does not tell every command.
type quiet struct{ testing.TB }

func (quiet) Log(...any)          {}
func (quiet) Logf(string, ...any) {}

const thousandBIRD = `
log stderr all;
router id 198.51.100.255;
protocol device { }
protocol static { ipv4; %s }
protocol static { ipv6; %s }
protocol bgp tor {
  local as 4210000001;
  neighbor 2001:db8:0:1::1 as 4200000000;
  password "change-me";
  ttl security on;
  connect delay time 0;
  graceful restart off;
  ipv4 { import none; export all; extended next hop on; };
  ipv6 { import none; export all; };
}
`

// BenchmarkThousandPrefixes is a gateway with 1,024 prefixes: from its start, and from
// the session's, until the last of them is in the router's FIB, and the memory of its
// processes. BIRD does the same in turn, on the same node. (FRR 8.4 as the router leaves
// the last messages that come in large pieces, as BIRD's do, until the next keepalive.)
func BenchmarkThousandPrefixes(b *testing.B) {
	for _, file := range []string{"frr-tor.conf", "bird-tor.conf"} {
		b.Run(file, func(b *testing.B) { thousandTimes(b, file) })
	}
}

func thousandTimes(b *testing.B, file string) {
	edit, section := thousand()
	f := newFront(quiet{b}, file, append(edit, "error wait time 1, 30", "error wait time 1, 1")...)
	g := f.gateway(strings.Replace(byPassword, "}]", ", graceful_restart: off}]", 1), section)
	all := func() time.Time {
		return f.fib.Until("1,024 prefixes", func(fib netlab.FIB) bool { return vips(fib) == 1024 })
	}
	end := func(p *netlab.Process) {
		p.Kill()
		f.fib.Until("none", func(fib netlab.FIB) bool { return vips(fib) == 0 })
	}
	all()
	end(g.Process)
	conf := birdThousand()
	var ours, birds speed
	for b.Loop() {
		start := time.Now()
		g.start()
		ours.note(start, g.established, all, func() []int { return append(g.speakers(), g.PID) })
		end(g.Process)

		start = time.Now()
		bird := g.node.StartBIRD(conf)
		birds.note(start, func() time.Time { return birdEstablished(b, bird) }, all, func() []int { return []int{bird.PID} })
		end(bird.Process)
	}
	ours.report(b, "")
	birds.report(b, "bird-")
}

// birdThousand has BIRD announce what thousand does.
func birdThousand() string {
	var routes [2]string
	for _, p := range thousandPrefixes() {
		family := strings.Count(p, ":") / 2 // 198.18.0.1/32, 2001:db8:ffff::1/128
		routes[min(family, 1)] += "route " + p + " blackhole; "
	}
	return fmt.Sprintf(thousandBIRD, routes[0], routes[1])
}

// established is since when the session is.
func (g *behind) established() time.Time {
	g.tb.Helper()
	g.awaitUp(1)
	return g.status().Peers[0].Since
}

// birdEstablished is since when BIRD's session is.
func birdEstablished(tb testing.TB, bird *netlab.BIRD) time.Time {
	tb.Helper()
	for line := range strings.Lines(bird.Birdc("show protocols tor")) {
		words := strings.Fields(line)
		if words[0] != "tor" || words[len(words)-1] != "Established" {
			continue
		}
		today := time.Now().Format("2006-01-02 ")
		at, err := time.ParseInLocation("2006-01-02 15:04:05.000", today+words[4], time.Local)
		if err != nil {
			tb.Fatal(err)
		}
		return at
	}
	tb.Fatal("no session of BIRD")
	return time.Time{}
}

// speed is how fast prefixes arrived, and what that took.
type speed struct {
	rounds                 int
	fromStart, fromSession time.Duration
	resident, shared       int // kB; what several processes share is shared out in the second
}

// note waits until all is there, and notes the times and the memory of processes.
func (s *speed) note(start time.Time, established, all func() time.Time, processes func() []int) {
	there := all()
	s.rounds++
	s.fromStart += there.Sub(start)
	s.fromSession += there.Sub(established())
	for _, pid := range processes() {
		s.resident += memory(pid, "Rss:")
		s.shared += memory(pid, "Pss:")
	}
}

func (s *speed) report(b *testing.B, prefix string) {
	n := float64(s.rounds)
	b.ReportMetric(s.fromStart.Seconds()*1e3/n, prefix+"ms-from-start")
	b.ReportMetric(s.fromSession.Seconds()*1e3/n, prefix+"ms-from-session")
	b.ReportMetric(float64(s.resident)/1e3/n, prefix+"MB-RSS")
	b.ReportMetric(float64(s.shared)/1e3/n, prefix+"MB-PSS")
}

// memory is what a process has, in kB.
func memory(pid int, what string) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, what); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// BenchmarkSilentDeath is the time from the loss of all packets on the link of a gateway
// until the router has taken it out of use, with BFD at 50 ms × 3.
func BenchmarkSilentDeath(b *testing.B) {
	for _, file := range []string{"frr-tor.conf", "bird-tor.conf"} {
		b.Run(file, func(b *testing.B) {
			f := newFront(quiet{b}, file,
				"transmit-interval 100", "transmit-interval 50", "receive-interval 100", "receive-interval 50",
				"interval 100 ms", "interval 50 ms", "error wait time 1, 30", "error wait time 1, 1")
			for _, way := range []string{byPassword, byAddress} {
				f.gateway(strings.Replace(way, "100ms", "50ms", 1), sharedSection)
			}
			g := f.gateways[0]
			var took []time.Duration
			for b.Loop() {
				f.until(f.devices(), vip4, vip6)
				f.lab.Eventually("BFD", func() bool { return f.watches(g, 50*time.Millisecond) })
				start := time.Now()
				g.link.Drop()
				took = append(took, f.until([]string{"swp2"}, vip4, vip6).Sub(start))
				g.link.Heal()
			}
			reportTimes(b, took)
		})
	}
}
