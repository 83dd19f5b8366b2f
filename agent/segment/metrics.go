package segment

import (
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric names are an interface: operators' alerts depend on them.
const (
	metricPackets = "razor_agent_segment_packets_total"
	metricTargets = "razor_agent_segment_target_packets_total"
	metricLost    = "razor_agent_segment_events_lost_total"
)

// Reason is what became of a packet that was the endpoint's, and why. Its text is the
// label of its counter.
type Reason uint32

// The reasons.
const (
	TakenFinal       = Reason(endpointReasonTAKEN_FINAL)       // the SID said so
	TakenSocket      = Reason(endpointReasonTAKEN_SOCKET)      // by a connection
	TakenRequest     = Reason(endpointReasonTAKEN_REQUEST)     // by a connection half open
	TakenCookie      = Reason(endpointReasonTAKEN_COOKIE)      // by a listener, for its SYN cookie
	TakenTimeWait    = Reason(endpointReasonTAKEN_TIME_WAIT)   // by a connection that ended
	TakenSYN         = Reason(endpointReasonTAKEN_SYN)         // by a listener
	TakenError       = Reason(endpointReasonTAKEN_ERROR)       // ICMP error about a connection
	TakenUnhunted    = Reason(endpointReasonTAKEN_UNHUNTED)    // not of TCP
	TakenStray       = Reason(endpointReasonTAKEN_STRAY)       // nobody's, from who takes no misses
	HandedOn         = Reason(endpointReasonHANDED_ON)         // to the next segment
	Bounced          = Reason(endpointReasonBOUNCED)           // to the gateway, as a miss
	DroppedOutsider  = Reason(endpointReasonDROPPED_OUTSIDER)  // not from the SR domain
	DroppedMalformed = Reason(endpointReasonDROPPED_MALFORMED) // cut off, wrong lengths
	DroppedTarget    = Reason(endpointReasonDROPPED_TARGET)    // no such target
	DroppedSegments  = Reason(endpointReasonDROPPED_SEGMENTS)  // no segment that may be next
	DroppedVIP       = Reason(endpointReasonDROPPED_VIP)       // not to a VIP of the target
	DroppedHops      = Reason(endpointReasonDROPPED_HOPS)      // hop limit used up
	DroppedCongested = Reason(endpointReasonDROPPED_CONGESTED) // RFC 6040 §4.2
	DroppedRoom      = Reason(endpointReasonDROPPED_ROOM)      // headers could not be taken off
	eventLost        = Reason(endpointReasonEVENT_LOST)
	reasons          = Reason(endpointReasonREASONS)
)

// labels are the texts of the reasons, which count packets.
var labels = [reasons]string{
	TakenFinal: "taken_final", TakenSocket: "taken_socket", TakenRequest: "taken_request",
	TakenCookie: "taken_cookie", TakenTimeWait: "taken_time_wait", TakenSYN: "taken_syn",
	TakenError: "taken_error", TakenUnhunted: "taken_unhunted", TakenStray: "taken_stray",
	HandedOn: "handed_on", Bounced: "bounced",
	DroppedOutsider: "dropped_outsider", DroppedMalformed: "dropped_malformed",
	DroppedTarget: "dropped_target", DroppedSegments: "dropped_segments",
	DroppedVIP: "dropped_vip", DroppedHops: "dropped_hops",
	DroppedCongested: "dropped_congested", DroppedRoom: "dropped_room",
	eventLost: "event_lost",
}

// String is the label of the reason.
func (r Reason) String() string {
	if r >= reasons {
		return "reason " + strconv.FormatUint(uint64(r), 10)
	}
	return labels[r]
}

// Packets is how many packets went which way, of all targets.
func (e *Endpoint) Packets() (map[Reason]uint64, error) {
	all, err := e.count()
	delete(all, eventLost)
	return all, err
}

func (e *Endpoint) count() (map[Reason]uint64, error) {
	out := make(map[Reason]uint64, reasons)
	for r := range reasons {
		var cpus []uint64
		if err := e.objects.Reasons.Lookup(uint32(r), &cpus); err != nil {
			return nil, fmt.Errorf("read the counter %v: %w", r, err)
		}
		for _, n := range cpus {
			out[r] += n
		}
	}
	return out, nil
}

// Handled is what a target's SIDs did with packets.
type Handled struct {
	Taken    uint64 // into the target
	HandedOn uint64 // to the next segment
	Bounced  uint64 // to the gateway
}

// Handled reads the counters of a target.
func (e *Endpoint) Handled(number uint16) (Handled, error) {
	var (
		cpus []endpointHandled
		out  Handled
	)
	if err := e.objects.HandledBy.Lookup(uint32(number), &cpus); err != nil {
		return out, fmt.Errorf("read the counters of target %d: %w", number, err)
	}
	for _, c := range cpus {
		out.Taken += c.Taken
		out.HandedOn += c.HandedOn
		out.Bounced += c.Bounced
	}
	return out, nil
}

// Accepted is how many connections began at a target, by who had their packets first.
// What follows the end of a handshake at once may count as well.
type Accepted struct {
	Own    uint64 // gateways that SetGateways named
	Guests uint64 // others: those of other sites
}

// Accepted reads the counters of a target.
func (e *Endpoint) Accepted(number uint16) (out Accepted, err error) {
	var cpus []endpointAccepted
	if err := e.objects.AcceptedBy.Lookup(uint32(number), &cpus); err != nil {
		return out, fmt.Errorf("read the connections of target %d: %w", number, err)
	}
	for _, c := range cpus {
		out.Own += c.Own
		out.Guests += c.Guests
	}
	return out, nil
}

var (
	descPackets = prometheus.NewDesc(metricPackets, "Packets with a SID of this host, by what became of them.", []string{"reason"}, nil)
	descTargets = prometheus.NewDesc(metricTargets, "Packets of each target that were not dropped; 0 is the host.", []string{"target", "result"}, nil)
	descLost    = prometheus.NewDesc(metricLost, "Flows found elsewhere than expected that nobody was told of.", nil, nil)
)

// Describe implements prometheus.Collector.
func (e *Endpoint) Describe(ch chan<- *prometheus.Desc) {
	ch <- descPackets
	ch <- descTargets
	ch <- descLost
}

// Collect implements prometheus.Collector: it reads the maps. There are none after Close.
func (e *Endpoint) Collect(ch chan<- prometheus.Metric) {
	e.scrape.RLock()
	defer e.scrape.RUnlock()
	if e.closed {
		return
	}
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	counts, err := e.count()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descPackets, err)
		return
	}
	for r, n := range counts {
		if r == eventLost {
			counter(descLost, n)
		} else {
			counter(descPackets, n, r.String())
		}
	}
	for number := range uint16(MaxTargets) {
		if err := e.collectTarget(number, counter); err != nil {
			ch <- prometheus.NewInvalidMetric(descTargets, err)
			return
		}
	}
}

// collectTarget tells of a target that is there.
func (e *Endpoint) collectTarget(number uint16, counter func(*prometheus.Desc, uint64, ...string)) error {
	var t endpointTarget
	if err := e.objects.Targets.Lookup(uint32(number), &t); err != nil {
		return fmt.Errorf("read target %d: %w", number, err)
	}
	if t.Present == 0 {
		return nil
	}
	h, err := e.Handled(number)
	if err != nil {
		return err
	}
	name := strconv.Itoa(int(number))
	counter(descTargets, h.Taken, name, "taken")
	counter(descTargets, h.HandedOn, name, "handed_on")
	counter(descTargets, h.Bounced, name, "bounced")
	return nil
}
