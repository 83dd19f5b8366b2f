// Package razor is the authoritative nameserver: it answers A and AAAA with
// addresses that steering chooses from a snapshot of the lists.
//
//	udp.go, tcp.go   sockets, limits, the asked address as the source of answers
//	query.go, ecs.go what a client sent, checked to its last octet
//	answer.go        which data answers it
//	resolve.go       which route, pool and addresses
//	geo.go           the client's place
//	reply.go         what is sent
package razor
