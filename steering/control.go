package steering

import "math"

// The law by which shares are moved, for what a site may have of the new flows.
//
// Load answers late, as flows live long: who moves a share until the load is right
// moves it too far, and swings. What answers at once is how fast the load grows. So
// the law is about that: the gap between the load and where it should be is to be
// closed within the time T, which wants a growth of gap / T. Whatever the growth
// lacks, in load per second, is that much more, or less, of the new flows:
//
//	share' = share + ½ × (gap / T − growth) / offered
//
// offered being what the new flows of all clients of the site bring per second, as
// measured. It is a proportional-integral controller in its incremental form, whose
// proportional part acts on the growth and whose gain is the measured one of what
// it controls: without noise and delay the growth halves its error in each step,
// and the gap shrinks as exp(−t/T), whatever the life of flows is. Half, so that the
// delay of measurements, which is less than a step, does not make it swing.
//
// T is half the mean life of a flow, but at least two minutes unless that is more than
// a life: flows that live shorter follow the share faster. The life is what was measured
// until the step before. What a step measures of it depends on the load: if it counted
// at once, more load could pass for other flows, and give a site more room.
//
// A step is made every 10 s, but only every thirtieth of a life where flows live longer
// than 5 minutes: the growth over a shorter time would be that of chance. Where flows
// are few it is later for the same reason, up to a quarter of a life; but always once a
// minute. Moves of less than one point of 100 are not made, nor those of less than five
// while the load is within one and a half points of where it should be, or moves there
// by itself. A service of few flows has more of chance: those one and a half are three
// quarters of a standard deviation of its load if that is more, and those five two of
// its moves.
//
// This site's own share falls by at most 25 points in a step, and rises by at most
// what the slow start allows. Towards others each of n sites that are loaded at the
// same time makes an n-th of the moves.
const (
	shortestStep = 10.0 // seconds
	longestStep  = 60.0 // seconds
	stepsInLife  = 30.0
	flowsInStep  = 500.0 // chance is 3 points then
	closeGapIn   = 120.0 // seconds
	stepPart     = 0.5
	mostFall     = 0.25
	leastMove    = 0.01
	leastTurn    = 0.05
	closeEnough  = 0.015
	// leastShare is the least share by which what arrives tells what is offered.
	leastShare = 0.05
)

// closing is 1 / T for flows of whose load a part ends per second.
func closing(ending float64) float64 {
	if ending == 0 {
		return 1 / closeGapIn
	}
	return max(ending, min(2*ending, 1/closeGapIn))
}

// stepEvery is how many seconds are between steps, of a service whose flows have a
// load each.
func stepEvery(m Measured, grain float64) float64 {
	if m.Ending == 0 || m.Offered == 0 {
		return shortestStep
	}
	life, flows := 1/m.Ending, m.Offered/grain
	return min(max(shortestStep, life/stepsInLife, min(flowsInStep/flows, life/4)), longestStep)
}

// controller is the law with what it was told.
type controller struct {
	step    bool    // moves are made now
	part    float64 // of the way that they are made
	dt      float64 // seconds over which growth was measured; 0 if it cannot be
	offered float64
	ending  float64
	grain   float64 // load of a flow
	senders float64 // sites that send flows to others, with this one
}

// growth is how fast a load grows, since the last step. If there is less capacity
// than then, less load is taken for what was there: backends left with theirs.
func (c *controller) growth(load, capacity float64, was SiteShare) float64 {
	if c.dt == 0 || was.Capacity == 0 {
		return 0
	}
	return (load - was.Load*min(1, capacity/was.Capacity)) / c.dt
}

// move is by how much a share of the new flows should be moved, of a site with a
// capacity that lacks a load to where it should be, or has too much.
func (c *controller) move(gap, capacity, growth float64) float64 {
	if c.offered == 0 {
		// Nothing is known to come: what there is room for may come.
		return max(0, math.Copysign(1, gap))
	}
	m := c.part * (gap*closing(c.ending) - growth) / c.offered
	least := leastMove
	if m*gap < 0 || math.Abs(gap) <= max(closeEnough*capacity, 0.75*math.Sqrt(c.grain*capacity)) {
		least = max(leastTurn, 2*c.chance(capacity))
	}
	if math.Abs(m) < least {
		return 0
	}
	return m
}

