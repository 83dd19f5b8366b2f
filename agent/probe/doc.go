// Package probe measures whether a service on this host works, again and again,
// and says when its health changes.
//
// A [Config] is one probe as an operator writes it; a [Prober] runs it. What one
// measurement is depends on the kind:
//
//   - http, https: GET over a connection of its own; the status, and optionally a
//     text in the body, are compared. Redirects are not followed;
//   - tcp: a connection is accepted;
//   - dns: a query is answered;
//   - exec: a program exits with 0.
//
// A [Gauge] asks for a figure instead, by http, https or exec.
//
// How measurements make a health is [steering.Damper]'s. The target is an address:
// no name is resolved and no proxy asked, so that a probe says something about its
// service alone.
package probe
