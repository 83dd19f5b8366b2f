package root

import (
	"net"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/integration/testhost"
)

const (
	drop = 1
	pass = 2
	tx   = 3
)

// device makes an interface.
func device(t *testing.T, name string) *net.Interface {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "p"}); err != nil {
		t.Fatal(err)
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func open(t *testing.T, dir string, i *net.Interface) *Root {
	t.Helper()
	r, err := Open(dir, i)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// fixed is a program that says the same of all packets.
func fixed(t *testing.T, verdict int32) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, AttachType: ebpf.AttachXDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// verdict is what the interface does with a packet; -1 without a program.
func verdict(t *testing.T, i *net.Interface) int {
	t.Helper()
	l, err := netlink.LinkByIndex(i.Index)
	if err != nil {
		t.Fatal(err)
	}
	if l.Attrs().Xdp == nil || !l.Attrs().Xdp.Attached {
		return -1
	}
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(l.Attrs().Xdp.ProgId))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
	if err != nil {
		t.Fatal(err)
	}
	return int(got)
}

func check(t *testing.T, when string, i *net.Interface, want int) {
	t.Helper()
	if got := verdict(t, i); got != want {
		t.Errorf("%s: verdict %d, want %d", when, got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Programs come and go in any order; the first slot that is filled goes first.
func TestSlots(t *testing.T) {
	t.Parallel()
	testhost.Enter(t)
	dir := testhost.BPFFS(t)
	i := device(t, "eth0")
	a := open(t, dir, i)
	if a.Mode() != "native" {
		t.Errorf("mode %s", a.Mode())
	}
	check(t, "empty", i, pass)
	must(t, a.Put(DNS, fixed(t, drop)))
	check(t, "dns", i, drop)
	b := open(t, dir, i)
	check(t, "joined", i, drop)
	must(t, b.Put(Balancer, fixed(t, tx)))
	check(t, "balancer before dns", i, tx)
	must(t, a.Put(Balancer, fixed(t, pass)))
	check(t, "balancer replaced", i, pass)
	must(t, b.Leave(Balancer))
	check(t, "dns again", i, drop)
	must(t, b.Close())
	must(t, a.Close())
	check(t, "all processes ended", i, drop)
	c := open(t, dir, i)
	check(t, "another process", i, drop)
	must(t, c.Leave(DNS))
	check(t, "the last has left", i, -1)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The name of a VLAN has a dot in it.
func TestDot(t *testing.T) {
	t.Parallel()
	testhost.Enter(t)
	dir := testhost.BPFFS(t)
	i := device(t, "eth0.7")
	r := open(t, dir, i)
	must(t, r.Put(DNS, fixed(t, drop)))
	check(t, "a dot in its name", i, drop)
	must(t, r.Leave(DNS))
	if got := DeviceName(PinName(i.Name)); got != i.Name {
		t.Errorf("got %s back", got)
	}
}

// One that comes while the last one leaves is on the interface all the same.
func TestLeaveBetweenOpenAndPut(t *testing.T) {
	t.Parallel()
	testhost.Enter(t)
	dir := testhost.BPFFS(t)
	i := device(t, "eth0")
	a, b := open(t, dir, i), open(t, dir, i)
	must(t, a.Put(Endpoint, fixed(t, drop)))
	must(t, a.Leave(Endpoint))
	check(t, "removed", i, -1)
	must(t, b.Put(Balancer, fixed(t, tx)))
	check(t, "installed again", i, tx)
	must(t, b.Leave(Balancer))
	check(t, "removed again", i, -1)
}

// An interface that is made anew gets the programs when a process opens it.
func TestNewInterface(t *testing.T) {
	t.Parallel()
	testhost.Enter(t)
	dir := testhost.BPFFS(t)
	i := device(t, "eth0")
	a := open(t, dir, i)
	must(t, a.Put(Balancer, fixed(t, tx)))
	old, err := netlink.LinkByIndex(i.Index)
	must(t, err)
	must(t, netlink.LinkDel(old))
	i = device(t, "eth0")
	check(t, "new interface", i, -1)
	open(t, dir, i)
	check(t, "opened", i, tx)
}

// A slot is left without a root, also of an interface that is gone; what others have there
// stays.
func TestLeavePinned(t *testing.T) {
	t.Parallel()
	testhost.Enter(t)
	dir := testhost.BPFFS(t)
	i := device(t, "eth0.7")
	must(t, LeavePinned(dir, i.Name, Balancer)) // there is nothing
	a := open(t, dir, i)
	must(t, a.Put(Balancer, fixed(t, tx)))
	must(t, a.Put(DNS, fixed(t, drop)))
	must(t, a.Close())
	must(t, LeavePinned(dir, i.Name, Balancer))
	check(t, "another is there", i, drop)
	must(t, LeavePinned(dir, i.Name, DNS))
	check(t, "nobody is", i, -1)
	a = open(t, dir, i)
	must(t, a.Put(Balancer, fixed(t, tx)))
	must(t, a.Close())
	l, err := netlink.LinkByIndex(i.Index)
	must(t, err)
	must(t, netlink.LinkDel(l))
	must(t, LeavePinned(dir, i.Name, Balancer))
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What is not ours stays: another program on the interface is an error that says so.
func TestOccupied(t *testing.T) {
	t.Parallel()
	testhost.Enter(t)
	dir := testhost.BPFFS(t)
	i := device(t, "eth0")
	l, err := link.AttachXDP(link.XDPOptions{Program: fixed(t, pass), Interface: i.Index})
	must(t, err)
	defer l.Close()
	if r, err := Open(dir, i); err == nil {
		_ = r.Close()
		t.Error("no error")
	}
	if r, err := Open(t.TempDir(), i); err == nil {
		_ = r.Close()
		t.Error("no error where there is no BPF file system")
	}
	check(t, "another program", i, pass)
}
