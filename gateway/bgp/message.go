package bgp

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// Lengths of messages, header included (RFC 4271 §4). There is no longer one
// than maxMessage, as the capability of RFC 8654 is never announced.
const (
	headerLen  = 19
	markerLen  = 16
	maxMessage = 4096
)

// Types of messages (RFC 4271 §4.1, RFC 2918 §3).
const (
	typeOpen = 1 + iota
	typeUpdate
	typeNotification
	typeKeepalive
	typeRefresh
)

// lengths are the shortest and the longest message of each type.
var lengths = [...]struct{ shortest, longest int }{
	typeOpen:         {29, maxMessage},
	typeUpdate:       {23, maxMessage},
	typeNotification: {21, maxMessage},
	typeKeepalive:    {headerLen, headerLen},
	typeRefresh:      {23, maxMessage},
}

var (
	marker    = bytes.Repeat([]byte{0xff}, markerLen)
	keepalive = newMessage(typeKeepalive, nil)
)

// message is one whole BGP message with a sound header.
type message []byte

func (m message) typ() uint8   { return m[headerLen-1] }
func (m message) body() []byte { return m[headerLen:] }

// newMessage puts a header before body, which has to fit into a message.
func newMessage(typ uint8, body []byte) message {
	m := make(message, 0, headerLen+len(body))
	m = append(m, marker...)
	m = binary.BigEndian.AppendUint16(m, uint16(headerLen+len(body)))
	m = append(m, typ)
	return append(m, body...)
}

// readMessage reads exactly one message. It lies in the buffer of r, which has to
// have room for maxMessage octets (as that of bufio.NewReader has), and holds
// until the next read. A header with a defect (RFC 4271 §6.1) is a *notification,
// and nothing more can be read from r; a connection that ends between two
// messages is io.EOF.
func readMessage(r *bufio.Reader) (message, error) {
	header, err := peek(r, headerLen)
	if err != nil {
		return nil, err
	}
	n, err := checkHeader(header)
	if err != nil {
		return nil, err
	}
	b, err := peek(r, n)
	if err != nil {
		return nil, err
	}
	_, err = r.Discard(n)
	return b, err
}

// peek returns the next n octets of r, and leaves them there.
func peek(r *bufio.Reader, n int) ([]byte, error) {
	b, err := r.Peek(n)
	if errors.Is(err, io.EOF) && len(b) > 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return b, err
}

// checkHeader returns the length of a message, header included.
func checkHeader(header []byte) (int, error) {
	if !bytes.Equal(header[:markerLen], marker) {
		return 0, &notification{code: codeHeader, subcode: headerNotSynchronized}
	}
	field := header[markerLen : markerLen+2]
	n, typ := int(binary.BigEndian.Uint16(field)), int(header[headerLen-1])
	switch {
	case n < headerLen || n > maxMessage:
		return 0, badLength(field)
	case typ < typeOpen || typ > typeRefresh:
		return 0, &notification{code: codeHeader, subcode: headerBadType, data: []byte{byte(typ)}}
	case n < lengths[typ].shortest || n > lengths[typ].longest:
		return 0, badLength(field)
	}
	return n, nil
}

// badLength is the defect of a message whose length field cannot be right.
func badLength(field []byte) error {
	return &notification{code: codeHeader, subcode: headerBadLength, data: bytes.Clone(field)}
}
