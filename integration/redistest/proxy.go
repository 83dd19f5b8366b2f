package redistest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy is a link that can be cut: it passes connections on to a server.
type Proxy struct {
	Addr string // 127.0.0.1:port
	Port int

	target string
	wg     sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

// NewProxy runs a proxy of a TCP address until the test ends.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	p := &Proxy{Addr: addr.String(), Port: addr.Port, target: target, conns: map[net.Conn]bool{}}
	p.wg.Go(func() { p.serve(l) })
	tb.Cleanup(func() {
		_ = l.Close()
		p.Cut()
		p.wg.Wait()
	})
	return p
}

// Cut ends every connection, and refuses others until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		_ = c.Close()
	}
}

// Heal ends Cut.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

func (p *Proxy) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.pass(client) })
	}
}

// pass copies both ways until one end closes.
func (p *Proxy) pass(client net.Conn) {
	if !p.hold(client) {
		return
	}
	defer p.drop(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil || !p.hold(server) {
		return
	}
	defer p.drop(server)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(server, client); p.drop(server) })
	wg.Go(func() { _, _ = io.Copy(client, server); p.drop(client) })
	wg.Wait()
}

// hold keeps a connection for Cut; while the link is cut it closes it: false.
func (p *Proxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		_ = c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = c.Close()
	delete(p.conns, c)
}
