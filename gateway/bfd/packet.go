package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// State is that of a session as one side sees it (RFC 5880 §4.1).
type State uint8

// The states, by their number on the wire.
const (
	AdminDown State = iota // taken down by will: says nothing about the path
	Down
	Init // the peer is heard, and does not say yet that it hears us
	Up
)

var stateWords = [...]string{"admin_down", "down", "init", "up"}

// String is the state in one word.
func (s State) String() string { return stateWords[s&3] }

// Diagnostic is the reason of the last change of a state (RFC 5880 §4.1).
type Diagnostic uint8

// The reasons that we give ourselves.
const (
	DiagNone     Diagnostic = 0
	DiagExpired  Diagnostic = 1 // the peer was silent for the detection time
	DiagSignaled Diagnostic = 3 // the peer says that it is down
	DiagAdmin    Diagnostic = 7 // by will
)

var diagnosticWords = [...]string{
	"none", "detection time expired", "echo failed", "peer signaled down", "forwarding plane reset",
	"path down", "concatenated path down", "administratively down", "reverse concatenated path down",
}

// String is the diagnostic in words; others may send any of 5 bits.
func (d Diagnostic) String() string {
	if int(d) < len(diagnosticWords) {
		return diagnosticWords[d]
	}
	return fmt.Sprintf("diagnostic %d", uint8(d))
}

const (
	version    = 1
	packetLen  = 24 // without authentication
	leastAuth  = 2  // octets of an authentication section, at least
	flagPoll   = 0x20
	flagFinal  = 0x10
	flagAuth   = 0x04
	flagDemand = 0x02
	flagMulti  = 0x01
	diagBits   = 0x1f
)

// packet is a control packet without authentication (RFC 5880 §4.1). We send
// neither the demand bit nor echo packets, and not the control plane independent
// bit: BGP ends with the process that BFD is in.
type packet struct {
	diag        Diagnostic
	state       State
	poll, final bool
	demand      bool
	multiplier  uint8
	my, your    uint32        // discriminators
	minTx       time.Duration // desired, whole microseconds
	minRx       time.Duration // required; 0: send nothing periodically
}

// What is wrong with a packet (RFC 5880 §6.8.6).
var (
	errShort         = errors.New("short")
	errVersion       = errors.New("version other than 1")
	errLength        = errors.New("bad length")
	errMultiplier    = errors.New("multiplier 0")
	errMultipoint    = errors.New("multipoint")
	errAuthenticated = errors.New("authenticated")
	errDiscriminator = errors.New("discriminator 0")
	errUnaddressed   = errors.New("no discriminator of ours, and not down")
)

// parse reads a UDP payload by the rules of RFC 5880 §6.8.6 that need no session.
func parse(b []byte) (packet, error) {
	if len(b) < packetLen {
		return packet{}, errShort
	}
	flags := b[1]
	p := packet{
		diag:       Diagnostic(b[0] & diagBits),
		state:      State(flags >> 6),
		poll:       flags&flagPoll != 0,
		final:      flags&flagFinal != 0,
		demand:     flags&flagDemand != 0,
		multiplier: b[2],
		my:         binary.BigEndian.Uint32(b[4:]),
		your:       binary.BigEndian.Uint32(b[8:]),
		minTx:      time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Microsecond,
		minRx:      time.Duration(binary.BigEndian.Uint32(b[16:])) * time.Microsecond,
	}
	authenticated := flags&flagAuth != 0
	length := int(b[3])
	switch {
	case b[0]>>5 != version:
		return packet{}, errVersion
	case length < packetLen || authenticated && length < packetLen+leastAuth || length > len(b):
		return packet{}, errLength
	case p.multiplier == 0:
		return packet{}, errMultiplier
	case flags&flagMulti != 0:
		return packet{}, errMultipoint
	case p.my == 0:
		return packet{}, errDiscriminator
	case p.your == 0 && p.state != Down && p.state != AdminDown:
		return packet{}, errUnaddressed
	case authenticated:
		return packet{}, errAuthenticated
	}
	return p, nil
}

// octets is the packet on the wire.
func (p *packet) octets() []byte {
	flags := uint8(p.state) << 6
	for _, f := range []struct {
		set bool
		bit uint8
	}{{p.poll, flagPoll}, {p.final, flagFinal}, {p.demand, flagDemand}} {
		if f.set {
			flags |= f.bit
		}
	}
	b := make([]byte, 0, packetLen)
	b = append(b, version<<5|uint8(p.diag)&diagBits, flags, p.multiplier, packetLen)
	b = binary.BigEndian.AppendUint32(b, p.my)
	b = binary.BigEndian.AppendUint32(b, p.your)
	b = binary.BigEndian.AppendUint32(b, uint32(p.minTx/time.Microsecond))
	b = binary.BigEndian.AppendUint32(b, uint32(p.minRx/time.Microsecond))
	return binary.BigEndian.AppendUint32(b, 0) // no echo
}
