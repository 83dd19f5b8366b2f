package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"net/netip"
	"time"
)

// MaxDatagram is the longest datagram, in bytes: 1280 less the headers of IPv6 and
// UDP. A receiver reads into a longer buffer, or it cannot tell one that was cut off.
const MaxDatagram = 1280 - 40 - 8

// Window is how far the time of a datagram may be from that of its receiver.
const Window = 30 * time.Second

// Where the parts of a datagram are: see the package's text.
const (
	atVersion  = 0
	atType     = 1
	atKey      = 2
	atSender   = 4
	atReceiver = 12
	atSent     = 20
	atSequence = 28
	atBody     = 36
	sealBytes  = 16

	version = 1
)

// Type is what the body of a datagram says.
type Type uint8

// Types of datagrams.
const (
	TypePins      Type = 1 // of agents
	TypeReports   Type = 2 // likewise
	TypeSummaries Type = 3 // of gateways at other sites
)

// Claims is the type that a datagram says it is of, which nothing proves: for counting.
func Claims(datagram []byte) Type {
	if len(datagram) <= atType {
		return 0
	}
	return Type(datagram[atType])
}

// Locator is the /64 of a node, as its first 8 bytes.
type Locator [8]byte

// LocatorOf is the locator that an IPv6 address is in. Of an IPv4 address there is
// none: it is the zero Locator.
func LocatorOf(a netip.Addr) (l Locator) {
	if a.Is6() && !a.Is4In6() {
		b := a.As16()
		copy(l[:], b[:])
	}
	return l
}

// String is the locator as a prefix.
func (l Locator) String() string {
	var b [16]byte
	copy(b[:], l[:])
	return fmt.Sprintf("%v/64", netip.AddrFrom16(b))
}

// Message is what a datagram said that was taken.
type Message struct {
	Type     Type
	Sender   Locator
	Sent     time.Time // by the clock of the sender
	Sequence uint64    // the larger one was sent later
	Body     []byte    // in the memory of the datagram
}

// header is a datagram before its body.
type header struct {
	version  uint8
	kind     Type
	key      uint16
	sender   Locator
	receiver Locator
	sent     int64 // milliseconds since 1970
	sequence uint64
}

func (h *header) appendTo(dst []byte) []byte {
	dst = append(dst, h.version, byte(h.kind))
	dst = binary.BigEndian.AppendUint16(dst, h.key)
	dst = append(dst, h.sender[:]...)
	dst = append(dst, h.receiver[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.sent))
	return binary.BigEndian.AppendUint64(dst, h.sequence)
}

// headerOf reads the header of a datagram that is long enough.
func headerOf(b []byte) header {
	return header{
		version:  b[atVersion],
		kind:     Type(b[atType]),
		key:      binary.BigEndian.Uint16(b[atKey:]),
		sender:   Locator(b[atSender:atReceiver]),
		receiver: Locator(b[atReceiver:atSent]),
		sent:     int64(binary.BigEndian.Uint64(b[atSent:])),
		sequence: binary.BigEndian.Uint64(b[atSequence:]),
	}
}

// sealing makes seals with one key.
type sealing struct {
	hash hash.Hash
	sum  [sha256.Size]byte
}

func newSealing(k Key) *sealing { return &sealing{hash: hmac.New(sha256.New, []byte(k.secret))} }

// of is the seal of b, until the next one is made.
func (s *sealing) of(b []byte) []byte {
	s.hash.Reset()
	s.hash.Write(b)
	return s.hash.Sum(s.sum[:0])[:sealBytes]
}
