package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/agent/segment"
)

// container is where a container is, as it was when it was looked at.
type container struct {
	target segment.Target
	index  int // of its end of the veth, in its namespace
}

// open is the network namespace of the container.
func (t *ContainerConfig) open() (netns.NsHandle, error) {
	path := "/run/netns/" + t.Netns
	if _, err := strconv.Atoi(t.Netns); err == nil {
		path = "/proc/" + t.Netns + "/ns/net"
	} else if strings.HasPrefix(t.Netns, "/") {
		path = t.Netns
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return ns, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return ns, nil
}

// find looks for the container.
func (t *ContainerConfig) find() (container, error) {
	ns, err := t.open()
	if err != nil {
		return container{}, err
	}
	defer func() { _ = ns.Close() }()
	here, err := netlink.LinkByName(t.Veth)
	if err != nil {
		return container{}, fmt.Errorf("%s: %w", t.Veth, err)
	}
	a := here.Attrs()
	id, err := netlink.GetNetNsIdByFd(int(ns))
	switch {
	case err != nil:
		return container{}, fmt.Errorf("id of the namespace: %w", err)
	case here.Type() != "veth":
		return container{}, fmt.Errorf("%s is no veth but a %s", t.Veth, here.Type())
	case id < 0 || a.NetNsID != id:
		return container{}, fmt.Errorf("%s does not lead to the namespace %s", t.Veth, t.Netns)
	}
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return container{}, err
	}
	defer inside.Close()
	there, err := inside.LinkByIndex(a.ParentIndex)
	if err != nil {
		return container{}, fmt.Errorf("the other end of %s: %w", t.Veth, err)
	}
	return container{
		segment.Target{Level: segment.Normal, NetNS: id, Interface: a.Index, Source: a.HardwareAddr, MAC: there.Attrs().HardwareAddr},
		there.Attrs().Index,
	}, nil
}

// inside calls f on a thread in the namespace of the container.
func (t *ContainerConfig) inside(f func() error) error {
	ns, err := t.open()
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := netns.Set(ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// contain has the endpoint answer for the containers as they are now; it returns what
// is wrong.
func (a *agent) contain() []string {
	var wrong []string
	for i := range a.config.Containers {
		t := &a.config.Containers[i]
		number := uint16(t.Target)
		now, err := t.find()
		if was, there := a.containers[number]; err == nil && there && reflect.DeepEqual(was, now) {
			continue
		}
		if err == nil {
			err = a.place(t, now)
		}
		if err == nil {
			a.containers[number] = now
			a.log.Info("container taken up", "target", t.Target, "netns", t.Netns)
			continue
		}
		delete(a.containers, number)
		err = errors.Join(err, a.endpoint.RemoveTarget(number))
		wrong = append(wrong, fmt.Sprintf("container %d: %v", t.Target, err))
	}
	return wrong
}

func (a *agent) place(t *ContainerConfig, now container) error {
	number := uint16(t.Target)
	if err := t.inside(func() error { return a.endpoint.Receive(number, now.index) }); err != nil {
		return err
	}
	if err := a.endpoint.SetVIPs(number, parsed(t.VIPs)); err != nil {
		return err
	}
	now.target.Level, now.target.Packet = a.level(number), a.sends
	return a.endpoint.SetTarget(number, now.target)
}

// forget removes the containers of an earlier configuration.
func (a *agent) forget() error {
	targets, err := a.endpoint.Targets()
	if err != nil {
		return err
	}
	wanted := map[uint16]bool{segment.Host: true}
	for _, t := range a.config.Containers {
		wanted[uint16(t.Target)] = true
	}
	for _, number := range targets {
		if !wanted[number] {
			err = errors.Join(err, a.endpoint.RemoveTarget(number))
		}
	}
	return err
}

// container names what is wrong about a container: where it is, its VIPs, its way out.
func (d *defects) container(key string, t *ContainerConfig, ofHost []netip.Addr) {
	if _, err := t.find(); err != nil {
		d.add(key, strconv.Itoa(t.Target), err.Error(), "its namespace, and the host's end of the veth to it")
		return
	}
	for i, vip := range parsed(t.VIPs) {
		taken := true
		err := t.inside(func() (err error) {
			taken, err = isLocal(vip)
			return err
		})
		if err == nil && !taken {
			d.add(key+".vips["+strconv.Itoa(i)+"]", t.VIPs[i], "not an address of the container",
				fmt.Sprintf("ip addr add %v/%d dev lo, in the namespace %s", vip, vip.BitLen(), t.Netns))
		}
		if why, mend := answersLost(t.Veth, vip, ofHost); why != "" && routed(t.Veth) {
			d.add(key+".vips["+strconv.Itoa(i)+"]", t.VIPs[i], why, mend)
		}
	}
}

// routed tells whether an interface is the end of the way: one in a bridge is not.
func routed(name string) bool {
	l, err := netlink.LinkByName(name)
	return err == nil && l.Attrs().MasterIndex == 0
}

// answersLost says why the host does not forward what a container answers from a VIP.
// Linux drops packets of IPv4 whose source is its own address.
func answersLost(veth string, vip netip.Addr, ofHost []netip.Addr) (why, mend string) {
	if name, on := forwarding(vip); !on {
		return "this host does not forward what the container answers", "sysctl -w " + name + "=1"
	}
	if vip.Is4() && slices.Contains(ofHost, vip) && max(setting("all", "accept_local"), setting(veth, "accept_local")) == 0 {
		return "also a VIP of the host, which drops what the container answers", "sysctl -w net.ipv4.conf." + inSysctl(veth) + ".accept_local=1"
	}
	return "", ""
}

// forwarding is the setting that has the host forward packets from an address, and
// whether it does.
func forwarding(a netip.Addr) (name string, on bool) {
	name = "net.ipv6.conf.all.forwarding"
	if a.Is4() {
		name = "net.ipv4.ip_forward"
	}
	text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	return name, err != nil || strings.TrimSpace(string(text)) != "0"
}
