package segment

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"

	"github.com/cilium/ebpf/ringbuf"
)

// Event is a flow whose connection was found on this host, and not where its packets
// are sent first. The gateway that sends them there ought to know.
type Event struct {
	Source   netip.Addr // outer source of the packet: round and entropy are in it
	Client   netip.AddrPort
	VIP      netip.AddrPort
	Protocol uint8 // TCP
	Target   uint16
	Segment  int // of the list, in the order of the path: 0 is the first
}

// Events calls f with every event until ctx ends; then it returns nil. A flow is told of
// at most once in a second. One goroutine reads the events of an endpoint.
func (e *Endpoint) Events(ctx context.Context, f func(Event)) error {
	r, err := ringbuf.NewReader(e.objects.Events)
	if err != nil {
		return fmt.Errorf("open the events: %w", err)
	}
	defer r.Close()
	defer context.AfterFunc(ctx, func() { _ = r.Close() })()
	var record ringbuf.Record
	for {
		switch err := r.ReadInto(&record); {
		case errors.Is(err, os.ErrClosed) && ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("read an event: %w", err)
		}
		event, err := parseEvent(record.RawSample)
		if err != nil {
			return err
		}
		f(event)
	}
}

func parseEvent(b []byte) (Event, error) {
	var e endpointEvent
	if _, err := binary.Decode(b, binary.NativeEndian, &e); err != nil {
		return Event{}, fmt.Errorf("event of %d bytes: %w", len(b), err)
	}
	at := func(address [16]byte, port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(address).Unmap(), bits.ReverseBytes16(port))
	}
	return Event{
		Source:   netip.AddrFrom16(e.Source.Address.Bytes),
		Client:   at(e.Flow.Client.Bytes, e.Flow.ClientPort),
		VIP:      at(e.Flow.Vip.Bytes, e.Flow.VipPort),
		Protocol: e.Protocol,
		Target:   e.Target,
		Segment:  int(e.Segment),
	}, nil
}
