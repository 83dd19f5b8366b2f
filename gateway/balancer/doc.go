// Package balancer is the gateway's dataplane: an XDP program that sends the packets
// of the VIPs to backends by SRv6, and what fills and reads its maps.
//
// The program is in gateway/bpf, in the order in which a packet meets it:
// balancer.c, send.h, encapsulate.h; what is rare is in pins.h, quic.h, icmp.h,
// entry.h, miss.h, sites.h, return.h, toobig.h and path.h. flows.h counts flows, and
// trace.h is around all of it while a [Tracer] reads.
// The process that made a [Balancer] is the only writer of its maps, but for those of
// the trace, two words of the settings and what it counts.
package balancer

//go:generate go tool bpf2go -target bpfel -cc clang-14 -strip llvm-strip-14 -type vip_key -type vip -type prefix_key -type service -type hop -type backend -type host -type traffic -type reason -type pin_key -type pin -type site -type spill -type budget -type server_key -type trace -type record -type cpu_trace bpf ../bpf/balancer.c -- -g -O2 -Wall -Wextra -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
