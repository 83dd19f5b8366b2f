package balancer

import (
	"cmp"
	"encoding/hex"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/steering"
)

// BackendStatus is a backend of a service.
type BackendStatus struct {
	Service string  `json:"service"`
	Backend string  `json:"backend"`
	SID     string  `json:"sid"`
	Server  string  `json:"server_id,omitempty"` // in connection IDs, in hexadecimal
	State   State   `json:"state"`
	Weight  uint32  `json:"weight"`             // as configured
	Share   float64 `json:"share"`              // of the service's new flows
	Path    int     `json:"path_mtu,omitempty"` // of encapsulated packets, while there is a way
	Why     string  `json:"why,omitempty"`      // it cannot be reached
}

// Status is the backends of the plan, by services.
func (k *Keeper) Status() []BackendStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := []BackendStatus{}
	for _, s := range k.plan.Services {
		slots, away := k.shares(s)
		for _, b := range s.Backends {
			r := k.backends[b.SID]
			status := BackendStatus{
				Service: s.Name, Backend: b.Name, SID: b.SID.String(), State: b.State, Weight: b.Weight,
				Share: float64(slots[r.index]) / steering.TableSlots, Path: int(r.way().MTU),
			}
			if s.QUIC.ServerID > 0 {
				status.Server = hex.EncodeToString([]byte(s.QUIC.id(b)))
			}
			switch {
			case r.hop.Index == 0:
				status.Why = cmp.Or(r.why, "no way to it")
			case r.gone:
				status.Why = "nothing is sent there until it is back"
			}
			out = append(out, status)
		}
		for i, site := range k.plan.Sites {
			if away[i] == 0 {
				continue
			}
			status := BackendStatus{Service: s.Name, Backend: "site " + site.Name, State: Active, Share: float64(away[i]) / steering.TableSlots}
			if len(k.reachable(site)) == 0 {
				status.Why = "no way to its gateways: the flows stay here"
			}
			out = append(out, status)
		}
	}
	return out
}

// shares are how many slots send their new flows to each backend, by index, and to each
// other site, by number.
func (k *Keeper) shares(s PlannedService) (backends map[uint16]int, sites map[int]int) {
	backends, sites = map[uint16]int{}, map[int]int{}
	var ends steering.Spills
	var numbers []int
	for _, to := range k.spilled(k.plan, s).Spills {
		ends = append(ends, steering.Spill{Site: k.plan.Sites[to.Site].Name, Slots: to.Slots})
		numbers = append(numbers, to.Site)
	}
	for slot, index := range k.services[s.Name].table.Assignment() {
		name, ok := ends.Site(uint32(slot))
		if !ok {
			backends[index]++
			continue
		}
		sites[numbers[slices.IndexFunc(ends, func(to steering.Spill) bool { return to.Site == name })]]++
	}
	return backends, sites
}

