package balancer

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/integration/testhost"
)

// A trace ends with who reads, in whatever way. Nobody reads a second one beside.
func TestTraceEnds(t *testing.T) {
	t.Parallel()
	b := newTraced(t, newModel(false))
	syn := ethernet(0, fixtures()[0].packet)
	on := func() bool { return b.settings.at(0).Traced != 0 }
	tr := b.start(TraceFilter{})
	if _, err := OpenTracer(b.pins, TraceFilter{}, nil); err == nil || !strings.Contains(err.Error(), "somebody traces already") {
		t.Errorf("a second one: %v", err)
	}
	if err := b.SetVIPs(b.m.vips); err != nil || !on() { // the gateway's writes leave it alone
		t.Errorf("on: %v, %v", on(), err)
	}

	// Nobody has renewed the lease, and a record lies there.
	b.run(t, syn)
	tr.lease(t, -time.Second)
	b.run(t, syn)
	if on() {
		t.Error("goes on without a reader")
	}
	b.end(tr)

	tr = b.start(TraceFilter{})
	if r := tr.next(t); r != nil {
		t.Errorf("an earlier trace's: %v", r)
	}
	b.run(t, syn)
	ctx, stop := context.WithCancel(t.Context())
	n := 0
	err := tr.Run(ctx, func(*TraceRecord) (bool, error) { n++; stop(); return true, nil })
	if err != nil || n != 1 {
		t.Errorf("%d records, %v", n, err)
	}
	if b.end(tr); on() {
		t.Error("goes on after its end")
	}

	tr = b.open(TraceFilter{})
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	if err := tr.Run(t.Context(), func(*TraceRecord) (bool, error) { return true, nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the maps are gone: %v", err)
	}
	if _, err := OpenTracer(b.pins, TraceFilter{}, nil); err == nil || !strings.Contains(err.Error(), "no balancer has its maps in ") {
		t.Errorf("without maps: %v", err)
	}
}

// A trace is not for the program that takes over, whose maps may be others. The next one is
// of that, also where the configuration says another number of services.
func TestTraceAndMigration(t *testing.T) {
	t.Parallel()
	newer := variant(t, newerMaps...)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m, pins := newModel(false), testhost.BPFFS(t)
	first, err := Load(Options{Services: len(m.services), Pins: pins})
	must(err)
	m.fill(t, first)
	b := &traced{first, t, m, pins}
	tr := b.start(TraceFilter{})
	must(first.Close())

	other, err := load(Options{Services: 5, Pins: pins}, newer, layout+1)
	must(err)
	if _, err := OpenTracer(pins, TraceFilter{}, nil); err == nil || !strings.Contains(err.Error(), "is of another version") {
		t.Errorf("maps of a newer program: %v", err)
	}
	must(errors.Join(other.RemoveOthers(), other.Close()))
	if err := tr.Run(t.Context(), func(*TraceRecord) (bool, error) { return true, nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the trace goes on: %v", err)
	}

	back, err := Load(Options{Services: 1, Pins: pins})
	must(err)
	must(back.RemoveOthers())
	syn := ethernet(0, fixtures()[0].packet)
	if v := back.run(t, syn); v.action != xdpTX && v.action != xdpRedirect || back.settings.at(0).Traced != 0 {
		t.Errorf("verdict %d, traced %d", v.action, back.settings.at(0).Traced)
	}
	b.end(tr)
	tr = b.open(TraceFilter{})
	back.run(t, syn)
	if r := tr.next(t); r == nil || r.Action != "sent" {
		t.Errorf("the next trace: %v", r)
	}
	must(back.Close())
}

// In a flood few packets are looked at, and fewer have records. What becomes of all of
// them is the same.
func TestTraceOfAFlood(t *testing.T) {
	t.Parallel()
	const packets = 100_000
	b := newTraced(t, newModel(false))
	tr := b.open(TraceFilter{})
	frame := ethernet(0, ip(client6, vip6, unix.IPPROTO_TCP, tcp(31000, 443, syn|ack, 0)))
	flood := func() (lost TraceLosses) {
		t.Helper()
		action, err := b.Program().Run(&ebpf.RunOptions{Data: frame, Repeat: packets})
		if err != nil || action != xdpDrop {
			t.Fatalf("verdict %d, %v", action, err)
		}
		if lost, err = tr.Losses(); err != nil {
			t.Fatal(err)
		}
		return lost
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if lost := flood(); lost.Unseen > 0 && lost.Limited > 0 {
			records := 0
			for r := tr.next(t); r != nil; r = tr.next(t) {
				records++
			}
			counts, err := b.Counts()
			if err != nil {
				t.Fatal(err)
			}
			dropped := counts[bpfReasonDROPPED_FLAGS].Packets
			if all := lost.Unseen + lost.Limited + lost.Full + uint64(records); all != dropped {
				t.Errorf("%d packets were dropped: %d records, %+v", dropped, records, lost)
			}
			return
		}
	}
	t.Error("all were looked at")
}

// Nobody waits for a reader that is too slow.
func TestTraceWithoutRoom(t *testing.T) {
	t.Parallel()
	b := newTraced(t, newModel(false))
	tr := b.open(TraceFilter{})
	syn := ethernet(0, fixtures()[0].packet)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		for range 100 {
			if v := b.run(t, syn); v.action != xdpTX && v.action != xdpRedirect {
				t.Fatalf("verdict %d", v.action)
			}
		}
		if lost, err := tr.Losses(); err != nil || lost.Full > 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("there was room for all")
}
