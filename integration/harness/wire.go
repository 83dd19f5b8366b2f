package harness

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// liveFrames has the kernel treat the frames of a test run as if they came from a driver
// (BPF_F_TEST_XDP_LIVE_FRAMES).
const liveFrames = 2

// Window is how many packets a rate is taken of (integration/bpf/wire.c).
const Window = 16384

// Wire sends traffic into an end of a wire, and counts what comes back encapsulated. A
// core does all the work, also that of the other end.
type Wire struct {
	objects  wireObjects
	attached link.Link
	frame    []byte
}

// OpenWire takes over an interface, by its index in the network namespace of the caller's
// thread.
func OpenWire(device int, t Traffic) (*Wire, error) {
	spec, err := loadWire()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(t.give(spec), spec.Variables["wire"].Set(uint32(device))); err != nil {
		return nil, err
	}
	w := &Wire{frame: t.Frame}
	if err := spec.LoadAndAssign(&w.objects, nil); err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	w.attached, err = link.AttachXDP(link.XDPOptions{Program: w.objects.Collect, Interface: device, Flags: link.XDPDriverMode})
	if err != nil {
		_ = w.objects.Close()
		return nil, fmt.Errorf("wire: %w", err)
	}
	return w, nil
}

// Run sends some packets, in the network namespace of the caller's thread and on one core.
func (w *Wire) Run(packets int) error {
	release, err := oneCore()
	if err != nil {
		return err
	}
	defer release()
	_, err = w.objects.Generate.Run(&ebpf.RunOptions{Data: w.frame, Repeat: uint32(packets), Flags: liveFrames})
	return err
}

// Counts is how many packets were sent, and how many came back.
func (w *Wire) Counts() (sent, returned uint64, err error) {
	err = errors.Join(w.objects.Packets.Get(&sent), w.objects.Returned.Get(&returned))
	return sent, returned, err
}

// Rate is how many packets a second came back, when most did: of those [Window] packets one
// after another that took the least time. It is 0 before there were so many.
func (w *Wire) Rate() (float64, error) {
	var least uint64
	if err := w.objects.Least.Get(&least); err != nil || least == 0 {
		return 0, err
	}
	return Window / time.Duration(least).Seconds(), nil
}

// Close leaves the interface.
func (w *Wire) Close() {
	_ = w.attached.Close()
	_ = w.objects.Close()
}

// oneCore keeps the calling thread on the last of the cores that it may use.
func oneCore() (release func(), err error) {
	runtime.LockOSThread()
	var was, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	for core := range 64 * len(was) {
		if was.IsSet(core) {
			one.Zero()
			one.Set(core)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	return func() {
		_ = unix.SchedSetaffinity(0, &was)
		runtime.UnlockOSThread()
	}, nil
}
