package razor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/upstreams"
)

const (
	demoZone  = "routes.example.org"
	demoEdges = 4
	demoPool  = 512 // addresses of each family on each edge
)

// DemoConfig is where the demonstration listens, all on loopback.
type DemoConfig struct {
	DNSPort, RedisPort, HTTPPort int
}

// Listen are the addresses that DNS is answered on.
func (c DemoConfig) Listen() []string {
	port := strconv.Itoa(c.DNSPort)
	return []string{net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)}
}

// Demo runs the nameserver on an embedded store with a sample zone, and writes
// to w what to try once it answers. It keeps nothing.
func Demo(ctx context.Context, cfg DemoConfig, log *slog.Logger, reg prometheus.Registerer, ready Ready, w io.Writer) error {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.RedisPort))
	store, err := upstreams.StartEmbedded(addr)
	if err != nil {
		return upstreams.BindDefect("--redis-port", strconv.Itoa(cfg.RedisPort), err)
	}
	defer store.Close()
	if err := fillDemo(store); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "razor-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	dns := Config{Listen: cfg.Listen(), Zones: []string{demoZone}, TraceTXT: true, StateDir: dir}
	dns.Defaults()
	var once sync.Once
	err = Run(ctx, dns, upstreams.Config{Address: addr}, log, reg, func(ok bool, state string) {
		if ready(ok, state); ok {
			once.Do(func() { demoHelp(w, cfg, dir) })
		}
	})
	if d, ok := errors.AsType[upstreams.Defect](err); ok && d.Reason == upstreams.PortInUse {
		return upstreams.Defect{Key: "--dns-port", Member: d.Member, Reason: d.Reason, Want: "a free port"}
	}
	return err
}

// fillDemo writes the sample: addresses of the blocks set aside for benchmarks
// and documentation (RFC 2544, RFC 3849).
func fillDemo(store *upstreams.Embedded) error {
	store.HSet(demoZone+":CONFIG",
		"SOA", "ns1.example.org. hostmaster.example.org. 1 3600 600 604800 60",
		"NS", "ns1.example.org, ns2.example.org", "TTL", "60")
	for i := range demoEdges {
		edge := "node" + strconv.Itoa(i+1) + "." + demoZone
		var a, aaaa []string
		for n := range demoPool {
			a = append(a, netip.AddrFrom4([4]byte{198, 18, byte(2*i + n>>8), byte(n)}).String())
			aaaa = append(aaaa, fmt.Sprintf("2001:db8:%x::%x", i+1, n+1))
		}
		if err := errors.Join(store.SAdd(edge+":A", a...), store.SAdd(edge+":AAAA", aaaa...)); err != nil {
			return err
		}
	}
	return store.Set("shop.example.com."+demoZone, "node1."+demoZone)
}

func demoHelp(w io.Writer, c DemoConfig, dir string) {
	fmt.Fprintf(w, `
Razor answers for %[1]s: %[2]d edges of %[3]d IPv4 and %[3]d IPv6 addresses each.

Ask, twice:
  dig @127.0.0.1 -p %[4]d node1.%[1]s A +short
  dig @::1 -p %[4]d node1.%[1]s AAAA +short

Edit, and ask again:
  redis-cli -p %[5]d SREM node1.%[1]s:A 198.18.0.7
  redis-cli -p %[5]d SADD node1.%[1]s:A 192.0.2.0/24
  redis-cli -p %[5]d SADD %[1]s:A:SKIPLIST 198.18.0.0/24
  redis-cli -p %[5]d HSET %[1]s:CONFIG COUNT 4
  redis-cli -p %[5]d SET www.example.net.%[1]s node2.%[1]s

Lose everything: the last good lists answer, until you accept the loss:
  redis-cli -p %[5]d FLUSHALL
  bin/razor upstreams accept --state-dir %[7]s

Watch:
  curl http://127.0.0.1:%[6]d/readyz
  curl http://127.0.0.1:%[6]d/metrics

Ctrl-C ends it; nothing is kept.

`, demoZone, demoEdges, demoPool, c.DNSPort, c.RedisPort, c.HTTPPort, dir)
}
