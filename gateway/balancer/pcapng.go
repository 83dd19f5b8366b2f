package balancer

import (
	"encoding/binary"
	"io"
	"net"
	"strconv"
)

// Blocks and options of pcapng (draft-ietf-opsawg-pcapng §4), linktype LINKTYPE_ETHERNET.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 6

	optionComment    = 1
	optionProgram    = 4 // shb_userappl
	optionName       = 2 // if_name
	optionResolution = 9 // if_tsresol
	optionFlags      = 2 // epb_flags
	optionPacketID   = 5 // epb_packetid
	optionVerdict    = 7 // epb_verdict

	captureEthernet = 1
	captureSnap     = uint32(len(bpfRecord{}.Before))
	inbound         = 1
	outbound        = 2
	verdictOfXDP    = 2
)

// Capture writes records as a file in pcapng: the frame that came, with the record's line
// as its comment and the verdict of XDP, on an interface of the name of where it came in; then the one that left,
// if any, on the interface "sent". Both have the number of the record.
type Capture struct {
	w          io.Writer
	interfaces map[string]uint32
	records    uint64
}

// NewCapture begins a file.
func NewCapture(w io.Writer) (*Capture, error) {
	c := &Capture{w: w, interfaces: map[string]uint32{}}
	body := binary.NativeEndian.AppendUint32(nil, 0x1a2b3c4d)
	body = binary.NativeEndian.AppendUint16(body, 1)
	body = binary.NativeEndian.AppendUint16(body, 0)
	body = binary.NativeEndian.AppendUint64(body, 1<<64-1) // of a length that is not known
	_, err := w.Write(block(blockSection, append(body, options(option{optionProgram, []byte("razor gateway trace")})...)))
	return c, err
}

// Write adds a record. Its blocks are written at once, so that a file that is cut short
// has whole ones.
func (c *Capture) Write(r *TraceRecord) error {
	c.records++
	name := "interface " + strconv.Itoa(r.Device)
	if device, err := net.InterfaceByIndex(r.Device); err == nil {
		name = device.Name
	}
	out := c.packet(nil, name, r, r.Before, r.BeforeBytes, inbound)
	if r.After != nil {
		out = c.packet(out, "sent", r, r.After, r.AfterBytes, outbound)
	}
	_, err := c.w.Write(out)
	return err
}

// packet appends a frame, and its interface before the first one of that.
func (c *Capture) packet(to []byte, name string, r *TraceRecord, frame []byte, whole int, direction uint32) []byte {
	e := binary.NativeEndian
	number, known := c.interfaces[name]
	if !known {
		number = uint32(len(c.interfaces))
		c.interfaces[name] = number
		body := e.AppendUint32(e.AppendUint16(e.AppendUint16(nil, captureEthernet), 0), captureSnap)
		to = append(to, block(blockInterface, append(body, options(option{optionName, []byte(name)}, option{optionResolution, []byte{9}})...))...)
	}
	at := uint64(r.Time.UnixNano())
	body := e.AppendUint32(e.AppendUint32(e.AppendUint32(nil, number), uint32(at>>32)), uint32(at))
	body = e.AppendUint32(e.AppendUint32(body, uint32(len(frame))), uint32(whole))
	body = padded(append(body, frame...))
	list := []option{{optionFlags, e.AppendUint32(nil, direction)}, {optionPacketID, e.AppendUint64(nil, c.records)}}
	if direction == inbound {
		verdict := e.AppendUint64([]byte{verdictOfXDP}, uint64(r.Verdict))
		list = append(list, option{optionComment, []byte(r.String())}, option{optionVerdict, verdict})
	}
	return append(to, block(blockPacket, append(body, options(list...)...))...)
}

// block is a block with its length at both ends.
func block(kind uint32, body []byte) []byte {
	e, length := binary.NativeEndian, uint32(12+len(body))
	b := e.AppendUint32(e.AppendUint32(nil, kind), length)
	return e.AppendUint32(append(b, body...), length)
}

type option struct {
	code  uint16
	value []byte
}

// options are some, with the one that ends them.
func options(list ...option) (b []byte) {
	for _, o := range list {
		b = binary.NativeEndian.AppendUint16(b, o.code)
		b = binary.NativeEndian.AppendUint16(b, uint16(len(o.value)))
		b = padded(append(b, o.value...))
	}
	return append(b, 0, 0, 0, 0)
}

// padded is filled up to 32 bits.
func padded(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
