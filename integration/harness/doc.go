// Package harness measures what an XDP program costs a packet: the program is run on
// one frame after another of as many flows as is wanted, without an interface, or on what
// comes out of a wire.
package harness

//go:generate go tool bpf2go -target bpfel -cc clang-14 -strip llvm-strip-14 bpf ../bpf/harness.c -- -g -O2 -Wall -Wextra -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -target bpfel -cc clang-14 -strip llvm-strip-14 wire ../bpf/wire.c -- -g -O2 -Wall -Wextra -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
