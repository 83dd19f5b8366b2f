package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// client is a network of people with a router of its own, which prefers one of the sites.
type client struct {
	*Client

	lab    *lab
	router *router
	ports  map[string][]*port // by site
	from   [2]netip.Addr      // IPv6, IPv4

	end  context.CancelFunc
	work sync.WaitGroup
	some chan struct{} // that many connections are opened at once

	mu     sync.Mutex
	keep   int // how many connections there are to be
	kept   map[*connection]bool
	coming int      // that are being opened
	broke  []broken // since the last mark
	visits []visit  // of late
	failed []error  // new flows since the last mark
	serial int      // of all connections that were opened
}

// connection is one that lives on.
type connection struct {
	mu     sync.Mutex // held by who asks
	conn   net.Conn
	reader *bufio.Reader
	by     string // who answered first
}

// broken is a connection that broke.
type broken struct {
	by  string
	why error
}

const (
	patience = 10 * time.Second // of people
	idle     = 3 * time.Second  // a connection is asked as often
	recently = 5 * time.Second  // what rates are of
	atOnce   = 32
)

// layClient makes a client, with a cable to each site, or to each of its exit switches.
func (l *lab) layClient(conf *Client, number int) {
	c := &client{
		Client: conf, lab: l, ports: map[string][]*port{}, kept: map[*connection]bool{}, some: make(chan struct{}, atOnce), keep: conf.Keep,
		from: [2]netip.Addr{netip.MustParseAddr(fmt.Sprintf("2001:db8:c:%d::1", number+1)), netip.AddrFrom4([4]byte{203, 0, 113, byte(number + 1)})},
	}
	c.router = l.router(c.Name, 4_209_000_001+uint32(number), netip.AddrFrom4([4]byte{10, 1, 0, byte(1 + number)}))
	for _, a := range c.from {
		p := netip.PrefixFrom(a, a.BitLen())
		c.router.node.Run("ip", "addr", "add", p.String(), "dev", "lo")
		c.router.own = append(c.router.own, p)
	}
	for _, s := range l.sites {
		for _, r := range s.borders() {
			link := l.join(r, c.router, toClient)
			link.B.WholeChecksums()
			p := c.router.ports[len(c.router.ports)-1]
			p.kind, p.from = toSite, strings.ToUpper(s.Name)
			c.ports[s.Name] = append(c.ports[s.Name], p)
			s.outside = append(s.outside, link)
		}
	}
	l.clients = append(l.clients, c)
}

// shift has the client's router send all to a site, as long as that is there.
func (c *client) shift(to string) {
	commands := []string{"configure terminal"}
	for _, s := range c.lab.sites {
		preference := 100
		if s.Name == to {
			preference = 200
		}
		commands = append(commands, fmt.Sprintf("route-map %s permit 10", strings.ToUpper(s.Name)), fmt.Sprint("set local-preference ", preference), "exit")
	}
	c.router.frr.Vtysh(strings.Join(append(commands, "end"), "\n"))
	c.router.frr.Vtysh("clear bgp ipv4 unicast * soft in\nclear bgp ipv6 unicast * soft in")
	c.Site = to
}

// way is the sites that the client's packets to the VIPs go to.
func (c *client) way() (out []string) {
	for _, vip := range []string{vip6, vip4} {
		text, _ := c.router.node.Command("ip", "route", "get", vip).Output() // fails where there is none
		for site, ports := range c.ports {
			for _, p := range ports {
				if strings.Contains(string(text), " dev "+p.device+" ") && !slices.Contains(out, site) {
					out = append(out, site)
				}
			}
		}
	}
	return out
}

// live keeps connections and opens new ones, until stop.
func (c *client) live() {
	ctx, end := context.WithCancel(c.lab.ctx)
	c.end = end
	c.work.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				c.fillUp(ctx)
			}
		}
	})
	if c.Open == 0 {
		return
	}
	c.work.Go(func() {
		for tick := time.NewTicker(time.Second / time.Duration(c.Open)); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				select {
				case c.some <- struct{}{}:
					c.work.Go(func() { c.visit(ctx) })
				default: // others are still waited for
				}
			}
		}
	})
}

func (c *client) stop() {
	if c.end != nil {
		c.end()
	}
	c.mu.Lock()
	for k := range c.kept {
		_ = k.conn.Close()
	}
	c.mu.Unlock()
	c.work.Wait()
}

// fillUp opens connections that are missing, and closes those that are too many.
func (c *client) fillUp(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.kept {
		if len(c.kept) <= c.keep {
			break
		}
		delete(c.kept, k)
		_ = k.conn.Close()
	}
	for len(c.kept)+c.coming < c.keep {
		select {
		case c.some <- struct{}{}:
		default:
			return
		}
		c.coming++
		c.work.Go(func() { c.keepOne(ctx) })
	}
}

