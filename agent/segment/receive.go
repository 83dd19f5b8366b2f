package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Receive has the end of a veth, in the namespace of the calling thread, take what is
// sent to a target's container: a veth drops what XDP sends unless there is a program
// at its other end too. One that somebody else put there serves. It stays when this
// process ends.
func (e *Endpoint) Receive(number uint16, index int) error {
	if err := e.receive(number, index); err != nil {
		return fmt.Errorf("target %d: the container's end of its veth: %w", number, err)
	}
	return nil
}

func (e *Endpoint) receive(number uint16, index int) error {
	there, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	if there.Attrs().Xdp != nil && there.Attrs().Xdp.Attached {
		return nil
	}
	if err := e.release(number); err != nil {
		return err // of an interface that is gone
	}
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "receive", Type: ebpf.XDP, AttachType: ebpf.AttachXDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer pass.Close()
	l, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: index, Flags: link.XDPDriverMode})
	if err != nil {
		return err
	}
	if e.dir != "" {
		if err := l.Pin(e.receiver(number)); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	e.receivers[number] = l
	return nil
}

// xdpPass is XDP_PASS.
const xdpPass = 2

func (e *Endpoint) receiver(number uint16) string {
	return filepath.Join(e.dir, "receive-"+strconv.Itoa(int(number)))
}

// release ends Receive.
func (e *Endpoint) release(number uint16) (err error) {
	if l := e.receivers[number]; l != nil {
		err = l.Close()
		delete(e.receivers, number)
	}
	if e.dir != "" {
		if e := os.Remove(e.receiver(number)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Targets are those that are set, also by an earlier process.
func (e *Endpoint) Targets() ([]uint16, error) {
	var out []uint16
	for number := range uint16(MaxTargets) {
		var t endpointTarget
		if err := e.objects.Targets.Lookup(uint32(number), &t); err != nil {
			return nil, fmt.Errorf("read target %d: %w", number, err)
		}
		if t.Present != 0 {
			out = append(out, number)
		}
	}
	return out, nil
}
