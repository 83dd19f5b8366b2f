package integration

import (
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/integration/netlab"
)

// Sources of a flood, of which no host is: the last 16 bits are any.
var (
	floodSource6 = netip.MustParseAddrPort("[2001:db8:f00d::]:0")
	floodSource4 = netip.MustParseAddrPort("198.18.0.0:0")
)

// unknownPackets are packets of clients that nobody knows to the VIP of each family: SYNs, ACKs
// and UDP, without what differs from packet to packet.
func unknownPackets() (out [][]byte) {
	for _, way := range []struct{ from, to netip.AddrPort }{
		{floodSource6, netip.MustParseAddrPort("[" + vipAddress6 + "]:443")},
		{floodSource4, netip.MustParseAddrPort(vipAddress4 + ":443")},
	} {
		out = append(out, tcpPacket(way.from, way.to, flagSYN, 0), tcpPacket(way.from, way.to, flagACK, 0), udpPacket(way.from, way.to, 4))
	}
	return out
}

// liveFrames has a test run of XDP send what the program redirects (BPF_F_TEST_XDP_LIVE_FRAMES).
const liveFrames = 1 << 1

// flooder is a program that sends a packet out of an end of a link, each time from another
// client's address and port. Checksums stay right: what is put into an address or a port
// is put, inverted, into a place that does not matter.
func flooder(tb testing.TB, packet []byte, from *netlab.End, to *netlab.End) *ebpf.Program {
	tb.Helper()
	frame := etherFrame(packet)
	copy(frame, to.MAC())
	copy(frame[6:], from.MAC())
	address, port, inverted := source6+2, l6, []int{l6 + 4, l6 + 6} // a sequence number
	protocol, four := packet[6], packet[0]>>4 == 4
	if four {
		address, port, inverted = source4+2, l4, []int{l4 + 4, l4 + 6}
		protocol = packet[9]
		header := frame[etherHeader:l4]
		copy(header[4:], []byte{0, 0}) // identification
		copy(header[10:], []byte{0, 0})
		binary.BigEndian.PutUint16(header[10:], internetSum(header))
	}
	if protocol == unix.IPPROTO_UDP {
		inverted = []int{port + 8, port + 10} // data
	}
	frame = append(frame, make([]byte, 7)...)
	frame = frame[:len(frame)/8*8]
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetPrandomU32.Call(),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.LoadMem(asm.R7, asm.R6, 0, asm.Word), // data
		asm.LoadMem(asm.R1, asm.R6, 4, asm.Word), // its end
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, int32(len(frame))),
		asm.JGT.Reg(asm.R2, asm.R1, "short"),
	}
	for at := 0; at < len(frame); at += 8 { // the frame of before, which the gateway changed
		code = append(code, asm.LoadImm(asm.R1, int64(binary.NativeEndian.Uint64(frame[at:])), asm.DWord),
			asm.StoreMem(asm.R7, int16(at), asm.R1, asm.DWord))
	}
	put := func(at int) { code = append(code, asm.StoreMem(asm.R7, int16(at), asm.R8, asm.Half)) }
	invert := func() { code = append(code, asm.Xor.Imm(asm.R8, -1)) }
	put(address)
	invert()
	put(inverted[0])
	if four {
		put(etherHeader + 4) // the header has a checksum of its own
	}
	invert()
	code = append(code, asm.RSh.Imm(asm.R8, 16))
	put(port)
	invert()
	put(inverted[1])
	code = append(code,
		asm.Mov.Imm(asm.R1, int32(index(tb, *from))), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("short"), asm.Return())
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: code})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = p.Close() })
	return p
}

