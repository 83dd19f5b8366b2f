package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// SetGateways says which gateways, by their locators, are of this site, in place of those
// before: Heard tells of them, and Accepted what came by others. A new one counts as heard
// now.
func (e *Endpoint) SetGateways(locators []netip.Prefix) error {
	now, err := uptime()
	if err != nil {
		return err
	}
	want := map[uint64]bool{}
	for _, p := range locators {
		key := half(p)
		want[key] = true
		if err := e.objects.Heard.Update(key, uint64(now), ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("gateway %v: %w", p, err)
		}
	}
	var (
		key, at uint64
		gone    []uint64
		stored  = e.objects.Heard.Iterate()
	)
	for stored.Next(&key, &at) {
		if !want[key] {
			gone = append(gone, key)
		}
	}
	if err := stored.Err(); err != nil {
		return fmt.Errorf("read gateways: %w", err)
	}
	for _, key := range gone {
		if err := e.objects.Heard.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove a gateway: %w", err)
		}
	}
	return nil
}

// Heard is for how long nothing has come from a gateway that SetGateways named. Packets
// to targets with a Packet count.
func (e *Endpoint) Heard(locator netip.Prefix) (silent time.Duration, err error) {
	now, err := uptime()
	if err != nil {
		return 0, err
	}
	var at uint64
	if err := e.objects.Heard.Lookup(half(locator), &at); err != nil {
		return 0, fmt.Errorf("gateway %v: %w", locator, err)
	}
	return max(0, now-time.Duration(at)), nil
}

// half is the first half of a prefix as the program compares it.
func half(p netip.Prefix) uint64 {
	a := p.Masked().Addr().As16()
	return binary.NativeEndian.Uint64(a[:])
}

// uptime is the clock of the program.
func uptime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &t); err != nil {
		return 0, fmt.Errorf("monotonic clock: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
