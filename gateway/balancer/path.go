package balancer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/steering"
)

const (
	// smallerFor is how long a path is taken for as small as a router said (RFC 8201 §4).
	smallerFor = 10 * time.Minute
	// leastPath is the least MTU that is believed of a path. With it clients can be told
	// 1,280, the least that IPv6 knows, whatever list their packets get.
	leastPath = 1280 + maxOverhead
	// maxOverhead is what an encapsulation adds at most (gateway/bpf/include/srv6.h).
	maxOverhead = 40 + 8 + 16*maxSegments
	maxSegments = 6
)

// smaller is an MTU that a router said a path has.
type smaller struct {
	mtu   uint16
	until time.Time
}

// listenPaths has the paths to backends be as small as routers say, until ctx ends.
func (k *Keeper) listenPaths(ctx context.Context) error {
	r, err := ringbuf.NewReader(k.balancer.objects.SmallerPaths)
	if err != nil {
		return fmt.Errorf("smaller paths: %w", err)
	}
	defer r.Close()
	defer context.AfterFunc(ctx, func() { _ = r.Close() })()
	var record ringbuf.Record
	for {
		switch err := r.ReadInto(&record); {
		case errors.Is(err, os.ErrClosed) && ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("smaller paths: %w", err)
		}
		if b := record.RawSample; len(b) > 4 { // struct smaller of gateway/bpf/maps.h
			k.heard(binary.NativeEndian.Uint32(b), b[4:], time.Now())
		}
	}
}

// heard makes the path to the backend that a packet went to first as small as a router
// says that its next link is, if that packet was ours.
func (k *Keeper) heard(mtu uint32, quote []byte, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	to, ok := k.sentTo(quote)
	r := k.backends[to]
	if !ok || r == nil {
		k.paths.refused++
		return
	}
	k.paths.heard++
	taken := max(mtu, leastPath)
	if taken >= uint32(r.hop.MTU) {
		return // an old one, of a path that is smaller anyway, or there is no way now
	}
	was := r.path
	r.path = smaller{mtu: uint16(taken), until: now.Add(smallerFor)}
	if was.until.After(now) && was.mtu <= r.path.mtu {
		r.path.mtu = was.mtu
		return
	}
	k.log.Warn("a router has a smaller MTU on the way to a backend", "backend", r.name, "sid", to, "says", mtu, "taken", taken, "for", smallerFor)
	k.setHop(to, r)
}

// forgetPaths has the paths be as the kernel knows them that were smaller for long enough.
func (k *Keeper) forgetPaths(now time.Time) {
	for sid, r := range k.backends {
		if r.path != (smaller{}) && !now.Before(r.path.until) {
			r.path = smaller{}
			k.setHop(sid, r)
		}
	}
}

// setHop tells the balancer the way to a backend.
func (k *Keeper) setHop(sid netip.Addr, r *reached) {
	if err := k.balancer.SetBackend(int(r.index), Backend{SID: sid, Hop: r.way(), Found: r.found}); err != nil {
		k.log.Error("next hop not set", "backend", r.name, "sid", sid, "err", err)
	}
}

// way is the next hop of a backend, with what routers behind it said; none while its host is
// gone.
func (r *reached) way() Hop {
	if r.gone {
		return Hop{}
	}
	hop := r.hop
	if r.path.mtu > 0 {
		hop.MTU = min(hop.MTU, r.path.mtu)
	}
	return hop
}

