package netlab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Echo answers at an address, on TCP and UDP, with the name of the node, until the
// test ends. The node need not have the address (see Own).
func (n *Node) Echo(addr netip.AddrPort) {
	n.lab.tb.Helper()
	l, err := n.Listen("tcp", addr.String())
	if err != nil {
		n.lab.tb.Fatal(err)
	}
	c, err := n.ListenPacket("udp", addr.String())
	if err != nil {
		n.lab.tb.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { n.answerTCP(l, &wg) })
	wg.Go(func() { n.answerUDP(c) })
	n.lab.tb.Cleanup(func() {
		_ = l.Close()
		_ = c.Close()
		wg.Wait()
	})
}

// patience bounds a flow, which takes milliseconds on an idle machine.
const patience = 20 * time.Second

func (n *Node) answerTCP(l net.Listener, wg *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err := bufio.NewReader(c).ReadString('\n'); err == nil {
				_, _ = fmt.Fprintln(c, n.Name)
			}
		})
	}
}

func (n *Node) answerUDP(c net.PacketConn) {
	b := make([]byte, 64)
	for {
		_, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = c.WriteTo([]byte(n.Name+"\n"), from)
	}
}

// Flows says what became of flows.
type Flows struct {
	To     map[string]int // how many each node answered, by its name
	Failed []error
}

// Flows sends flows over a network ("tcp" or "udp") to an address that nodes answer
// at, from as many ports. A packet of UDP is sent once.
func (n *Node) Flows(network string, to netip.AddrPort, count int) Flows {
	out := Flows{To: map[string]int{}}
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		some = make(chan struct{}, 32)
	)
	for range count {
		some <- struct{}{}
		wg.Go(func() {
			defer func() { <-some }()
			name, err := n.flow(network, to.String())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Failed = append(out.Failed, err)
			} else {
				out.To[name]++
			}
		})
	}
	wg.Wait()
	return out
}

func (n *Node) flow(network, to string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := n.Dial(ctx, network, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "who\n"); err != nil {
		return "", err
	}
	name, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "", err
	}
	return name[:len(name)-1], nil
}
