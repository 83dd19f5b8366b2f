package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/agent/reply"
	"github.com/razor-steering/razor/upstreams"
)

const (
	// overhead is what encapsulation adds at most: an IPv6 header, and an SRH with the
	// six segments that no list exceeds (RFC 8200 §3, RFC 8754 §2).
	overhead = 40 + 8 + 6*16
	// clientMTU is the largest packet that clients send over the Internet.
	clientMTU = 1500
	// Headers of a segment without options, IP and TCP.
	headers4, headers6 = 20 + 20, 40 + 20
)

// CheckHost lists what is wrong about the host for a section that has been checked, with
// the command that mends it as what would be right. It reads the network namespace of
// the calling thread, and changes nothing.
func (c *Config) CheckHost() []upstreams.Defect {
	d := &defects{}
	d.is(c.able())
	all, err := addresses()
	if err == nil {
		_, err = c.domain(all)
	}
	d.is(err)
	for i, name := range c.Interfaces {
		key := "interfaces[" + strconv.Itoa(i) + "]"
		l, err := netlink.LinkByName(name)
		if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
			err = defect(key, name, "no such interface", "one of this host")
		}
		if err != nil {
			d.is(err)
			continue
		}
		d.link(key, l)
		d.mtu(key, l, c)
		if slices.ContainsFunc(c.parsedVIPs(), netip.Addr.Is4) {
			d.strict(key, name)
		}
		d.answered(c, name, all)
	}
	d.returned(c)
	if !*c.Bind {
		d.local(c)
	}
	for i := range c.Containers {
		d.container("containers["+strconv.Itoa(i)+"]", &c.Containers[i], c.parsedVIPs())
	}
	return d.list
}

// is adds an error, which may be a defect already.
func (d *defects) is(err error) {
	if known, ok := errors.AsType[upstreams.Defect](err); ok {
		d.list = append(d.list, known)
	} else if err != nil {
		d.add("interfaces", "", err.Error(), "a host that can be read")
	}
}

// link names what keeps XDP on an interface from its best.
func (d *defects) link(key string, l netlink.Link) {
	name := l.Attrs().Name
	if x := l.Attrs().Xdp; x != nil && x.Attached && x.AttachMode == nl.XDP_ATTACHED_SKB {
		d.add(key, name, "its driver ("+l.Type()+") has no XDP: the endpoint is behind it (generic), several times slower",
			"a driver with XDP (ethtool -i "+name+" says which one it is)")
	}
	if l.Type() == "veth" && offloads(name) {
		d.add(key, name, "a veth that leaves checksums to its other end: they are wrong where an XDP program is there",
			"ethtool -K "+name+" tx off, at both ends")
	}
}

// offloads tells whether checksums are not made before packets leave by an interface.
func offloads(name string) bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	const getTxChecksums = 0x16 // ETHTOOL_GTXCSUM of linux/ethtool.h
	value := struct{ command, data uint32 }{command: getTxChecksums}
	request := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	return errno == 0 && value.data != 0
}

// strict names an interface that drops packets whose way back is another one: those of
// clients come from everywhere.
func (d *defects) strict(key, name string) {
	const strict = 1
	if max(setting("all", "rp_filter"), setting(name, "rp_filter")) == strict {
		d.add(key, name, "rp_filter is strict: packets of clients to whom another way leads are dropped without a word",
			"sysctl -w net.ipv4.conf."+inSysctl(name)+".rp_filter=2")
	}
}

// setting is a setting of IPv4 on an interface; 0 without one.
func setting(device, name string) int { return settingOf("ipv4", device, name) }

// setting6 is one of IPv6.
func setting6(device, name string) int { return settingOf("ipv6", device, name) }

func settingOf(family, device, name string) int {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net", family, "conf", device, name))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}

// inSysctl is the name of an interface as a part of a key.
func inSysctl(name string) string { return strings.ReplaceAll(name, ".", "/") }

// mtu names an interface that the packets of clients do not fit through once they are
// encapsulated. Their size is what the answers from here tell clients: they go out by
// the default route.
func (d *defects) mtu(key string, l netlink.Link, c *Config) {
	mtu, largest, told := l.Attrs().MTU, 0, []string{}
	for _, f := range []struct {
		family, headers int
		of              func(netip.Addr) bool
		command         string
	}{{netlink.FAMILY_V4, headers4, netip.Addr.Is4, "ip route"}, {netlink.FAMILY_V6, headers6, netip.Addr.Is6, "ip -6 route"}} {
		if !slices.ContainsFunc(c.parsedVIPs(), f.of) {
			continue
		}
		largest = max(largest, largestPacket(f.family, f.headers, c))
		told = append(told, fmt.Sprintf("%s change default ... advmss %d", f.command, mtu-overhead-f.headers))
	}
	if want := largest + overhead; largest > 0 && mtu < want {
		d.add(key, l.Attrs().Name, fmt.Sprintf("its MTU is %d: packets of clients, up to %d bytes, come with up to %d more", mtu, largest, overhead),
			fmt.Sprintf("%d from the gateways to here (ip link set dev %s mtu %d), or clients that are told less (%s)",
				want, l.Attrs().Name, want, strings.Join(told, ", ")))
	}
}

// largestPacket is that of TCP which clients send to this host; 0 where no default route
// leads to them. The agent tells those less that answers go to by its interfaces.
func largestPacket(family, headers int, c *Config) int {
	largest := 0
	for _, r := range defaultRoutes(family) {
		size := clientMTU
		if r.AdvMSS > 0 {
			size = min(size, r.AdvMSS+headers)
		}
		if r.MTU > 0 {
			size = min(size, r.MTU)
		}
		if out, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			size = min(size, out.Attrs().MTU)
			if slices.Contains(c.Interfaces, out.Attrs().Name) && reply.Able() {
				size = min(size, c.packet())
			}
		}
		largest = max(largest, size)
	}
	return largest
}

// defaultRoutes are those of a family; none where they cannot be read.
func defaultRoutes(family int) []netlink.Route {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	})
	if err != nil {
		return nil
	}
	return routes
}

// answered names VIPs in the network of an interface, which neighbours look for by ARP:
// Linux answers for every address of the host.
func (d *defects) answered(c *Config, name string, all []address) {
	if max(setting("all", "arp_ignore"), setting(name, "arp_ignore")) > 0 {
		return
	}
	for i, vip := range c.parsedVIPs() {
		if vip.Is4() && slices.ContainsFunc(all, func(a address) bool {
			return a.iface == name && !a.prefix.IsSingleIP() && a.prefix.Masked().Contains(vip)
		}) {
			d.add("vips["+strconv.Itoa(i)+"]", c.VIPs[i], "in the network of "+name+": this host tells neighbours who look for the gateway that it is here",
				"sysctl -w net.ipv4.conf."+inSysctl(name)+".arp_ignore=1")
		}
	}
}

// local names VIPs whose packets the host would not take.
func (d *defects) local(c *Config) {
	for i, vip := range c.parsedVIPs() {
		if taken, err := isLocal(vip); err == nil && !taken {
			d.add("vips["+strconv.Itoa(i)+"]", c.VIPs[i], "not an address of this host, and agent.bind is false",
				fmt.Sprintf("ip addr add %v/%d dev lo, or agent.bind: true", vip, vip.BitLen()))
		}
	}
}