// flood sends all sorts of packets to a gateway, as fast as it takes them, for some time.
func (p *pinning) flood(d time.Duration) error {
	p.t.Helper()
	var programs []*ebpf.Program
	var frames [][]byte
	for _, packet := range unknownPackets() {
		programs = append(programs, flooder(p.t, packet, &p.toward.A, &p.toward.B))
		frames = append(frames, append(etherFrame(packet), make([]byte, 7)...))
	}
	var err error
	p.router.Do(func() {
		for end := time.Now().Add(d); time.Now().Before(end) && err == nil; {
			for i, program := range programs {
				// A batch is a part of what the queue of a veth holds: others' packets
				// find room. Each run takes some time to begin.
				if _, err = program.Run(&ebpf.RunOptions{Data: frames[i], Repeat: 20_000, BatchSize: 32, Flags: liveFrames}); err != nil {
					return
				}
			}
		}
	})
	return err
}

// memory is what the maps of a gateway take, in bytes.
func (d *dataplane) memory() (sum uint64) {
	d.t.Helper()
	files, err := filepath.Glob(filepath.Join(d.pins, "balancer-*", "*"))
	d.must(err)
	for _, f := range files {
		m, err := ebpf.LoadPinnedMap(f, nil)
		if err != nil {
			continue // a program
		}
		info, err := m.Info()
		d.must(err)
		bytes, _ := info.Memlock()
		sum += bytes
		_ = m.Close()
	}
	if sum < balancer.Slots*4 {
		d.t.Fatal("the kernel does not say how much memory maps take")
	}
	return sum
}

// A flood of packets from nobody comes to a site to which, at the same time, routers move
// flows of another site, that nobody here has heard of. All of them are found; no more
// packets than the budget allows go to the other site; nothing grows.
func TestFloodAtTheWrongSite(t *testing.T) {
	t.Parallel()
	s := newSites(t, 2, "west", "east")
	west, east := s.all[0], s.all[1]
	west.router.Run("ip", "route", "add", "blackhole", "198.18.0.0/16")
	west.router.Run("ip", "route", "add", "blackhole", "2001:db8:f00d::/112")
	west.budget = 10_000
	west.apply()
	s.enter(east)
	flows := s.begins(1000, east)
	g := west.pinning // all that comes to west is for it
	before, memory, start := g.counts(), g.memory(), time.Now()
	flood := time.Duration(rounds(3, 20)) * time.Second
	var busy errgroup.Group
	busy.Go(func() error { return g.flood(flood) })
	s.lab.Eventually("the flood is there", func() bool { return g.counts()["budget"] > before["budget"] })
	west.shared([2]string{g.toward.B.Addrs[0].String(), g.toward.B.Addrs[1].String()})
	var slowest [1000]time.Duration
	var talk errgroup.Group
	for i, f := range flows {
		talk.Go(func() error {
			for time.Since(start) < flood {
				asked := time.Now()
				_ = f.conn.SetDeadline(asked.Add(time.Minute))
				if by, err := f.exchange("who\n"); err != nil || by != f.by {
					t.Errorf("flow %d of %q is of %q, %v", i, f.by, by, err)
					return err
				}
				slowest[i] = max(slowest[i], time.Since(asked))
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		})
	}
	if err := busy.Wait(); err != nil {
		t.Fatal(err)
	}
	after, took := g.counts(), time.Since(start)
	if err := talk.Wait(); err != nil {
		t.Fatal(g.counts())
	}
	away, dropped := after["away"]-before["away"], after["budget"]-before["budget"]
	t.Logf("%v: %d packets sent, %d to east, %d beyond the budget; the slowest answer took %v", took, after["sent"]-before["sent"], away, dropped, slices.Max(slowest[:]))
	// It may be spent once more at each end of the time, and counts are not exact
	// when CPUs begin an interval at once.
	if most := uint64(10_000 * 1.05 * (took + 200*time.Millisecond).Seconds()); away > most {
		t.Errorf("%d packets went to east in %v, want at most %d", away, took, most)
	}
	if dropped == 0 {
		t.Error("the flood did not use up the budget")
	}
	if now := g.memory(); now != memory {
		t.Errorf("maps take %d bytes, %d before", now, memory)
	}
	if _, others := g.pinsOf(east); others != 0 {
		t.Errorf("%d pins of flows that are not at east", others)
	}
	west.flows = flows
	s.settle("after the flood", flows, west, east)
}
