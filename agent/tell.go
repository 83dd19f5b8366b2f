package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/steering/wire"
)

// keys are what datagrams to gateways are sealed with, none without a file.
func (c *Config) keys() (wire.Keys, error) {
	if c.KeyFile == "" {
		return nil, nil
	}
	wrong := func(reason, want string) error { return defect("key_file", c.KeyFile, reason, want) }
	info, err := os.Stat(c.KeyFile)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, wrong(fmt.Sprintf("others may read it (mode %#o)", info.Mode().Perm()), "mode 0600")
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(c.KeyFile)
	}
	if err != nil {
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err
		}
		return nil, wrong(err.Error(), "a file that can be read")
	}
	keys, err := wire.ParseKeys(string(text))
	if err != nil {
		return nil, wrong(err.Error(), `lines of "id: secret"`)
	}
	return keys, nil
}

// pinner is what tells gateways of flows, nil without keys.
func (c *Config) pinner(locator netip.Prefix) (*Pinner, error) {
	keys, err := c.keys()
	if keys == nil || err != nil {
		return nil, err
	}
	return NewPinner(locator, keys)
}

// tell has gateways told of the endpoint's flows until ctx ends.
func (a *agent) tell(ctx context.Context, group *errgroup.Group, reg prometheus.Registerer) {
	if a.pinner == nil {
		return
	}
	reg.MustRegister(a.pinner)
	group.Go(func() error { return a.pinner.Run(ctx) })
	group.Go(func() error { return a.endpoint.Events(ctx, a.pinner.Tell) })
}
