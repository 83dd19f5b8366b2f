package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/steering/wire"
)

// restartSilence is for how long an agent that starts again may be silent: as the report
// before has it, whose interval is a third of that.
const restartSilence = 30 * time.Second

const (
	metricReportsTold = "razor_agent_reports_told_total"
	metricReportsLost = "razor_agent_reports_lost_total"
)

// Reporter tells gateways how the targets of this host are: at each interval, and at once
// when it is poked. It is a collector of what it told.
type Reporter struct {
	self     wire.Locator
	gateways []wire.Locator
	interval time.Duration
	say      func() []wire.Report // without their interval
	conn     *net.UDPConn
	wake     chan struct{}
	told     prometheus.Counter
	lost     *prometheus.CounterVec

	mu      sync.Mutex
	sealers map[wire.Locator]*wire.Sealer
	buffer  []byte
	failed  string // why the last report to some gateway was lost; "" if none was
}

// NewReporter makes a Reporter that sends from the address of the host's locator to those
// of gateways, as [NewPinner] does. say is called for each round of reports.
func NewReporter(locator netip.Prefix, gateways []netip.Prefix, keys wire.Keys, interval time.Duration, say func() []wire.Report) (*Reporter, error) {
	r := &Reporter{
		self: wire.LocatorOf(locator.Addr()), interval: interval, say: say, wake: make(chan struct{}, 1), sealers: map[wire.Locator]*wire.Sealer{},
	}
	r.told, r.lost = newReportCounters()
	now := time.Now()
	for _, g := range gateways {
		to := wire.LocatorOf(g.Addr())
		r.gateways = append(r.gateways, to)
		r.sealers[to] = wire.NewSealer(keys, r.self, to, now)
	}
	conn, err := listenAt(r.self)
	if err != nil {
		return nil, fmt.Errorf("reports: %w", err)
	}
	r.conn = conn
	return r, nil
}

func newReportCounters() (told prometheus.Counter, lost *prometheus.CounterVec) {
	told = prometheus.NewCounter(prometheus.CounterOpts{Name: metricReportsTold, Help: "Datagrams with reports that gateways were sent."})
	lost = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricReportsLost, Help: "Datagrams with reports that gateways were not sent, by reason.",
	}, []string{"reason"})
	for _, reason := range []string{lostSeal, lostSend} {
		lost.WithLabelValues(reason)
	}
	return told, lost
}

// Poke has a report sent at once. It does not wait.
func (r *Reporter) Poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) {
	ticker := time.NewTicker(r.interval)
	defer ticker.Stop()
	for {
		r.send(r.interval)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-r.wake:
		}
	}
}

// Leave reports for the last time: who hears nothing for the time of silence takes this
// host for dead.
func (r *Reporter) Leave(silence time.Duration) { r.send(silence / 3) }

// Close ends what sends.
func (r *Reporter) Close() error { return r.conn.Close() }

// send tells all gateways how it is now, and that the next report comes within an interval.
func (r *Reporter) send(interval time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reports := r.say()
	for i := range reports {
		reports[i].Interval = interval
	}
	r.failed = ""
	for _, to := range r.gateways {
		if reason, err := r.sendTo(to, reports); err != nil {
			r.lost.WithLabelValues(reason).Inc()
			r.failed = fmt.Sprintf("%v: %v", to, err)
		}
	}
}

func (r *Reporter) sendTo(to wire.Locator, reports []wire.Report) (reason string, err error) {
	at := netip.AddrPortFrom(to.Address(), wire.Port)
	for len(reports) > 0 {
		if r.buffer, reports, err = r.sealers[to].SealReports(r.buffer[:0], reports, time.Now()); err != nil {
			return lostSeal, err
		}
		if _, err := r.conn.WriteToUDPAddrPort(r.buffer, at); err != nil {
			return lostSend, err
		}
		r.told.Inc()
	}
	return "", nil
}

// Failed is why the last report to some gateway was not sent, "" if all were.
func (r *Reporter) Failed() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// Describe implements prometheus.Collector.
func (r *Reporter) Describe(ch chan<- *prometheus.Desc) {
	r.told.Describe(ch)
	r.lost.Describe(ch)
}

// Collect implements prometheus.Collector.
func (r *Reporter) Collect(ch chan<- prometheus.Metric) {
	r.told.Collect(ch)
	r.lost.Collect(ch)
}
