package probe

import (
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// startNameserver answers on UDP and TCP at one address until the test ends.
func startNameserver(tb testing.TB) (target string) {
	tb.Helper()
	mux := dns.NewServeMux()
	answer := func(name string, rcode int, records ...string) {
		mux.HandleFunc(name, func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetRcode(q, rcode)
			for _, text := range records {
				rr, err := dns.NewRR(text)
				if err != nil {
					tb.Error(err)
				}
				if rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
			_ = w.WriteMsg(m)
		})
	}
	answer("z.test.", dns.RcodeSuccess, "z.test. SOA ns.z.test. host.z.test. 1 2 3 4 5", "z.test. A 192.0.2.1",
		"z.test. AAAA 2001:db8::1", "z.test. NS ns.z.test.", `z.test. TXT "a"`)
	answer("away.test.", dns.RcodeServerFailure)
	answer("none.test.", dns.RcodeNameError)
	answer("others.test.", dns.RcodeRefused)
	packets, err := net.ListenPacket("udp", "[::1]:0")
	if err != nil {
		tb.Fatal(err)
	}
	target = packets.LocalAddr().String()
	streams, err := net.Listen("tcp", target)
	if err != nil {
		tb.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: mux}, {Listener: streams, Handler: mux}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(done)
			if err := s.ActivateAndServe(); err != nil {
				tb.Error(err)
			}
		}()
		<-started
		tb.Cleanup(func() {
			_ = s.Shutdown()
			<-done
		})
	}
	return target
}

func TestDNS(t *testing.T) {
	t.Parallel()
	target := startNameserver(t)
	for _, tt := range []struct{ query, kind, expect, want string }{
		{"z.test", "", "", ""},
		{"Z.Test.", "SOA", expectRecords, ""},
		{"z.test", "A", expectRecords, ""},
		{"z.test", "AAAA", expectRecords, ""},
		{"z.test", "NS", expectRecords, ""},
		{"z.test", "TXT", expectRecords, ""},
		{"sub.z.test", "SOA", expectRecords, ""},
		{"away.test", "A", "", "rcode SERVFAIL"},
		{"none.test", "A", "", "rcode NXDOMAIN"},
		{"others.test", "A", expectRecords, "rcode REFUSED"},
		{"others.test", "A", expectReply, ""},
		{"away.test", "A", expectReply, ""},
		{"elsewhere.test", "A", "", "rcode REFUSED"},
	} {
		for _, transport := range []string{"udp", "tcp"} {
			cfg := Config{Kind: kindDNS, Target: target, Query: tt.query, Type: tt.kind, Transport: transport, Expect: tt.expect}
			if got := measured(t, cfg); got != tt.want {
				t.Errorf("%+v over %s: %q, want %q", tt, transport, got, tt.want)
			}
		}
	}
}

// TestDNSReplies: what a server must not say.
func TestDNSReplies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		edit func(m *dns.Msg) []byte // nil for the message itself
		want string
	}{
		{"as it should be", func(*dns.Msg) []byte { return nil }, ""},
		{"a query", func(m *dns.Msg) []byte { m.Response = false; return nil }, "reply: a query"},
		{"no question", func(m *dns.Msg) []byte { m.Question = nil; return nil }, "reply: to another question"},
		{"another name", func(m *dns.Msg) []byte { m.Question[0].Name = "y.test."; return nil }, "reply: to another question"},
		{"another type", func(m *dns.Msg) []byte { m.Question[0].Qtype = dns.TypeMX; return nil }, "reply: to another question"},
		{"another class", func(m *dns.Msg) []byte { m.Question[0].Qclass = dns.ClassCHAOS; return nil }, "reply: to another question"},
		{"another case", func(m *dns.Msg) []byte { m.Question[0].Name = "Z.TEST."; return nil }, ""},
		{"no record", func(m *dns.Msg) []byte { m.Answer = nil; return nil }, "no record of type A"},
		{"an odd rcode", func(m *dns.Msg) []byte { m.Rcode = 15; return nil }, "rcode 15"},
		{"cut", func(m *dns.Msg) []byte { b, _ := m.Pack(); return b[:len(b)-1] }, "reply: dns: overflowing header size"},
		{"short", func(m *dns.Msg) []byte { b, _ := m.Pack(); return b[:5] }, "reply: dns: short read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			target := replying(t, func(q *dns.Msg) []byte {
				m := new(dns.Msg).SetReply(q)
				m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "z.test.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 1)}}
				if b := tt.edit(m); b != nil {
					return b
				}
				b, err := m.Pack()
				if err != nil {
					t.Error(err)
				}
				return b
			})
			cfg := Config{Kind: kindDNS, Target: target, Query: "z.test", Type: "A", Expect: expectRecords}
			if got := measured(t, cfg); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// replying is a UDP server whose reply may be anything; nil is none.
func replying(tb testing.TB, reply func(*dns.Msg) []byte) (target string) {
	tb.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[::1]:0")))
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, 4096); ; {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if err := q.Unpack(buf[:n]); err != nil {
				tb.Error(err)
				return
			}
			if b := reply(q); b != nil {
				_, _ = conn.WriteToUDPAddrPort(b, from)
			}
		}
	}()
	tb.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().String()
}

// TestDNSSilence: no reply, another's reply, and nobody there.
func TestDNSSilence(t *testing.T) {
	t.Parallel()
	cfg := Config{Kind: kindDNS, Query: "z.test"}
	cfg.Target = replying(t, func(*dns.Msg) []byte { return nil })
	runsOut(t, cfg, "reply: timed out")
	cfg.Target = replying(t, func(q *dns.Msg) []byte {
		m := new(dns.Msg).SetReply(q)
		m.Id++
		b, _ := m.Pack()
		return b
	})
	runsOut(t, cfg, "reply: timed out")
	nobody, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[::1]:0")))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Target = nobody.LocalAddr().String()
	nobody.Close()
	if got := measured(t, cfg); got != "reply: connection refused" {
		t.Errorf("nobody there: %q", got)
	}
}

func FuzzDNSReply(f *testing.F) {
	cfg := Config{Query: "z.test", Type: "A"}
	question := newDNSProbe(&cfg).question
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Question: []dns.Question{question}}
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "z.test.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 1)}}
	good, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:12])
	f.Fuzz(func(t *testing.T, msg []byte) {
		passed := map[string]bool{}
		for _, expect := range []string{expectReply, expectNoError, expectRecords} {
			p := dnsProbe{question: question, expect: expect}
			err := p.judge(msg)
			passed[expect] = err == nil
			checkReason(t, text(err))
		}
		if passed[expectRecords] && !passed[expectNoError] || passed[expectNoError] && !passed[expectReply] {
			t.Errorf("%x: %v", msg, passed)
		}
	})
}
