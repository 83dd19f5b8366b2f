// Package live is the page that a gateway serves of itself: what it does now and what
// has happened lately, for people (/), for programs (/live.json), and as a stream of
// both (/live, server-sent events). It only reads.
package live
