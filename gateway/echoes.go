package gateway

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/steering/wire"
)

const (
	// echoEvery is from one request to the next of a host whose agent speaks, and the longest
	// such time; echoLeast the shortest one of a host whose agent is silent, which is asked as
	// often as it should report.
	echoEvery = 5 * time.Second
	echoLeast = 200 * time.Millisecond
	// mostEchoes are sent at once, and echoPause is until the next ones: 3,200 a second.
	mostEchoes = 160
	echoPause  = 50 * time.Millisecond
	// echoLook is until it is looked again which hosts there are.
	echoLook = time.Second
)

// echoes asks the hosts of backends for echoes (RFC 4443 §4.1), from the address that agents
// report to, at the one that they report from. What [steering.Echo] makes of it says whose
// host is gone. It is a collector of what it sent.
type echoes struct {
	reports *reports
	conn    *net.IPConn
	id      int
	secret  []byte // in each request: who does not see them cannot answer
	counts  *prometheus.CounterVec
}

func newEchoCounts() *prometheus.CounterVec {
	counts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "razor_gateway_echoes_total", Help: "Echo requests to the hosts of backends, and what came of them.",
	}, []string{"result"})
	for _, result := range []string{echoSent, echoAnswered, echoUnsent} {
		counts.WithLabelValues(result)
	}
	return counts
}

// Results of echoes.
const (
	echoSent     = "sent"
	echoAnswered = "answered"
	echoUnsent   = "unsent" // the kernel says no
)

// listenEchoes opens the socket at the address of a gateway's locator, in the network
// namespace of the calling thread, after [ListenPins]. What lets no program have such a
// socket leaves all hosts unasked: nobody is gone then.
func listenEchoes(locator netip.Prefix, r *reports) (*echoes, error) {
	e := &echoes{reports: r, secret: make([]byte, 8), counts: newEchoCounts()}
	_, _ = rand.Read(e.secret) // never fails
	e.id = int(binary.BigEndian.Uint16(e.secret))
	free := net.ListenConfig{Control: freely}
	conn, err := free.ListenPacket(context.Background(), "ip6:ipv6-icmp", wire.LocatorOf(locator.Addr()).Address().String())
	if err != nil {
		return nil, fmt.Errorf("echoes: %w", err)
	}
	var answers ipv6.ICMPFilter
	answers.SetAll(true)
	answers.Accept(ipv6.ICMPTypeEchoReply)
	if err := ipv6.NewPacketConn(conn).SetICMPFilter(&answers); err != nil {
		return nil, errors.Join(fmt.Errorf("echoes: %w", err), conn.Close())
	}
	e.conn = conn.(*net.IPConn)
	return e, nil
}

// run asks, and takes answers, until ctx ends.
func (e *echoes) run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { _ = e.conn.Close() })()
	var wg sync.WaitGroup
	wg.Go(func() { e.listen(ctx) })
	e.askAll(ctx)
	wg.Wait()
}

// askAll asks who is due until ctx ends.
func (e *echoes) askAll(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for sequence := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		deaf, behind := e.reports.deaf(), unread(e.conn)
		hosts, next := e.reports.toAsk(time.Now(), deaf, behind)
		for _, host := range hosts {
			sequence++
			if err := e.ask(host, sequence); err != nil {
				e.counts.WithLabelValues(echoUnsent).Inc()
				e.reports.unasked(host)
				continue
			}
			e.counts.WithLabelValues(echoSent).Inc()
		}
		timer.Reset(max(echoPause, time.Until(next)))
	}
}

// ask sends a request. Its checksum is the kernel's (RFC 3542 §3.1).
func (e *echoes) ask(host wire.Locator, sequence int) error {
	m := icmp.Message{Type: ipv6.ICMPTypeEchoRequest, Body: &icmp.Echo{ID: e.id, Seq: sequence & 0xffff, Data: e.secret}}
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	_, err = e.conn.WriteTo(b, &net.IPAddr{IP: host.Address().AsSlice()})
	return err
}

// listen takes answers until ctx ends. What the kernel refuses is tried again: without answers
// hosts would be taken for gone.
func (e *echoes) listen(ctx context.Context) {
	buffer := make([]byte, 256)
	for ctx.Err() == nil {
		n, from, err := e.conn.ReadFrom(buffer)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(echoPause):
			}
			continue
		}
		if host, ok := e.answer(buffer[:n], from); ok {
			e.counts.WithLabelValues(echoAnswered).Inc()
			e.reports.answered(host, time.Now())
		}
	}
}

// answer is whose answer to a request of ours a message is.
func (e *echoes) answer(b []byte, from net.Addr) (wire.Locator, bool) {
	m, err := icmp.ParseMessage(unix.IPPROTO_ICMPV6, b)
	if err != nil || m.Type != ipv6.ICMPTypeEchoReply {
		return wire.Locator{}, false
	}
	echo, ok := m.Body.(*icmp.Echo)
	if !ok || echo.ID != e.id || string(echo.Data) != string(e.secret) {
		return wire.Locator{}, false
	}
	at, ok := from.(*net.IPAddr)
	if !ok {
		return wire.Locator{}, false
	}
	host, _ := netip.AddrFromSlice(at.IP)
	l := wire.LocatorOf(host)
	return l, host == l.Address()
}

// Describe implements prometheus.Collector.
func (e *echoes) Describe(ch chan<- *prometheus.Desc) { e.counts.Describe(ch) }

// Collect implements prometheus.Collector.
func (e *echoes) Collect(ch chan<- prometheus.Metric) { e.counts.Collect(ch) }
