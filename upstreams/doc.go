// Package upstreams reads the lists in Redis: what the operators write with
// redis-cli becomes immutable snapshots. It also writes there what its verbs change.
//
//	schema.go, value.go, address.go, name.go, soa.go, endpoint.go, meta.go, blackhole.go, policy.go, attribute.go  the keys, and what they say
//	build.go, buildnames.go, buildzones.go, snapshot.go, subnet.go, table.go  snapshots, each sharing with the last what did not change
//	follow.go, session.go, edit.go, rescan.go, redis.go, replica.go  following one server
//	track.go, resp.go    the connection on which Redis names the keys that change
//	hold.go, holdguards.go  mass losses, which are not obeyed
//	health.go, pulse.go  the health of edges: what their gateways say, and what is made of it
//	subscribe.go         what roles are told of changes
//	disk.go, saver.go    the last good snapshot on disk
//	embedded.go          a Redis inside of the process
//	control.go, verbs.go, diff.go, edges.go  what an operator asks of a running server, and of the lists
//	writer.go, drain.go, publish.go  what is written on the primary, for operators and for the sync
//	setting.go           which setting an error of Redis is about
package upstreams