// The metrics of the balancer; they are read from its maps when they are asked for.
var (
	packetsDesc        = desc("packets_total", "Packets that were the balancer's, by what became of them.", "result", "dropped")
	vipPacketsDesc     = desc("vip_packets_total", "Packets to each VIP.", "service", "vip")
	vipBytesDesc       = desc("vip_bytes_total", "Bytes of IP to each VIP.", "service", "vip")
	backendPacketsDesc = desc("backend_packets_total", "Packets for which a backend was the first choice.", "backend")
	backendBytesDesc   = desc("backend_bytes_total", "Bytes of IP for which a backend was the first choice.", "backend")
	vipNewDesc         = desc("vip_new_flows_total", "Flows of TCP that began at each VIP: SYNs, those sent again too.", "service", "vip")
	vipOldDesc         = desc("vip_old_flows_total", "Flows of each VIP with another packet than a SYN, each once in a second in which it has one.", "service", "vip")
	backendNewDesc     = desc("backend_new_flows_total", "Flows of TCP that began and for which a backend was the first choice: SYNs, those sent again too.", "backend")
	backendOldDesc     = desc("backend_old_flows_total", "Flows for which a backend was the first choice with another packet than a SYN, each once in a second in which it has one.", "backend")
	sampleDesc         = desc("old_flows_sample", "Of how many old flows one is looked at, and stands for all of them.")
	backendUpDesc      = desc("backend_reachable", "Whether there is a way to a backend; and, of the entry of another site, whether its gateway answers.", "backend")
	backendMTUDesc     = desc("backend_path_mtu_bytes", "MTU of the path to a backend, for encapsulated packets, while there is a way.", "backend")
	pathsDesc          = desc("smaller_paths_total", "Packets Too Big of routers on the way to backends, by whether they were believed.", "result")
	pinsDesc           = desc("pins", "Pins that there are, some seconds ago.")
	pinsToldDesc       = desc("pins_told_total", "Flows that agents told of, by what became of it: pinned, or needless where the row says so anyway.", "result")
	pinsEndedDesc      = desc("pins_ended_total", "Pins that ended, as they were idle or displaced by others in a full map.", "reason")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("razor_gateway_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (k *Keeper) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		packetsDesc, vipPacketsDesc, vipBytesDesc, backendPacketsDesc, backendBytesDesc, vipNewDesc, vipOldDesc, backendNewDesc, backendOldDesc, sampleDesc, backendUpDesc,
		backendMTUDesc, pathsDesc, pinsDesc, pinsToldDesc, pinsEndedDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (k *Keeper) Collect(ch chan<- prometheus.Metric) {
	k.mu.Lock()
	defer k.mu.Unlock()
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	counts, err := k.balancer.Counts()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(packetsDesc, err)
	}
	for _, c := range counts {
		counter(packetsDesc, c.Packets, c.Reason, map[bool]string{true: "true", false: "false"}[c.Dropped])
	}
	ch <- prometheus.MustNewConstMetric(pinsDesc, prometheus.GaugeValue, float64(k.pins.present))
	ch <- prometheus.MustNewConstMetric(sampleDesc, prometheus.GaugeValue, float64(k.balancer.Sample()))
	counter(pinsToldDesc, k.pins.made, "pinned")
	counter(pinsToldDesc, k.pins.needless, "needless")
	counter(pinsEndedDesc, k.pins.expired, "idle")
	counter(pinsEndedDesc, k.pins.displaced, "displaced")
	counter(pathsDesc, k.paths.heard, "believed")
	counter(pathsDesc, k.paths.refused, "refused")
	for _, s := range k.plan.Services {
		for v, n := range k.services[s.Name].vips {
			if t, err := k.balancer.VIPTraffic(n); err == nil {
				counter(vipPacketsDesc, t.Packets, s.Name, v.String())
				counter(vipBytesDesc, t.Bytes, s.Name, v.String())
				counter(vipNewDesc, t.NewFlows, s.Name, v.String())
				counter(vipOldDesc, t.OldFlows, s.Name, v.String())
			}
		}
	}
	for sid, r := range k.backends {
		if k.plan.elsewhere(sid) && !slices.Contains(k.plan.entries(), sid) {
			continue // a backend of another site, whose own gateways tell of it
		}
		if t, err := k.balancer.BackendTraffic(int(r.index)); err == nil {
			counter(backendPacketsDesc, t.Packets, sid.String())
			counter(backendBytesDesc, t.Bytes, sid.String())
			counter(backendNewDesc, t.NewFlows, sid.String())
			counter(backendOldDesc, t.OldFlows, sid.String())
		}
		reachable := 0.0
		if way := r.way(); way.Index != 0 {
			reachable = 1
			if k.away[sid] {
				reachable = 0
			}
			ch <- prometheus.MustNewConstMetric(backendMTUDesc, prometheus.GaugeValue, float64(way.MTU), sid.String())
		}
		ch <- prometheus.MustNewConstMetric(backendUpDesc, prometheus.GaugeValue, reachable, sid.String())
	}
}
