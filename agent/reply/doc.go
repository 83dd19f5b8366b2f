// Package reply is what becomes of the answers of a backend on their way out: a program
// on its interfaces (tcx) that tells clients of segments which fit through the fabric
// once gateways have encapsulated them, and sends answers to gateways where they are to
// go by those. It is the loader, and what user space puts into its maps and reads from
// them.
//
// The program is agent/bpf/reply.c. Maps and links are pinned: it goes on while the
// process is away.
package reply

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -cflags "-g -O2 -Wall -Wextra -Werror -mcpu=v3 -I../../gateway/bpf/include -I/usr/include/x86_64-linux-gnu" -type reason -type setting reply ../bpf/reply.c
