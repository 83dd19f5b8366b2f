package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/razor-steering/razor/steering"
)

// Report is what an agent says of a target: the host itself, or one of its containers.
// It stands in the place of all that was said of that target before.
type Report struct {
	Target   uint16 // of the SID: 0 is the host itself
	Draining bool   // by an operator's will: it wants no new flows
	Level    steering.Level
	Load     float64 // in the unit of Capacity; 0 where it is not measured
	Capacity float64 // 0 where the load is not measured
	// Accepted is how many new flows it took a second, as the mean of some seconds; Guests
	// are further ones, that came by gateways of other sites.
	Accepted, Guests float64
	// FlowLoad is the mean load of a flow, in the unit of Load; 0 is 1, as where the load
	// is in connections.
	FlowLoad float64
	// Interval is until the next report at the latest, in whole milliseconds.
	Interval time.Duration
	Services []ServiceHealth // that are probed; at most [MaxServices]
}

// ServiceHealth is the health of what a target has at a VIP.
type ServiceHealth struct {
	VIP      netip.Addr // :: is each VIP of the target
	Port     uint16     // 0 is any
	Protocol uint8      // TCP or UDP, by its number; 0 is any
	Health   steering.Health
}

// Where the parts of a report are: see the package's text.
const (
	atReportTarget   = 0
	atReportInterval = 2
	atReportAdmin    = 4
	atReportLevel    = 5
	atReportServices = 6
	atReportSpare    = 7
	atReportLoad     = 8
	atReportCapacity = 16
	atReportAccepted = 24
	atReportGuests   = 32
	atReportFlowLoad = 40
	reportBytes      = 48

	atServicePort     = 16
	atServiceProtocol = 18
	atServiceHealth   = 19
	serviceBytes      = 20

	adminActive, adminDraining = 1, 2
)

// MaxServices is how many services a report can have: those of one datagram.
const MaxServices = (MaxDatagram - atBody - sealBytes - reportBytes) / serviceBytes

// Bounds of intervals, and of loads and capacities. A longer silence than three of the
// longest intervals is for nobody to wait for.
const (
	MinInterval = 10 * time.Millisecond
	MaxInterval = time.Minute
	mostLoad    = 1e15
)

// check is an error where nothing can be as the report says.
func (r *Report) check() error {
	switch {
	case r.Level < steering.LevelNormal || r.Level > steering.LevelCritical:
		return fmt.Errorf("level %d: want 1 to 3", uint8(r.Level))
	case r.Interval < MinInterval || r.Interval > MaxInterval || r.Interval%time.Millisecond != 0:
		return fmt.Errorf("interval %v: want %v to %v, in whole milliseconds", r.Interval, MinInterval, MaxInterval)
	case !isFigure(r.Load):
		return fmt.Errorf("load %v: want 0 to %g", r.Load, mostLoad)
	case !isFigure(r.Capacity):
		return fmt.Errorf("capacity %v: want 0 to %g", r.Capacity, mostLoad)
	case !isFigure(r.Accepted):
		return fmt.Errorf("accepted %v: want 0 to %g", r.Accepted, mostLoad)
	case !isFigure(r.Guests):
		return fmt.Errorf("guests %v: want 0 to %g", r.Guests, mostLoad)
	case !isFigure(r.FlowLoad):
		return fmt.Errorf("flow load %v: want 0 to %g", r.FlowLoad, mostLoad)
	case len(r.Services) > MaxServices:
		return fmt.Errorf("%d services: want at most %d", len(r.Services), MaxServices)
	}
	for i := range r.Services {
		if err := r.Services[i].check(); err != nil {
			return fmt.Errorf("service %d: %w", i, err)
		}
	}
	return nil
}

func isFigure(f float64) bool { return f >= 0 && f <= mostLoad && !math.Signbit(f) }

func (s *ServiceHealth) check() error {
	switch {
	case !s.VIP.IsValid() || s.VIP.Zone() != "" || s.VIP.IsMulticast() || s.VIP.Unmap() == netip.IPv4Unspecified():
		return fmt.Errorf("VIP %v: want :: or the address of a host", s.VIP)
	case s.Protocol != 0 && s.Protocol != protocolTCP && s.Protocol != protocolUDP:
		return fmt.Errorf("protocol %d: want TCP, UDP or 0", s.Protocol)
	case s.Health > steering.HealthDown:
		return fmt.Errorf("health %d: want unknown, up or down", uint8(s.Health))
	}
	return nil
}

