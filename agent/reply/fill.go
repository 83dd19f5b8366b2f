package reply

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
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

// MaxGateways is how many gateways replies go by at most.
const MaxGateways = 64

// Setting is what becomes of answers.
type Setting struct {
	// Packet is the largest that clients are to send, in bytes of IP: they are told of
	// segments that fit. 0 is any.
	Packet int
	// Gateways are the locators (/64s) of those that answers go by, spread by the flow;
	// without any they go straight to clients.
	Gateways []netip.Prefix
	// Locator is that of this host, and Block that of all, where there are gateways.
	Locator, Block netip.Prefix
}

func (s Setting) entry() (replySetting, error) {
	var e replySetting
	if s.Packet > 0 {
		e.Mss4 = uint16(min(max(s.Packet-headers4, smallest), 1<<16-1))
		e.Mss6 = uint16(min(max(s.Packet-headers6, smallest), 1<<16-1))
	}
	if len(s.Gateways) == 0 {
		return e, nil
	}
	switch {
	case len(s.Gateways) > MaxGateways:
		return e, fmt.Errorf("replies by %d gateways: want %d at most", len(s.Gateways), MaxGateways)
	case !s.Block.IsValid() || !s.Block.Addr().Is6() || s.Block.Bits() < 1 || s.Block.Bits() > 64:
		return e, fmt.Errorf("SR block %v: want an IPv6 prefix of 1 to 64 bits", s.Block)
	}
	for _, p := range append([]netip.Prefix{s.Locator}, s.Gateways...) {
		if !p.IsValid() || p.Bits() != 64 || !s.Block.Contains(p.Addr()) {
			return e, fmt.Errorf("locator %v: want a /64 in %v", p, s.Block)
		}
	}
	half := func(p netip.Prefix) uint64 {
		a := p.Masked().Addr().As16()
		return binary.NativeEndian.Uint64(a[:])
	}
	e.Domain.Locator, e.Domain.Block = half(s.Locator), half(s.Block)
	e.Domain.BlockMask = binary.NativeEndian.Uint64(binary.BigEndian.AppendUint64(nil, math.MaxUint64<<(64-s.Block.Bits())))
	e.Gateways = uint32(len(s.Gateways))
	return e, nil
}

// behaviourReturn is the function of the SID that gateways take answers at
// (gateway/bpf/include/srv6.h).
const behaviourReturn = 0x5206

// Set has the program do so from now on. Packets meanwhile go by one of the gateways
// before, or of these.
func (r *Replies) Set(s Setting) error {
	e, err := s.entry()
	if err != nil {
		return err
	}
	for i, p := range s.Gateways {
		sid := p.Masked().Addr().As16()
		binary.BigEndian.PutUint16(sid[8:], behaviourReturn)
		if err := r.objects.Gateways.Put(uint32(i), replySid{Address: replyAddress{Bytes: sid}}); err != nil {
			return fmt.Errorf("replies by %v: %w", p, err)
		}
	}
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
