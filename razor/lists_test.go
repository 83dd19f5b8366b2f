package razor

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/upstreams"
)

// soaText is the SOA of every zone of the tests; its minimum is 30.
const soaText = "ns1.example.org. hostmaster.example.org. 7 7200 900 1209600 30"

// fill writes lists.
type fill func(s *upstreams.Embedded)

// zoneConfig writes the CONFIG of a zone.
func zoneConfig(s *upstreams.Embedded, zone string, pairs ...string) {
	s.HSet(zone+":CONFIG", append([]string{"SOA", soaText, "NS", "ns1.example.org, ns2.example.org"}, pairs...)...)
}

// set writes a set of members.
func set(tb testing.TB, s *upstreams.Embedded, key string, members ...string) {
	tb.Helper()
	if err := s.SAdd(key, members...); err != nil {
		tb.Fatal(err)
	}
}

func setString(tb testing.TB, s *upstreams.Embedded, key, text string) {
	tb.Helper()
	if err := s.Set(key, text); err != nil {
		tb.Fatal(err)
	}
}

// snapshotOf is the snapshot that a follower makes of lists in Redis.
func snapshotOf(tb testing.TB, write fill, zones ...string) *upstreams.Snapshot {
	tb.Helper()
	store, err := upstreams.StartEmbedded("127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer store.Close()
	write(store)
	log := slog.New(slog.DiscardHandler)
	f, err := upstreams.NewFollower(upstreams.Config{Address: store.Addr()}, upstreams.Options{Zones: zones}, log, prometheus.NewRegistry())
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	}()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if s := f.Snapshot(); !s.Empty() {
			return s
		}
		if time.Now().After(deadline) {
			tb.Fatal("no zone in the snapshot")
		}
	}
}

// fixed are lists that do not change. The zero value has no snapshot yet.
type fixed struct{ snapshot *upstreams.Snapshot }

func (f fixed) Snapshot() *upstreams.Snapshot { return f.snapshot }

// newServer is a nameserver without sockets.
func newServer(lists lists, edit ...func(*server)) *server {
	s := &server{log: slog.New(slog.DiscardHandler), metrics: newMetrics(prometheus.NewRegistry()), lists: lists}
	s.cfg.Defaults()
	for _, e := range edit {
		e(s)
	}
	return s
}

// tracing, bySource and legacy are settings.
func tracing(s *server)  { s.cfg.TraceTXT = true }
func bySource(s *server) { s.cfg.HashMethod = "src" }
func legacy(s *server)   { s.cfg.Hash = "legacy" }

// client asks a nameserver without sockets, and holds every answer to the rules
// that all answers keep.
type client struct {
	tb       testing.TB
	answerer *answerer
	source   netip.Addr
	via      transport
}

// newClient draws the same for the same server in each run.
func newClient(tb testing.TB, s *server) *client {
	return &client{tb: tb, answerer: newAnswerer(s, [32]byte{7}), source: netip.MustParseAddr("192.0.2.200")}
}

func (c *client) from(source string) *client {
	d := *c
	d.source = netip.MustParseAddr(source)
	return &d
}

func (c *client) over(via transport) *client {
	d := *c
	d.via = via
	return &d
}

// raw sends a message as it is. It is nil where there is no answer.
func (c *client) raw(msg string) *dns.Msg {
	c.tb.Helper()
	out := c.answerer.answer([]byte(msg), c.source, c.via)
	if out == nil {
		return nil
	}
	return wellFormed(c.tb, []byte(msg), out)
}

// ask sends a query of class IN.
func (c *client) ask(n string, qtype uint16) *dns.Msg {
	c.tb.Helper()
	return c.raw(plain(name(n), qtype))
}

// askWith sends a query with EDNS options.
func (c *client) askWith(n string, qtype uint16, options ...string) *dns.Msg {
	c.tb.Helper()
	return c.raw(extended(name(n), qtype, opt(4096, 0, 0, options...)))
}

// subnet is a client subnet as an option.
func subnet(text string) string {
	p := netip.MustParsePrefix(text)
	family := 1
	if p.Addr().Is6() {
		family = 2
	}
	return ecs(family, p.Bits(), 0, string(p.Addr().AsSlice()[:(p.Bits()+7)/8]))
}