func (r *Report) appendTo(dst []byte) []byte {
	admin := byte(adminActive)
	if r.Draining {
		admin = adminDraining
	}
	dst = binary.BigEndian.AppendUint16(dst, r.Target)
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.Interval/time.Millisecond))
	dst = append(dst, admin, byte(r.Level), byte(len(r.Services)), 0)
	for _, figure := range []float64{r.Load, r.Capacity, r.Accepted, r.Guests, r.FlowLoad} {
		dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(figure))
	}
	for _, s := range r.Services {
		vip := s.VIP.As16()
		dst = append(dst, vip[:]...)
		dst = binary.BigEndian.AppendUint16(dst, s.Port)
		dst = append(dst, s.Protocol, byte(s.Health))
	}
	return dst
}

// size is how many bytes the report has in a datagram.
func (r *Report) size() int { return reportBytes + len(r.Services)*serviceBytes }

// reportOf reads the first report of bytes, and returns the bytes behind it.
func reportOf(b []byte) (r Report, rest []byte, err error) {
	if len(b) < reportBytes {
		return r, nil, Malformed
	}
	n := int(b[atReportServices])
	if len(b) < reportBytes+n*serviceBytes || b[atReportSpare] != 0 {
		return r, nil, Malformed
	}
	r = Report{
		Target:   binary.BigEndian.Uint16(b[atReportTarget:]),
		Interval: time.Duration(binary.BigEndian.Uint16(b[atReportInterval:])) * time.Millisecond,
		Draining: b[atReportAdmin] == adminDraining,
		Level:    steering.Level(b[atReportLevel]),
		Load:     math.Float64frombits(binary.BigEndian.Uint64(b[atReportLoad:])),
		Capacity: math.Float64frombits(binary.BigEndian.Uint64(b[atReportCapacity:])),
		Accepted: math.Float64frombits(binary.BigEndian.Uint64(b[atReportAccepted:])),
		Guests:   math.Float64frombits(binary.BigEndian.Uint64(b[atReportGuests:])),
		FlowLoad: math.Float64frombits(binary.BigEndian.Uint64(b[atReportFlowLoad:])),
	}
	if !r.Draining && b[atReportAdmin] != adminActive {
		return r, nil, Malformed
	}
	b = b[reportBytes:]
	for ; n > 0; n-- {
		r.Services = append(r.Services, ServiceHealth{
			VIP:      netip.AddrFrom16([16]byte(b[:atServicePort])).Unmap(),
			Port:     binary.BigEndian.Uint16(b[atServicePort:]),
			Protocol: b[atServiceProtocol],
			Health:   steering.Health(b[atServiceHealth]),
		})
		b = b[serviceBytes:]
	}
	if r.check() != nil {
		return Report{}, nil, Malformed
	}
	return r, b, nil
}

// ReportRate is how many datagrams with reports of one sender a receiver takes a second.
const ReportRate = 400

// Datagrams is how many of them [Sealer.SealReports] makes of reports.
func Datagrams(reports []Report) (n int) {
	for len(reports) > 0 {
		reports = reports[max(1, fitting(reports)):]
		n++
	}
	return n
}

// fitting is how many of the reports the first datagram has room for.
func fitting(reports []Report) (n int) {
	for room := MaxDatagram - atBody - sealBytes; n < len(reports) && reports[n].size() <= room; n++ {
		room -= reports[n].size()
	}
	return n
}

// Reports are those of a message, all or none. The error is [Malformed].
func (m Message) Reports() ([]Report, error) {
	if m.Type != TypeReports || len(m.Body) == 0 {
		return nil, Malformed
	}
	var all []Report
	for b := m.Body; len(b) > 0; {
		r, rest, err := reportOf(b)
		if err != nil {
			return nil, err
		}
		all, b = append(all, r), rest
	}
	return all, nil
}

// SealReports appends a datagram with as many of the reports as it has room for, of which
// there is at least one, and returns the others. Nothing is appended where one of those
// can be of nothing.
func (s *Sealer) SealReports(dst []byte, reports []Report, now time.Time) (datagram []byte, others []Report, err error) {
	n := fitting(reports)
	if n == 0 {
		return dst, reports, fmt.Errorf("%d reports, the first with too many services: want 1 or more, with at most %d", len(reports), MaxServices)
	}
	for i := range reports[:n] {
		if err := reports[i].check(); err != nil {
			return dst, reports, fmt.Errorf("report of target %d: %w", reports[i].Target, err)
		}
	}
	start := len(dst)
	dst = s.begin(dst, TypeReports, now)
	for i := range reports[:n] {
		dst = reports[i].appendTo(dst)
	}
	return append(dst, s.sealing.of(dst[start:])...), reports[n:], nil
}
