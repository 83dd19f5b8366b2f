package integration

import (
	"math"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/integration/redistest"
)

// chiSquareLimit is the value that chi-square with the given degrees of freedom
// exceeds with probability 1e-6 (Wilson and Hilferty's approximation).
func chiSquareLimit(freedom float64) float64 {
	const z = 4.753424 // of the normal distribution at 1e-6
	v := 2 / (9 * freedom)
	return freedom * math.Pow(1-v+z*math.Sqrt(v), 3)
}

// Answers from the wire are uniform over 512 members, in both families.
func TestUniformAnswers(t *testing.T) {
	t.Parallel()
	const members, queries = 512, 512 * 100
	s := redistest.Start(t)
	config(s, "z.example")
	s.DoArgs(append([]any{"SADD", "z.example:A"}, redistest.Members(false, 0, members)...)...)
	s.DoArgs(append([]any{"SADD", "z.example:AAAA"}, redistest.Members(true, 0, members)...)...)
	n := startReady(t, s.Addr, nil)
	for _, qtype := range []string{"A", "AAAA"} {
		seen := n.flood(question("z.example", qtype), queries)
		if len(seen) != members {
			t.Errorf("%s: %d different addresses, want %d", qtype, len(seen), members)
		}
		chi, total := 0.0, 0
		for _, c := range seen {
			total += c
		}
		mean := float64(total) / members
		for _, c := range seen {
			chi += (float64(c) - mean) * (float64(c) - mean) / mean
		}
		if limit := chiSquareLimit(members - 1); chi > limit || total != queries {
			t.Errorf("%s: chi-square %.1f over the limit %.1f, %d answers", qtype, chi, limit, total)
		}
	}
}

// wire asks one question again and again on one socket, without the cost of a
// DNS library.
type wire struct {
	tb     testing.TB
	conn   net.Conn
	msg    []byte
	octets int // of an address
	buf    [1500]byte
}

func (n *nameserver) dial(m *dns.Msg) *wire {
	n.tb.Helper()
	conn, err := net.Dial("udp", n.addr)
	if err != nil {
		n.tb.Fatal(err)
	}
	n.tb.Cleanup(func() { conn.Close() })
	w := &wire{tb: n.tb, conn: conn, octets: 4}
	if w.msg, err = m.Pack(); err != nil {
		n.tb.Fatal(err)
	}
	if m.Question[0].Qtype == dns.TypeAAAA {
		w.octets = 16
	}
	return w
}

func (w *wire) send() {
	if _, err := w.conn.Write(w.msg); err != nil {
		w.tb.Fatal(err)
	}
}

// receive is the last address of the next answer.
func (w *wire) receive() netip.Addr {
	_ = w.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	k, err := w.conn.Read(w.buf[:])
	if err != nil {
		w.tb.Fatal(err)
	}
	a, _ := netip.AddrFromSlice(w.buf[k-w.octets : k])
	return a
}

func (w *wire) ask() netip.Addr {
	w.send()
	return w.receive()
}

// flood keeps a window of queries under way, and counts the last address of
// every answer.
func (n *nameserver) flood(m *dns.Msg, queries int) map[netip.Addr]int {
	n.tb.Helper()
	const window = 32
	w := n.dial(m)
	seen := map[netip.Addr]int{}
	for sent, got := 0, 0; got < queries; got++ {
		for ; sent < queries && sent-got < window; sent++ {
			w.send()
		}
		seen[w.receive()]++
	}
	return seen
}
