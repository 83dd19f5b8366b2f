package integration

import (
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/razor-steering/razor/integration/harness"
)

// prototypes is where the first drafts of the dataplane are, beside the project.
var prototypes = filepath.Join("..", "..", "shared", "prototypes", "dataplane")

// prototype is one of them, with what the benchmark's traffic needs in its maps; nil
// where its source or what it is made with is not there.
func (d *dataplaneBench) prototype(name string, options ...string) *harness.Subject {
	d.b.Helper()
	source, err := filepath.Abs(filepath.Join(prototypes, name+".bpf.c"))
	d.must(err)
	if _, err := os.Stat(source); err != nil {
		d.b.Logf("prototype %s is left out: %v", name, err)
		return nil
	}
	dir := d.b.TempDir()
	types, err := exec.Command("bpftool", "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c").Output()
	if err != nil {
		d.b.Logf("prototype %s is left out: the types of the kernel: %v", name, err)
		return nil
	}
	d.must(os.WriteFile(filepath.Join(dir, "vmlinux.h"), types, 0o600))
	object := filepath.Join(dir, name+".o")
	compile := append([]string{"-g", "-O2", "-target", "bpf", "-mcpu=v3", "-w", "-I", dir, "-c", source, "-o", object}, options...)
	if out, err := exec.Command("clang-14", compile...).CombinedOutput(); err != nil {
		d.b.Logf("prototype %s is left out: %v: %s", name, err, out)
		return nil
	}
	fill := map[string]func(map[string]*ebpf.Map) error{"gw": fillPrototypeGateway, "agent": fillPrototypeAgent}
	s, err := harness.Compiled(object, name, fill[name])
	d.must(err)
	d.b.Cleanup(s.Close)
	return s
}

// fillPrototypeGateway has the VIPs, rows and backends that ours has, as far as the
// prototype knows of them: it has a second backend for all packets.
func fillPrototypeGateway(maps map[string]*ebpf.Map) error {
	for i, a := range []netip.AddrPort{benchVIP6, benchVIPOf(benchAlone), benchVIP4} {
		family, address := byte(6), make([]byte, 16)
		if copy(address, a.Addr().AsSlice()); a.Addr().Is4() {
			family = 4
			copy(address[12:], a.Addr().AsSlice())
			clear(address[:12])
		}
		for _, protocol := range []byte{6, 17} {
			key := append(binary.BigEndian.AppendUint16(address, a.Port()), protocol, family)
			value := binary.LittleEndian.AppendUint64(make([]byte, 0, 16), uint64(i))
			if err := maps["vips"].Put(key, binary.LittleEndian.AppendUint64(value, 0x1234567890abcdef)); err != nil {
				return err
			}
		}
	}
	var keys, rows []uint32
	for service := range 3 {
		for slot := range 65537 {
			current, previous := benchRowOf(slot)
			keys, rows = append(keys, uint32(service*65537+slot)), append(rows, current|previous<<16)
		}
	}
	if _, err := maps["maglev"].BatchUpdate(keys, rows, nil); err != nil {
		return err
	}
	for i := range uint32(benchBackends) {
		if err := maps["backends"].Put(i+1, append(hunt(int(i+1)).AsSlice(), make([]byte, 8)...)); err != nil {
			return err
		}
	}
	return nil
}

// fillPrototypeAgent has the SIDs of the benchmark's traffic.
func fillPrototypeAgent(maps map[string]*ebpf.Map) error {
	for i, a := range []string{"2001:db8:5e:1:5201::", "2001:db8:5e:1:5202::"} {
		if err := maps["sids"].Put(netip.MustParseAddr(a).As16(), uint32(i)); err != nil {
			return err
		}
	}
	return nil
}
