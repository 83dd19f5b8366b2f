package steering

import (
	"fmt"
	"slices"
	"time"
)

// Standing is what a backend is to do.
type Standing string

// The standings of backends. Draining is no new flows, by will or as the backend is
// down: it keeps those that it has. Dead is that its flows are lost.
const (
	StandingActive   Standing = "active"
	StandingDraining Standing = "draining"
	StandingDead     Standing = "dead"
)

// silentFor is how many intervals without a report make a backend dead.
const silentFor = 3

// Told is what an agent said last of one backend of a service.
type Told struct {
	At       time.Time // when it was heard
	Seen     time.Time // when it was last, be it that it was not believed; zero is At
	Interval time.Duration
	Health   Health // the worst of what is probed; up where nothing is
	Draining bool
	Gone     bool // its host is, should its agent be silent: [Echo.Gone]
}

// OldAt is from when on what its agent said is too old.
func (t *Told) OldAt() time.Time { return t.At.Add(silentFor * t.Interval) }

// SilentAt is from when on its agent is silent.
func (t *Told) SilentAt() time.Time {
	if t.Seen.After(t.At) {
		return t.Seen.Add(silentFor * t.Interval)
	}
	return t.OldAt()
}

// Judged is a backend that [Judge] is to say something of.
type Judged struct {
	Configured Standing
	Weight     uint32
	Told       *Told    // nil as long as its agent never spoke
	Was        Standing // [Finding.Claimed] before; "" is none
	// Believed is since when the silence of agents is, after [Doubts] of it; zero for ever.
	Believed time.Time
}

// Finding is what a backend is to do, and why.
type Finding struct {
	Standing Standing
	Claimed  Standing // what its agent alone makes of it
	Reason   string   // "" is that it is as configured, and nothing speaks against that
	// Gone is that its host is. Where it drains all the same, it stays in rows and histories for
	// when it is back, and nothing is to be sent there before. What is active is not gone.
	Gone bool
}

// Judgement is what the backends of a service are to do.
type Judgement struct {
	Findings []Finding // of each backend, in their order
	FailOpen string    // why agents are not believed everything; "" is that they are
}

// Judge says what the backends of a service are to do, of what is configured and what
// their agents said:
//
//   - What is configured as draining or dead is so: an operator's word goes before an
//     agent's. Nothing is held against a backend whose agent never spoke.
//   - An agent that was silent for three of its intervals is gone, and its backend dead,
//     until it speaks again. If too few were heard until a moment ago, the others have three
//     of their intervals to be heard as well, and drain meanwhile: what kept all reports away
//     does not end for all of them at once. One that speaks, and cannot be believed for as
//     long, as its clock is another, is not gone: its backend is draining.
//   - A backend is draining if its agent says that it is to be, or that it is down. A
//     health that is unknown changes nothing: who was out stays out until it is up.
//
// Agents never take the last backend of a service, nor, but for an operator's will, more
// than a share of them. Those that count are active by the configuration, have a weight,
// and are not drained through their agents:
//
//   - If fewer than minHealthy of them speak, silence is not believed: what keeps so many
//     reports away is most likely not the backends. But those whose hosts are gone drain, and
//     nothing is sent there (below).
//   - If fewer than minHealthy of them are neither silent nor down, health is not
//     believed: those that are down get new flows as well. The silent ones stay dead where
//     enough others speak, as a host that is gone serves nobody.
//   - If none is left by all that, nothing that agents say is believed.
//
// Where another site takes the new flows of a service without backends (elsewhere), and
// not one is well, that is believed: a failover. If fewer than minHealthy speak, the
// silent ones drain, so that their flows go on should it be the reports alone that fail.
//
// A host is gone that does not answer echoes either ([Echo]). Beyond minHealthy it is not dead
// even so, as what is dead is forgotten, and what so many hosts lose at once may come back: it
// drains, and no packet goes there until it answers or its agent speaks. Who is gone thus swallows
// nothing that others would take, and it costs no flow where the evidence is of something else:
//
//   - The gateway is cut off from the hosts, or their router is dead. What it sends does not
//     arrive in any case. Rows and histories are as they were when the way is back, and nobody
//     else had to answer for those flows.
//   - The gateway is cut off from all: then it hears nobody, and nothing counts as lost.
//   - An agent is dead on a host that works, or its reports are lost: the host answers, and
//     gets the packets of its flows.
//   - A host hangs: it answers as long as its kernel takes packets, and then it has flows.
//   - Mates see different things: each leaves out whom it does not reach itself, and none
//     takes anybody out of the tables for it.
//   - A part of a site is gone, and enough others speak: then silence makes dead, as ever.
//
// What it does not see through is something that from one moment on loses reports and echoes of
// most hosts, but not the packets of flows: a filter for all of them. New flows are elsewhere
// then, and old ones wait until it is gone.
//
// minHealthy is a share of 0 to 1; with 0 only the last backend is kept. Judge depends on
// its arguments alone.
func Judge(backends []Judged, minHealthy float64, elsewhere bool, now time.Time) Judgement {
	j := Judgement{Findings: make([]Finding, len(backends))}
	count, speak, well := 0, 0, 0
	for i := range backends {
		b := &backends[i]
		v := b.claim(now)
		j.Findings[i] = v
		if !b.counts() {
			continue
		}
		count++
		if v.Claimed != StandingDead {
			speak++
		}
		if v.Claimed == StandingActive {
			well++
		}
	}
	few := func(n int) bool { return float64(n) < minHealthy*float64(count) }
	if elsewhere && well == 0 {
		if few(speak) {
			j.drain(backends, silent)
		}
		return j
	}
	switch {
	case few(speak):
		j.FailOpen = fmt.Sprintf("%d of %d active backends report: neither silence nor health is believed", speak, count)
		if gone := j.drain(backends, func(v *Finding) bool { return v.Gone }); gone > 0 {
			j.FailOpen += fmt.Sprintf(", but of %d whose hosts do not answer", gone)
		}
		j.open(backends, func(b *Judged, v *Finding) bool { return b.counts() && !v.Gone })
	case few(well):
		j.FailOpen = fmt.Sprintf("%d of %d active backends are up: health is not believed", well, count)
		j.open(backends, func(b *Judged, v *Finding) bool { return b.counts() && v.Claimed != StandingDead })
	}
	if !j.serves(backends) && slices.ContainsFunc(backends, func(b Judged) bool { return b.serves() }) {
		j.FailOpen = "no backend would be left: agents are not believed"
		j.open(backends, func(b *Judged, _ *Finding) bool { return b.serves() })
	}
	return j
}

