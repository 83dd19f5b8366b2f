// Package bgp announces prefixes to BGP peers.
//
// What a peer sends is read here to the last octet (message, open, update) and is
// never handed on: the BGP engine behind it sees only messages that were written
// here.
package bgp
