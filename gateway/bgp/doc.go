// Package bgp announces routes to peers by BGP-4 (RFC 4271).
//
// GoBGP speaks, but never to a peer itself: it panics on many malformed messages
// and imports what it is sent. So it runs in a child process of the gateway, one
// for each session, and the parent stands between:
//
//	peer ◄──TCP 179──► session (this process) ◄──TCP on loopback──► speaker (child)
//	                   │ own sockets: MD5, GTSM, source, back-off
//	                   │ reads and judges every message of the peer
//	                   └ passes on only messages that it wrote itself
//
// What the speaker sees of its peer is an OPEN made of the fields that were
// understood, KEEPALIVEs, and requests to send routes again; of UPDATEs it sees
// nothing, as nothing is imported: they are counted and judged (RFC 7606) here. What
// the speaker says goes to the peer as it is, but for the bits of graceful restart
// (RFC 4724), and is read along, so that what is announced is known from the wire.
//
// A speaker that dies takes one connection with it. The peer keeps the routes, as
// after any restart, and the next session begins at once with the next speaker.
// When a session ends its speaker is not used again: the path of a crash is the
// path of every day.
package bgp
