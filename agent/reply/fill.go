package reply

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Headers of a segment without options, IP and TCP.
const (
	headers4, headers6 = 20 + 20, 40 + 20
	// smallest is the segment that every host takes (RFC 9293 §3.7.1): nobody is told of
	// less.
	smallest = 536
)

// Setting is what becomes of answers.
type Setting struct {
	// Packet is the largest that clients are to send, in bytes of IP: they are told of
	// segments that fit. 0 is any.
	Packet int
}

func (s Setting) entry() replySetting {
	var e replySetting
	if s.Packet > 0 {
		e.Mss4 = uint16(min(max(s.Packet-headers4, smallest), 1<<16-1))
		e.Mss6 = uint16(min(max(s.Packet-headers6, smallest), 1<<16-1))
	}
	return e
}

// Set has the program do so from now on.
func (r *Replies) Set(s Setting) error {
	e := s.entry()
	if e == r.setting {
		return nil
	}
	if err := r.objects.Settings.Put(uint32(0), e); err != nil {
		return fmt.Errorf("set what becomes of replies: %w", err)
	}
	r.setting = e
	return nil
}

// SetVIPs says which sources replies have, in place of those before. IPv4 may be written
// as ::ffff:192.0.2.1.
func (r *Replies) SetVIPs(vips []netip.Addr) error {
	want := map[replyAddress]bool{}
	for _, a := range vips {
		want[replyAddress{Bytes: a.As16()}] = true
	}
	var (
		key    replyAddress
		is     uint8
		gone   []replyAddress
		stored = r.objects.Vips.Iterate()
	)
	for stored.Next(&key, &is) {
		if !want[key] {
			gone = append(gone, key)
		}
	}
	if err := stored.Err(); err != nil {
		return fmt.Errorf("read the sources of replies: %w", err)
	}
	for _, key := range gone {
		if err := r.objects.Vips.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove a source of replies: %w", err)
		}
	}
	for key := range want {
		if err := r.objects.Vips.Put(key, uint8(1)); err != nil {
			return fmt.Errorf("replies from %v: %w", netip.AddrFrom16(key.Bytes).Unmap(), err)
		}
	}
	return nil
}