// sentTo is the backend, or the entry of another site, that a packet of ours was sent to first, by its start from the
// outer header on. The packet is ours if source and flow label are made of the flow's
// hash: 44 bits that nobody can tell who does not know the service's key.
func (k *Keeper) sentTo(quote []byte) (sid netip.Addr, ok bool) {
	o, ok := readOuter(quote)
	if !ok || o.source != k.balancer.sourceOf(o.source) {
		return sid, false
	}
	f, ok := readFlow(o.inner, o.next)
	if !ok {
		return sid, false
	}
	s := k.owning(f)
	if s == nil {
		return sid, false
	}
	hash := steering.FlowHash(s.hashed.Key, f.hashed(s.hashed))
	if entropy := [3]byte{byte(hash >> 20), byte(hash >> 28), byte(hash >> 36)}; entropy != [3]byte(o.source[13:]) || o.label != steering.FlowLabel(hash) {
		return sid, false
	}
	if binary.BigEndian.Uint16(o.first[8:]) != behaviourEntry {
		binary.BigEndian.PutUint16(o.first[8:], behaviourHunt) // whatever it was asked for
	}
	return netip.AddrFrom16(o.first), true
}

// sourceOf is the outer source of packets of ours, with the argument of another.
func (b *Balancer) sourceOf(other [16]byte) [16]byte {
	a := b.host.Source.Address.Bytes
	copy(a[12:], other[12:])
	return a
}

// outer is what of the outer headers of a packet of ours counts.
type outer struct {
	source [16]byte
	first  [16]byte // SID of the path
	label  uint32
	next   byte // IPPROTO_IPV6 or IPPROTO_IPIP
	inner  []byte
}

// readOuter reads an IPv6 header and the list of segments behind it, as the program
// makes them.
func readOuter(b []byte) (o outer, ok bool) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return o, false
	}
	o.label, o.next = binary.BigEndian.Uint32(b)&0xfffff, b[6]
	o.source, o.first, o.inner = [16]byte(b[8:]), [16]byte(b[24:]), b[40:]
	if o.next == unix.IPPROTO_ROUTING {
		srh := o.inner
		if len(srh) < 8 || srh[2] != 4 || srh[4] >= maxSegments || srh[1] != 2*(srh[4]+1) {
			return o, false
		}
		length := 8 + 8*int(srh[1])
		if len(srh) < length {
			return o, false
		}
		o.first, o.next, o.inner = [16]byte(srh[length-16:]), srh[0], srh[length:]
	}
	return o, o.next == unix.IPPROTO_IPV6 || o.next == unix.IPPROTO_IPIP
}

// readFlow reads whose a packet of a client is. A fragment that is not the first one does
// not tell.
func readFlow(b []byte, kind byte) (f Flow, ok bool) {
	var client, vip netip.Addr
	if kind == unix.IPPROTO_IPIP {
		if len(b) < 20 || b[0]>>4 != 4 || b[0]&15 < 5 || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 || len(b) < 4*int(b[0]&15) {
			return f, false
		}
		client, vip = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		f.Protocol, b = b[9], b[4*int(b[0]&15):]
	} else {
		if len(b) < 40 || b[0]>>4 != 6 {
			return f, false
		}
		client, vip = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		if f.Protocol, b, ok = behindExtensions(b[6], b[40:]); !ok {
			return f, false
		}
	}
	var ports [2]uint16
	if f.Protocol == unix.IPPROTO_TCP || f.Protocol == unix.IPPROTO_UDP {
		if len(b) < 4 {
			return f, false
		}
		ports = [2]uint16{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
	}
	f.Client, f.VIP = netip.AddrPortFrom(client, ports[0]), netip.AddrPortFrom(vip, ports[1])
	return f, true
}

// behindExtensions is what IPv6 carries behind its extension headers (RFC 8200 §4).
func behindExtensions(next byte, b []byte) (protocol byte, rest []byte, ok bool) {
	for {
		length := 8
		switch next {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_ROUTING:
			if len(b) < 8 {
				return 0, nil, false
			}
			length += 8 * int(b[1])
		case unix.IPPROTO_FRAGMENT:
			if len(b) < 8 || binary.BigEndian.Uint16(b[2:])&0xfff8 != 0 {
				return 0, nil, false
			}
		default:
			return next, b, true
		}
		if len(b) < length {
			return 0, nil, false
		}
		next, b = b[0], b[length:]
	}
}