// chance is the standard deviation of moves when nothing changes but flows come and go
// as chance will have it: at a site as many as are offered here, or as it can have.
func (c *controller) chance(capacity float64) float64 {
	if c.dt == 0 {
		return 0
	}
	rate := max(c.offered, capacity*c.ending)
	return c.part * math.Sqrt(2*c.grain*rate/c.dt) / c.offered
}

// measure starts a step if one is due: it takes the measurements of the time since
// the last one, or leaves those of the last one.
func (d *decision) measure() {
	m := Measured{At: d.s.Now}
	share := 1.0
	due := true
	d.law.step = true
	if d.was != nil {
		m.Offered, m.Ending = d.was.Measured.Offered, d.was.Measured.Ending
		share = d.was.Here.Share
		past := d.s.Now.Sub(d.was.Measured.At).Seconds()
		due = past >= stepEvery(m, d.v.FlowLoad)
		switch {
		case due:
			d.law.dt = past
		case past >= 0 && d.works == !d.was.Failover:
			m.At, d.law.step = d.was.Measured.At, false
		}
		// Where a site begins or ends to work there is a step to make, but no time
		// over which to measure; nor after a clock was set back.
	}
	if due && d.works {
		d.take(&m, share)
	}
	d.measured = m
	d.law.offered, d.law.ending = m.Offered, m.Ending
	if d.was != nil {
		d.law.ending = d.was.Measured.Ending
	}
	d.law.part = stepPart
	if d.failing() {
		d.law.part = 1 // it is not a step on a way, but where to begin
	}
	if m.Offered == 0 && !d.works {
		d.law.offered = d.guess()
	}
}

// take adds what arrived while this site had a share to what was measured before.
func (d *decision) take(m *Measured, share float64) {
	mean := func(old, now float64) float64 {
		if old == 0 {
			return now
		}
		return (old + now) / 2
	}
	if share >= leastShare {
		m.Offered = mean(m.Offered, d.v.Arriving/share)
	}
	if arriving := d.v.Arriving + d.v.Guests; d.crew.load > 0 && arriving > 0 {
		growth := d.law.growth(d.crew.load, d.crew.full, d.wasHere())
		m.Ending = mean(m.Ending, max(arriving-growth, arriving/10)/d.crew.load)
	}
}

// guess is what a site offers that never measured it: what fills it in time T.
func (d *decision) guess() float64 {
	sum := 0.0
	for i := range d.v.Backends {
		sum += d.v.Backends[i].Capacity
	}
	return d.v.Settings.Limit * sum * closing(d.law.ending)
}

// wasHere is this site in the plan before, or the zero one.
func (d *decision) wasHere() SiteShare {
	if d.was == nil {
		return SiteShare{}
	}
	return d.was.Here
}

// roomHere is the share of the new flows that this site may keep. It is all as long as
// the load is not above the limit, and again when that has come to be so in steps.
func (d *decision) roomHere() float64 {
	if !d.works {
		return 0
	}
	gap := d.v.Settings.Limit*d.crew.capacity - d.crew.load
	room, past := 1.0, shortestStep
	if d.was != nil {
		room = max(d.was.Here.Room, d.was.Here.Share)
		past = min(max(0, d.s.Now.Sub(d.was.Measured.At).Seconds()), 2*longestStep)
	}
	if !d.law.step || room >= 1 && gap >= 0 {
		return room
	}
	growth := d.law.growth(d.crew.load, d.crew.full, d.wasHere())
	rise := past / float64(d.v.Settings.SlowStart)
	room += max(-mostFall, min(d.law.move(gap, d.crew.capacity, growth), rise))
	if room > 1-leastMove {
		return 1
	}
	return max(0, room)
}

// target is to which part of their capacity other sites are filled: spilled flows are
// for what they accept, those of a failover for what is midway to their limit.
func (d *decision) target() float64 {
	if d.works {
		return d.v.Settings.Accept
	}
	return (d.v.Settings.Accept + d.v.Settings.Limit) / 2
}

// roomThere is the share of the new flows that another site may get.
func (d *decision) roomThere(o SiteSummary) float64 {
	var was SiteShare
	if d.was != nil {
		was = d.was.site(o.Name)
		if !d.law.step && was.Capacity > 0 {
			return was.Room
		}
	}
	move := d.law.move(d.target()*o.Capacity-o.Load, o.Capacity, d.law.growth(o.Load, o.Capacity, was))
	return max(0, min(was.Share+move/d.law.senders, 1))
}
