package probe

import (
	"context"
	"fmt"
	"net"
	"time"
)

// connect opens a connection whose reads and writes end with ctx. The caller
// closes it.
func connect(ctx context.Context, network, target string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, target)
	if err != nil {
		return nil, fmt.Errorf("connect: %s", brief(err))
	}
	context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return conn, nil
}

// tcpProbe is up when a connection is accepted.
type tcpProbe struct{ target string }

func (p tcpProbe) measure(ctx context.Context) error {
	conn, err := connect(ctx, "tcp", p.target)
	if err != nil {
		return err
	}
	return conn.Close()
}
