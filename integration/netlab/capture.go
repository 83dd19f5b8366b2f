package netlab

import (
	"fmt"
	"net"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Capture has the frames that come to an end of a link and that leave there. What an XDP
// program of that end takes or sends is not among them: capture at the other end.
type Capture struct {
	socket *os.File
	mu     sync.Mutex
	frames [][]byte
	done   sync.WaitGroup
}

// Capture begins a capture, until the test ends.
func (e *End) Capture() *Capture {
	tb := e.Node.lab.tb
	tb.Helper()
	socket, err := e.packets()
	if err != nil {
		tb.Fatalf("capture on %s of %s: %v", e.Device, e.Node.Name, err)
	}
	c := &Capture{socket: socket}
	c.done.Go(c.read)
	tb.Cleanup(func() {
		_ = socket.Close()
		c.done.Wait()
	})
	return c
}

// Frames are those until now, in their order.
func (c *Capture) Frames() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.frames)
}

func (c *Capture) read() {
	b := make([]byte, 1<<16)
	for {
		n, err := c.socket.Read(b)
		if err != nil {
			return
		}
		c.mu.Lock()
		c.frames = append(c.frames, slices.Clone(b[:n]))
		c.mu.Unlock()
	}
}

// Send sends a frame from an end of a link as it is.
func (e *End) Send(frame []byte) {
	tb := e.Node.lab.tb
	tb.Helper()
	socket, err := e.packets()
	if err == nil {
		_, err = socket.Write(frame)
		_ = socket.Close()
	}
	if err != nil {
		tb.Fatalf("send a frame from %s of %s: %v", e.Device, e.Node.Name, err)
	}
}

// MAC is the address of the end.
func (e *End) MAC() net.HardwareAddr {
	e.Node.lab.tb.Helper()
	device, err := e.Node.handle.LinkByName(e.Device)
	if err != nil {
		e.Node.lab.tb.Fatal(err)
	}
	return device.Attrs().HardwareAddr
}

// packets is a socket for all frames of the end (packet(7)).
func (e *End) packets() (*os.File, error) {
	device, err := e.Node.handle.LinkByName(e.Device)
	if err != nil {
		return nil, err
	}
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network order
	fd := -1
	e.Node.Do(func() {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
	})
	if err != nil {
		return nil, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device.Attrs().Index})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("%s of %s", e.Device, e.Node.Name)), nil
}
