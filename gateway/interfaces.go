package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/gateway/bpf/root"
)

// lookEvery is how often it is looked whether an interface was made anew.
const lookEvery = time.Second

// interfaces are those of a host that the balancer is on.
type interfaces struct {
	balancer *balancer.Balancer
	names    []string
	pins     string
	log      *slog.Logger

	mu      sync.Mutex
	on      map[string]*attached
	trouble string // that was said last
	left    bool   // nothing is attached any more
	behind  bool   // the drivers of all, at the start
}

// attached is an interface as it was when the balancer was put on it.
type attached struct {
	root  *root.Root
	index int
}

func newInterfaces(b *balancer.Balancer, c *DataplaneConfig, log *slog.Logger) *interfaces {
	return &interfaces{balancer: b, names: c.Interfaces, pins: c.Pins, log: log, on: map[string]*attached{}}
}

// attach puts the balancer on all interfaces, and takes it off those that it was on before
// and that are none of them. Where that fails, those that it was put on have it.
func (i *interfaces) attach() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var devices []*net.Interface
	for _, name := range i.names {
		device, err := net.InterfaceByName(name)
		if err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		devices = append(devices, device)
	}
	for _, device := range devices {
		if err := i.join(device); err != nil {
			return err
		}
	}
	left, err := i.balancer.LeaveOthers(i.names)
	for _, name := range left {
		i.log.Info("balancer taken off", "interface", name)
	}
	return errors.Join(err, i.balancer.RemoveOthers())
}

// generic tells whether the program is behind the drivers of all of them, which is what
// next hops are found for from then on.
func (i *interfaces) generic() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, on := range i.on {
		if on.root.Mode() != root.Generic {
			return false
		}
	}
	i.behind = true
	return true
}

// join puts the balancer on an interface.
func (i *interfaces) join(device *net.Interface) error {
	r, err := root.Open(i.pins, device)
	if err != nil {
		return err
	}
	if err := i.balancer.Join(r, device.Name); err != nil {
		return errors.Join(err, r.Close())
	}
	if was := i.on[device.Name]; was != nil {
		_ = was.root.Close()
	}
	i.on[device.Name] = &attached{r, device.Index}
	i.log.Info("balancer attached", "interface", device.Name, "mode", r.Mode())
	if i.behind && r.Mode() != root.Generic {
		i.log.Warn("packets from an interface get lost where they leave by one whose driver has no XDP, until the gateway starts again (SIGUSR2)",
			"interface", device.Name, "mode", r.Mode(), "at_start", root.Generic)
	}
	return nil
}

// keep puts the balancer on interfaces that were made anew, until ctx ends.
func (i *interfaces) keep(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			i.attachAgain()
		}
	}
}

// attachAgain puts the balancer on interfaces that were made anew, and says what is wrong,
// once.
func (i *interfaces) attachAgain() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.left {
		return
	}
	var wrong []string
	for _, name := range i.names {
		device, err := net.InterfaceByName(name)
		if err != nil {
			wrong = append(wrong, name+": no such interface")
			continue
		}
		if i.on[name].index == device.Index {
			continue
		}
		if err := i.join(device); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	text := strings.Join(wrong, "; ")
	if text == i.trouble {
		return
	}
	if i.trouble = text; text != "" {
		i.log.Error("the balancer is not on all interfaces", "what", text)
	} else {
		i.log.Info("the balancer is on all interfaces again")
	}
}

// leave ends what attachAgain would do. The balancer is where it is.
func (i *interfaces) leave() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.left = true
	for name, on := range i.on {
		_ = on.root.Close()
		delete(i.on, name)
	}
}
