package balancer

import (
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// reasons are what becomes of packets, in the words of metrics and the trace.
var reasons = [bpfReasonREASONS]string{
	bpfReasonSENT:              "sent",
	bpfReasonSTEERED_ERROR:     "icmp_error",
	bpfReasonSTEERED_MISS:      "miss",
	bpfReasonSTEERED_AWAY:      "away",
	bpfReasonSPILLED:           "spilled",
	bpfReasonENTERED:           "entered",
	bpfReasonGIVEN_BACK:        "given_back",
	bpfReasonRETURNED:          "returned",
	bpfReasonANSWERED_ECHO:     "echo",
	bpfReasonANSWERED_TOO_BIG:  "too_big",
	bpfReasonHEARD_SMALLER:     "smaller_path",
	bpfReasonDROPPED_OUTSIDER:  "outsider",
	bpfReasonDROPPED_MALFORMED: "malformed",
	bpfReasonDROPPED_FLAGS:     "flags",
	bpfReasonDROPPED_FRAGMENT:  "fragment",
	bpfReasonDROPPED_HOPS:      "hop_limit",
	bpfReasonDROPPED_BACKEND:   "no_backend",
	bpfReasonDROPPED_NEIGHBOUR: "no_neighbour",
	bpfReasonDROPPED_TOO_BIG:   "too_big_untold",
	bpfReasonDROPPED_ROOM:      "no_headroom",
	bpfReasonDROPPED_STRAY:     "stray",
	bpfReasonDROPPED_BUDGET:    "budget",
	bpfReasonDROPPED_SMALLER:   "smaller_path_unheard",
	bpfReasonDROPPED_ECHO:      "echo_limit",
	bpfReasonDROPPED_RELAY:     "relay",
	bpfReasonDROPPED_CONGESTED: "congested",
}

// drop tells whether a reason ends a packet here.
func (r bpfReason) drop() bool { return r >= bpfReasonDROPPED_OUTSIDER }

// Count is how many packets had a reason.
type Count struct {
	Reason  string
	Dropped bool
	Packets uint64
}

// Counts reads the counters of all reasons.
func (b *Balancer) Counts() ([]Count, error) {
	counts := make([]Count, len(reasons))
	for i, word := range reasons {
		counts[i] = Count{Reason: word, Dropped: bpfReason(i).drop()}
		var of []uint64
		if err := b.objects.Reasons.Lookup(uint32(i), &of); err != nil {
			return nil, fmt.Errorf("counter %s: %w", word, err)
		}
		for _, n := range of {
			counts[i].Packets += n
		}
	}
	return counts, nil
}

// Traffic is packets and bytes of IP, as they came, and the flows that they are of.
type Traffic struct {
	Packets uint64
	Bytes   uint64
	// NewFlows are SYNs, each that is sent again too.
	NewFlows uint64
	// OldFlows has each flow once for each second in which it had another packet. What is not
	// TCP is old. Where [Balancer.Sample] is above 1, it is an estimate.
	OldFlows uint64
}

// VIPTraffic reads the counters of a VIP's number.
func (b *Balancer) VIPTraffic(number int) (Traffic, error) {
	return traffic(b.objects.VipTraffic, number)
}

// BackendTraffic reads the counters of a backend: of packets for which it was current.
func (b *Balancer) BackendTraffic(index int) (Traffic, error) {
	return traffic(b.objects.BackendTraffic, index)
}

// Sample is of how many old flows one is looked at now, and stands for all of them.
func (b *Balancer) Sample() uint32 {
	return atomic.LoadUint32(&b.settings.at(0).Sample) + 1
}

func traffic(m *ebpf.Map, key int) (t Traffic, err error) {
	var of []bpfTraffic
	if err := m.Lookup(uint32(key), &of); err != nil {
		return t, fmt.Errorf("counter %d: %w", key, err)
	}
	for _, cpu := range of {
		t.Packets += cpu.Packets
		t.Bytes += cpu.Bytes
		t.NewFlows += cpu.NewFlows
		t.OldFlows += cpu.OldFlows
	}
	return t, nil
}
