// Package segment is the endpoint of a backend host: an XDP program that takes the
// packets gateways encapsulated for the host and its containers, and hands on those of
// flows that others own (RFC 8986), with its loader, and what user space puts into its
// maps and reads from them. Counters are read when they are asked for.
//
// The program is agent/bpf/endpoint.c. It belongs into the slot of the endpoint of an
// interface (gateway/bpf/include/slots.h), and with its maps pinned it goes on while the
// process is away.
package segment

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -cflags "-g -O2 -Wall -Wextra -Werror -mcpu=v3 -I../../gateway/bpf/include -I/usr/include/x86_64-linux-gnu" -type reason -type slot -type target -type domain -type vip_key -type event -type handled -type accepted endpoint ../bpf/endpoint.c
