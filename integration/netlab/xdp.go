package netlab

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// MeetXDP prepares the end of a link whose other end has an XDP program: a veth drops
// the frames that such a program sends unless there is a program at this end as well,
// and checksums that are left to hardware are never made.
func (e *End) MeetXDP() {
	tb := e.Node.lab.tb
	tb.Helper()
	e.WholeChecksums()
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, AttachType: ebpf.AttachXDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		tb.Fatal(err)
	}
	defer pass.Close()
	device, err := e.Node.handle.LinkByName(e.Device)
	if err != nil {
		tb.Fatal(err)
	}
	var attached link.Link
	e.Node.Do(func() {
		attached, err = link.AttachXDP(link.XDPOptions{Program: pass, Interface: device.Attrs().Index, Flags: link.XDPDriverMode})
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = attached.Close() })
}

// WholeChecksums has the end send packets with the checksums in them.
func (e *End) WholeChecksums() {
	e.Node.lab.tb.Helper()
	e.Node.Run(program(e.Node.lab.tb, "ethtool", "ethtool"), "-K", e.Device, "tx", "off")
}
