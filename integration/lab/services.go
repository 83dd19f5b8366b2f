package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	redisPort = 6379
	vipName   = "www.lab" // has the VIPs
)

// bootServices starts Redis, which copies from the primary where it is none, and the
// nameserver that follows it.
func (l *lab) bootServices(h *host) {
	args := []string{
		"--port", fmt.Sprint(redisPort), "--bind", h.address().String(), "--protected-mode", "no", "--dir", h.node.Dir, "--save", "",
		"--repl-diskless-sync-delay", "0", "--repl-timeout", "10", "--loglevel", "warning",
	}
	if h.site.Redis == "replica" {
		args = append(args, "--replicaof", l.primary().address().String(), fmt.Sprint(redisPort), "--replica-announce-ip", h.address().String())
	}
	h.run("redis-server", args...)
	r := l.redis(h)
	defer r.Close()
	l.eventually("redis on "+h.name, func() (bool, string) {
		err := r.Ping(l.ctx).Err()
		return err == nil, fmt.Sprintf("%v\n%s", err, h.logs())
	})
	if h.site.Redis == "primary" {
		l.fill(r)
	}
	if h.site.DNS {
		h.put("dns.yaml", fmt.Sprintf(`dns:
  listen: ["[%s]:53"]
  zones: [lab]
  state_dir: %s
redis: {address: "[%[1]s]:%[3]d"}
`, h.address(), h.file("dns"), redisPort))
		l.runRazor(h, "dns", "--config", h.file("dns.yaml"))
	}
}

// primary is the host with the Redis that all others copy.
func (l *lab) primary() *host {
	for _, s := range l.sites {
		if s.Redis == "primary" {
			return s.services
		}
	}
	return nil
}

// redis is a client of a host's Redis.
func (l *lab) redis(h *host) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: fmt.Sprintf("[%s]:%d", h.address(), redisPort), Dialer: h.node.Dial, MaxRetries: -1, DialTimeout: 5 * time.Second,
	})
}

// fill has the lists be there: a name with the VIPs.
func (l *lab) fill(r *redis.Client) {
	p := r.TxPipeline()
	p.HSet(l.ctx, "lab:CONFIG", "SOA", "ns.lab. hostmaster.lab. 1 3600 600 86400 60", "NS", "ns.lab.", "TTL", "5")
	p.SAdd(l.ctx, vipName+":A", vip4)
	p.SAdd(l.ctx, vipName+":AAAA", vip6)
	_, err := p.Exec(l.ctx)
	must(err)
}

// lookUp asks the nameserver of a site for the addresses of a name.
func (l *lab) lookUp(s *site, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
	defer cancel()
	server := netip.AddrPortFrom(s.services.address(), 53).String()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return s.services.node.Dial(ctx, network, server)
	}}
	return r.LookupNetIP(ctx, "ip", name+".")
}

// unresolved is why a site's nameserver does not know the VIPs; "" if it does, or if there
// is none.
func (l *lab) unresolved(s *site) string {
	if !s.DNS {
		return ""
	}
	if got, err := l.lookUp(s, vipName); len(got) != 2 {
		return fmt.Sprintf("dns at %s answers %v, %v", s.Name, got, err)
	}
	return ""
}
