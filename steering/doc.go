// Package steering decides which addresses a client is given, which backend its
// flows go to, and what of the world is believed on the way there. It does nothing
// else: no input or output, no goroutines, no clock, and no randomness but the one
// that the caller hands in. Whatever it decides can therefore be tested against a
// slow model, and repeated.
//
// A [Pool] holds the members behind a route, for one [Family]. A [SkipList]
// takes members, and parts of members, away from it ([Pool.Without]). From what
// is left an answer is made in one of three ways:
//
//   - [Pool.Draw]: at random, every member with the same chance;
//   - [Pool.Hash]: by the client's subnet, moving as few clients as possible
//     when a member comes or goes;
//   - [Pool.HashLegacy]: by the client's subnet with the formula of pdns-razor,
//     for a fleet in which both run.
//
// [Groups] chooses among named groups in the latter two ways, and [Place]
// names the keys under which a route for a part of the world is looked up.
//
// A [Guard] decides how much of a change to a list is believed, a [Damper] makes a
// health of single measurements, and a [Leveler] a level of measurements of load.
//
// A flow has a slot of its service's table ([FlowHash], [FlowSlot]). [Maglev]
// assigns the slots to backends, and a [Table] has the rows and histories that the
// balancer reads, with the order in which they are changed. [Indices] are the
// numbers of backends in them, [Rank] and [Spills] choose the slots whose new flows
// go to another site, and a [PlanNumber] keeps an old plan from being applied late.
// [Decide] makes the [Plan] of a site of a [Snapshot]: who gets new flows, here and at
// other sites, by health, load and the will of operators.
//
// Pools, skip lists and groups are immutable and safe for concurrent use; a nil
// pointer to one is an empty one. A [Sampler], a [Guard], a [Damper], a
// [Leveler], a [Table], [Indices] and a [PlanNumber] belong to one goroutine.
package steering
