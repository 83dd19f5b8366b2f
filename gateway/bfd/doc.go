// Package bfd finds out within a fraction of a second that a BGP peer, or the
// way to it, is gone: Bidirectional Forwarding Detection over a single hop
// (RFC 5880, 5881), asynchronous mode.
//
//	packet.go   the control packet
//	session.go  the state machine: pure, the clock is an argument
//	timing.go   its intervals, which a poll sequence agrees on
//	config.go   what a session can be told
//	speaker.go  sessions that come and go, told apart by what arrives
//	worker.go   one session in being: its timer, its socket, its log
//	socket.go   UDP with hop limits
//	status.go   a session as an operator sees it
//	handover.go sessions that outlive the process
//
// A process that waits for a core for longer than the detection time loses its
// sessions, whatever it does. Short intervals want a real-time class
// (CPUSchedulingPolicy=rr of the systemd unit): with six busy loops on two cores,
// three sessions at 50 ms × 3 failed 24 times in 10 s at nice -15, and never with
// it.
package bfd
