package main

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
)

// doors has the machine's own browser reach the pages of gateways: ports of 127.0.0.1 from
// that one on, a gateway each. It returns when they listen.
func (l *lab) doors(first int) error {
	for _, s := range l.sites {
		for _, g := range s.gateways {
			address := net.JoinHostPort("127.0.0.1", strconv.Itoa(first))
			d, err := net.Listen("tcp", address)
			if err != nil {
				return fmt.Errorf("-http: %w", err)
			}
			var open sync.WaitGroup
			open.Go(func() { g.door(d) })
			l.Cleanup(func() {
				_ = d.Close()
				open.Wait()
			})
			fmt.Fprintf(l.out, "%-10s http://%s/\n", g.name, address)
			first++
		}
	}
	fmt.Fprintln(l.out)
	return nil
}

// door takes calls until it is closed.
func (h *host) door(d net.Listener) {
	for {
		near, err := d.Accept()
		if err != nil {
			return
		}
		go h.pass(near)
	}
}

// pass is one call: it ends with either end, of which that in the lab dies with it.
func (h *host) pass(near net.Conn) {
	defer near.Close()
	far, err := h.dial(httpAddress)
	if err != nil {
		return // the gateway is not there
	}
	defer far.Close()
	go func() {
		_, _ = io.Copy(far, near)
		_ = far.Close()
	}()
	_, _ = io.Copy(near, far)
}
