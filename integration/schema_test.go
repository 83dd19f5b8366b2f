package integration

import (
	"testing"

	"github.com/razor-steering/razor/integration/redistest"
)

const soa = "ns1.example.org. hostmaster.example.org. 1 7200 900 1209600 30"

func config(s *redistest.Server, zone string, pairs ...any) {
	s.DoArgs(append([]any{"HSET", zone + ":CONFIG", "SOA", soa, "NS", "ns1.example.org, ns2.example.org"}, pairs...)...)
}

func TestEditIsAnswered(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "r.example.org", "TTL", "5")
	s.Do("SADD r.example.org:A 192.0.2.1")
	n := startReady(t, s.Addr, nil)
	n.eventually("r.example.org", "A", "NOERROR 192.0.2.1")
	s.Do("SADD r.example.org:AAAA 2001:DB8:0::1")
	n.eventually("R.example.ORG", "AAAA", "NOERROR 2001:db8::1")
	s.Do("SREM r.example.org:A 192.0.2.1")
	n.eventually("r.example.org", "A", "NOERROR (SOA)")
	s.Do("HSET r.example.org:CONFIG TTL 7")
	n.eventually("x.r.example.org", "A", "NXDOMAIN (SOA)")
	n.eventually("example.org", "A", "REFUSED")
}