// Doubts tells whether fewer than minHealthy speak, so that silence is not believed: see
// [Judge].
func Doubts(backends []Judged, minHealthy float64, now time.Time) bool {
	count, speak := 0, 0
	for i := range backends {
		b := &backends[i]
		if !b.counts() {
			continue
		}
		count++
		if claimed, _ := b.told(now); claimed != StandingDead {
			speak++
		}
	}
	return float64(speak) < minHealthy*float64(count)
}

// Claims says what agents alone make of the backends of a service, for [Decide], which says
// what of their health is believed. Silence it cannot judge: who is silent is dead, unless
// fewer than minHealthy speak of those that count in [Judge]. What keeps so many reports away
// is most likely not the backends: they are draining then, and keep their flows. Packets of
// new flows that other sites have go by way of those whose hosts are not gone, and so are lost
// where no host ever answered echoes; minHealthy 0 believes the silence of all.
func Claims(backends []Judged, minHealthy float64, now time.Time) []Finding {
	j := Judgement{Findings: make([]Finding, len(backends))}
	for i := range backends {
		j.Findings[i] = backends[i].claim(now)
	}
	if Doubts(backends, minHealthy, now) {
		j.drain(backends, silent)
	}
	return j.Findings
}

// serves tells whether the configuration gives new flows to the backend.
func (b *Judged) serves() bool { return b.Configured == StandingActive && b.Weight > 0 }

// counts tells whether a share is of it too.
func (b *Judged) counts() bool { return b.serves() && (b.Told == nil || !b.Told.Draining) }

// claim is the finding where everything is believed.
func (b *Judged) claim(now time.Time) Finding {
	claimed, reason := b.told(now)
	v := Finding{Standing: claimed, Claimed: claimed, Reason: reason, Gone: claimed == StandingDead && b.Told.Gone}
	switch {
	case b.Configured != StandingActive:
		v.Standing, v.Reason = b.Configured, ""
	case claimed == StandingDead && b.counts() && now.Before(b.DeadAt()):
		v.Standing, v.Reason = StandingDraining, v.Reason+": it may speak yet"
	}
	return v
}

// DeadAt is from when on its silence makes it dead, if it does not speak, and silence is
// believed. Its agent has spoken.
func (b *Judged) DeadAt() time.Time {
	at := b.Told.SilentAt()
	if again := b.Believed.Add(silentFor * b.Told.Interval); !b.Believed.IsZero() && again.After(at) {
		return again
	}
	return at
}

// told is what an agent makes of its backend.
func (b *Judged) told(now time.Time) (Standing, string) {
	t := b.Told
	switch {
	case t == nil:
		return StandingActive, ""
	case !now.Before(t.SilentAt()):
		reason := fmt.Sprintf("its agent is silent for more than %v", silentFor*t.Interval)
		if t.Gone {
			reason += ", and its host does not answer"
		}
		return StandingDead, reason
	case !now.Before(t.OldAt()):
		return StandingDraining, "its agent is not believed: its clock is wrong, or was set back"
	case t.Draining:
		return StandingDraining, "its agent is drained"
	case t.Health == HealthDown:
		return StandingDraining, "its agent says that it is down"
	case t.Health == HealthUnknown && b.Was != "" && b.Was != StandingActive:
		return StandingDraining, "its agent does not know yet whether it is up again"
	}
	return StandingActive, ""
}

// open makes backends active whatever their agents claim.
func (j *Judgement) open(backends []Judged, who func(b *Judged, v *Finding) bool) {
	for i := range backends {
		if v := &j.Findings[i]; v.Standing != StandingActive && who(&backends[i], v) {
			v.Standing, v.Gone, v.Reason = StandingActive, false, v.Reason+", which is not believed"
		}
	}
}

// drain has silent backends that count drain, which would be dead, and says how many.
func (j *Judgement) drain(backends []Judged, who func(v *Finding) bool) (n int) {
	for i := range backends {
		v := &j.Findings[i]
		if v.Standing != StandingDead || !backends[i].counts() || !who(v) {
			continue
		}
		n++
		if v.Standing = StandingDraining; !v.Gone {
			v.Reason += ", as most are: it keeps its flows"
		}
	}
	return n
}

func silent(v *Finding) bool { return v.Claimed == StandingDead }

// serves tells whether some backend gets new flows.
func (j *Judgement) serves(backends []Judged) bool {
	for i := range backends {
		if backends[i].Weight > 0 && j.Findings[i].Standing == StandingActive {
			return true
		}
	}
	return false
}