// wellFormed holds an answer to what all answers keep, and unpacks it.
func wellFormed(tb testing.TB, query, out []byte) *dns.Msg {
	tb.Helper()
	if len(out) < headerLen {
		tb.Fatalf("answer of %d octets", len(out))
	}
	m := new(dns.Msg)
	if err := m.Unpack(out); err != nil {
		tb.Fatalf("answer % x: %v", out, err)
	}
	if string(out[:2]) != string(query[:2]) {
		tb.Errorf("id % x, want % x", out[:2], query[:2])
	}
	flags := int(out[2])<<8 | int(out[3])
	asked := int(query[2])<<8 | int(query[3])
	if flags&bitQR == 0 || flags&(bitRA|bitZ|bitAD|bitCD) != 0 || (flags^asked)&(0xf<<11|bitRD) != 0 {
		tb.Errorf("flags %#x to %#x", flags, asked)
	}
	if len(m.Question) > 0 {
		// The name as it was sent, case and all (draft-vixie-dnsext-dns0x20).
		n := headerLen
		for query[n] != 0 {
			n += 1 + int(query[n])
		}
		n += 5
		if string(out[headerLen:n]) != string(query[headerLen:n]) {
			tb.Errorf("question % x, want % x", out[headerLen:n], query[headerLen:n])
		}
	}
	opts := 0
	targets := targetsOf(m)
	for _, rr := range m.Extra {
		o, ok := rr.(*dns.OPT)
		if !ok {
			if !targets[rr.Header().Name] || rr.Header().Rrtype != dns.TypeA && rr.Header().Rrtype != dns.TypeAAAA {
				tb.Errorf("additional record %v", rr)
			}
			delete(targets, rr.Header().Name)
			continue
		}
		opts++
		if o.Hdr.Name != "." || o.Version() != 0 || o.Hdr.Ttl&0x7fff != 0 || o.UDPSize() != ednsSize {
			tb.Errorf("OPT %v", o)
		}
		for _, e := range o.Option {
			if e.Option() != dns.EDNS0SUBNET {
				tb.Errorf("option %d in an answer", e.Option())
			}
		}
	}
	if opts > 1 || opts == 0 && m.Rcode > 15 {
		tb.Errorf("%d OPT records with rcode %d", opts, m.Rcode)
	}
	if m.Truncated && len(m.Answer)+len(m.Ns)+len(m.Extra)-opts > 0 {
		tb.Errorf("truncated, and not empty: %v", m)
	}
	// What was unpacked says the same when it is packed again.
	m.Compress = true
	again, err := m.Pack()
	if err != nil {
		tb.Fatalf("answer does not pack again: %v\n%v", err, m)
	}
	if len(again) > len(out) { // the library compresses names in rdata too
		tb.Errorf("%d octets, packed again %d", len(out), len(again))
	}
	second := new(dns.Msg)
	if err := second.Unpack(again); err != nil {
		tb.Fatal(err)
	}
	second.Compress = m.Compress
	if second.String() != m.String() {
		tb.Errorf("packed again:\n%v\nwas:\n%v", second, m)
	}
	return m
}

// targetsOf are the targets of the SRV records in an answer.
func targetsOf(m *dns.Msg) map[string]bool {
	out := map[string]bool{}
	for _, rr := range m.Answer {
		if srv, ok := rr.(*dns.SRV); ok {
			out[srv.Target] = true
		}
	}
	return out
}

// outcome is an answer in one line: rcode, flags, sorted records as "owner TTL
// type data", those of the authority in parentheses.
func outcome(m *dns.Msg) string {
	if m == nil {
		return "nothing"
	}
	words := []string{dns.RcodeToString[m.Rcode]}
	if m.Rcode == dns.RcodeBadVers {
		words[0] = "BADVERS"
	}
	if m.Authoritative {
		words = append(words, "aa")
	}
	if m.Truncated {
		words = append(words, "tc")
	}
	text := func(rrs []dns.RR) string {
		var all []string
		for _, rr := range rrs {
			fields := strings.Fields(rr.String())
			all = append(all, strings.Join(slices.Delete(fields, 2, 3), " ")) // without the class
		}
		slices.Sort(all)
		return strings.Join(all, "; ")
	}
	if len(m.Answer) > 0 {
		words = append(words, text(m.Answer))
	}
	if len(m.Ns) > 0 {
		words = append(words, "("+text(m.Ns)+")")
	}
	return strings.Join(words, " ")
}

// soaOf is the SOA in an outcome.
func soaOf(owner, ttl string) string {
	return owner + ". " + ttl + " SOA " + soaText
}

// addresses are the A and AAAA records of an answer, sorted.
func addresses(m *dns.Msg) []string {
	var out []string
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		}
	}
	slices.Sort(out)
	return out
}

// one is the only address of an answer.
func one(tb testing.TB, m *dns.Msg) string {
	tb.Helper()
	a := addresses(m)
	if len(a) != 1 || len(m.Answer) != 1 {
		tb.Fatalf("not one address: %s", outcome(m))
	}
	return a[0]
}

// scopeOf is the scope of an answer's client subnet, -1 without one.
func scopeOf(m *dns.Msg) int {
	if o := m.IsEdns0(); o != nil {
		for _, e := range o.Option {
			if s, ok := e.(*dns.EDNS0_SUBNET); ok {
				return int(s.SourceScope)
			}
		}
	}
	return -1
}

// numbered are n addresses from a first one on.
func numbered(first string, n int) []string {
	var out []string
	for a := netip.MustParseAddr(first); n > 0; n-- {
		out = append(out, a.String())
		a = a.Next()
	}
	return out
}
