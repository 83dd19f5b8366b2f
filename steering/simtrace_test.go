package steering

import "math"

// trace is what happened at a site, a sample every simRecord seconds.
type trace struct {
	load    []float64 // of the backends that work, in parts of their capacity
	demand  []float64 // what load its own clients would make here, in parts of the capacity of all
	spilled []float64 // share of new flows sent to other sites
	lost    []float64 // part of the flows begun since the sample before
}

func (w *world) record(i int) {
	s, tr := w.sites[i], &w.every[i]
	var load, capacity, all float64
	for _, b := range s.backends {
		all += b.capacity
		if !b.down {
			load += float64(len(b.flows))
			capacity += b.capacity
		}
	}
	tr.load = append(tr.load, load/max(capacity, 1))
	tr.demand = append(tr.demand, s.offered(w.now)*s.meanLife/all)
	share := 0.0
	if s.plan != nil {
		share = s.plan.Services[0].spilled()
	}
	tr.spilled = append(tr.spilled, share)
	tr.lost = append(tr.lost, float64(s.lost)/max(1, float64(s.begun)))
	s.lost, s.begun = 0, 0
	w.at(w.now+simRecord, func() { w.record(i) })
}

// watch looks for sites that send each other flows.
func (w *world) watch() {
	sends := map[[2]string]bool{}
	for _, s := range w.sites {
		for _, to := range s.spills {
			sends[[2]string{s.name, to.Site}] = true
		}
	}
	for pair := range sends {
		if sends[[2]string{pair[1], pair[0]}] {
			w.both[pair]++
			w.longestBoth = max(w.longestBoth, w.both[pair])
		}
	}
	for pair := range w.both {
		if !sends[pair] || !sends[[2]string{pair[1], pair[0]}] {
			delete(w.both, pair)
		}
	}
	w.at(w.now+simRecord, w.watch)
}

// sample is the index of a time in a trace.
func sample(at float64) int { return int(at / simRecord) }

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// minutes are the means of a trace over whole minutes within a time.
func minutes(v []float64, from, to float64) []float64 {
	var out []float64
	for at := from; at+60 <= to; at += 60 {
		out = append(out, mean(v[sample(at):sample(at+60)]))
	}
	return out
}

// mostReversals is the largest number of times within any 10 minutes that a share
// that rose falls by a point of 100 or more, or the other way round.
func mostReversals(share []float64) int {
	var when []int
	extreme, way := share[0], 0.0
	for i, v := range share {
		switch {
		case way*(v-extreme) > 0: // further
			extreme = v
		case math.Abs(v-extreme) >= leastMove:
			if way != 0 {
				when = append(when, i)
			}
			extreme, way = v, math.Copysign(1, v-extreme)
		}
	}
	most := 0
	for i, from := range when {
		n := 0
		for _, at := range when[i:] {
			if at-from < sample(600) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// extremes are the least and the largest of some numbers.
func extremes(v []float64) (least, most float64) {
	least, most = math.Inf(1), math.Inf(-1)
	for _, x := range v {
		least, most = min(least, x), max(most, x)
	}
	return least, most
}