// keepOne opens a connection, and asks on it until it breaks.
func (c *client) keepOne(ctx context.Context) {
	k, err := c.dial(ctx)
	<-c.some
	c.mu.Lock()
	c.coming--
	if err != nil || ctx.Err() != nil {
		c.fail(ctx, err)
		c.mu.Unlock()
		if k != nil {
			_ = k.conn.Close()
		}
		return
	}
	c.kept[k] = true
	c.mu.Unlock()
	tick := time.NewTicker(idle)
	defer tick.Stop()
	for end := c.span(); ; {
		select {
		case <-ctx.Done():
			return
		case <-end:
			c.mu.Lock()
			delete(c.kept, k)
			c.mu.Unlock()
			_ = k.conn.Close()
			return
		case <-tick.C:
			if !c.alive(k) {
				return
			}
		}
	}
}

// span is when a connection ends that begins now; nil is never.
func (c *client) span() <-chan time.Time {
	if c.Life == 0 {
		return nil
	}
	return time.After(c.Life/2 + rand.N(c.Life))
}

// fail notes that a new flow came to nothing. The lock is held.
func (c *client) fail(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		c.failed = append(c.failed, err)
	}
}

// visit opens a connection, asks once and ends.
func (c *client) visit(ctx context.Context) {
	v := visit{began: time.Now()}
	k, err := c.dial(ctx)
	<-c.some
	v.ended, v.err = time.Now(), err
	if err == nil {
		v.by = k.by
		_ = k.conn.Close()
	}
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(ctx, err)
	if len(c.visits) == mostVisits {
		c.visits = slices.Delete(c.visits, 0, mostVisits/10)
	}
	c.visits = append(c.visits, v)
}

// dial opens a connection to a VIP, in turn of both families, and asks once.
func (c *client) dial(ctx context.Context) (*connection, error) {
	c.mu.Lock()
	c.serial++
	n := c.serial % 2
	c.mu.Unlock()
	vip := []string{vip6, vip4}[n]
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var conn net.Conn
	var err error
	c.router.node.Do(func() {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: c.from[n].AsSlice()}}
		conn, err = d.DialContext(ctx, "tcp", net.JoinHostPort(vip, "80"))
	})
	if err != nil {
		return nil, err
	}
	k := &connection{conn: conn, reader: bufio.NewReader(conn)}
	given := context.AfterFunc(ctx, func() { _ = conn.Close() })
	k.by, err = k.ask()
	if !given() {
		err = cmp.Or(err, ctx.Err())
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return k, nil
}

// ask asks who is at the other end.
func (k *connection) ask() (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = k.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(k.conn, "GET / HTTP/1.1\r\nHost: lab\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(k.reader, nil)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(answer.Body)
	return strings.TrimSpace(string(text)), cmp.Or(err, answer.Body.Close())
}

// alive asks on a connection. One that breaks is noted, and not kept any more.
func (c *client) alive(k *connection) bool {
	by, err := k.ask()
	if err == nil && by != k.by {
		err = fmt.Errorf("%s answers", by)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.kept[k] {
		return false // it was closed meanwhile
	}
	if err == nil {
		return true
	}
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	delete(c.kept, k)
	c.broke = append(c.broke, broken{k.by, err})
	_ = k.conn.Close()
	return false
}

// connections are those that are kept now.
func (c *client) connections() (out []*connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.kept {
		out = append(out, k)
	}
	return out
}

// askAll asks on all connections, now.
func (c *client) askAll() {
	var wg sync.WaitGroup
	some := make(chan struct{}, atOnce)
	for _, k := range c.connections() {
		some <- struct{}{}
		wg.Go(func() {
			c.alive(k)
			<-some
		})
	}
	wg.Wait()
}

// tries opens so many flows, and returns who answered.
func (c *client) tries(n int) (by []string, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	some := make(chan struct{}, atOnce)
	for range n {
		some <- struct{}{}
		wg.Go(func() {
			k, e := c.dial(c.lab.ctx)
			<-some
			mu.Lock()
			defer mu.Unlock()
			if e != nil {
				err = e
				return
			}
			by = append(by, k.by)
			_ = k.conn.Close()
		})
	}
	wg.Wait()
	return by, err
}

// connect has the clients begin, once each reaches the service.
func (l *lab) connect() {
	var starts []func()
	for _, c := range l.clients {
		starts = append(starts, func() {
			c.shift(c.Site)
			l.eventually(c.Name+" to be served", func() (bool, string) {
				_, err := c.tries(2)
				return err == nil && slices.Equal(c.way(), []string{c.Site}), fmt.Sprint(err, "; its packets go to ", c.way())
			})
			c.live()
			l.eventually(c.Name+" to have its connections", func() (bool, string) {
				n := len(c.connections())
				return n >= c.Keep, fmt.Sprintf("%d of %d", n, c.Keep)
			})
		})
	}
	parallel(starts...)
}
