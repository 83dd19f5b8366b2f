package integration

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/razor-steering/razor/integration/netlab"
	"github.com/razor-steering/razor/integration/tshark"
)

// tracing is a `razor gateway trace` on the gateway.
type tracing struct {
	*netlab.Process

	lines, said, frames string // files
}

// trace begins one.
func (h *hosts) trace(name string, args ...string) *tracing {
	h.t.Helper()
	razor, err := razorBinary()
	if err != nil {
		h.t.Fatal(err)
	}
	file := func(suffix string) string { return filepath.Join(h.gateway.node.Dir, name+suffix) }
	tr := &tracing{lines: file(".lines"), said: file(".said"), frames: file(".pcapng")}
	script := []string{"-c", `exec "$@" >` + tr.lines + " 2>" + tr.said, "sh", razor, "gateway", "trace", "--config", h.gateway.config, "-w", tr.frames}
	tr.Process = h.gateway.node.Start("sh", append(script, args...)...)
	return tr
}

func (tr *tracing) read(file string) string {
	text, _ := os.ReadFile(file)
	return string(text)
}

// seen waits until there is a line, while something comes again and again: there is a
// limit of lines.
func (h *hosts) seen(tr *tracing, pattern string, again func()) {
	h.t.Helper()
	want := regexp.MustCompile("(?m)" + pattern + "$")
	h.lab.Eventually("the trace has "+pattern, func() bool {
		again()
		return want.MatchString(tr.read(tr.lines))
	})
}

// sendFlags sends a packet of TCP from a port of the client to the VIP, with flags of
// which its kernel knows nothing.
func (h *hosts) sendFlags(port uint16, flags byte) {
	h.t.Helper()
	var c net.PacketConn
	var err error
	h.client.Do(func() { c, err = net.ListenPacket("ip4:tcp", "192.0.2.129") })
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	from := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.129"), port)
	packet := tcpPacket(from, netip.MustParseAddrPort(vipAddress4+":443"), flags, 5)
	if _, err := c.WriteTo(packet[20:], &net.IPAddr{IP: net.ParseIP(vipAddress4)}); err != nil {
		h.t.Fatal(err)
	}
}

// traced tells whether the program of the gateway does more than it has to.
func (h *hosts) traced() bool {
	h.t.Helper()
	file, err := filepath.Glob(filepath.Join(h.pins, "gateway", "balancer-*", "settings"))
	if err != nil || len(file) != 1 {
		h.t.Fatalf("settings: %v, %v", file, err)
	}
	m, err := ebpf.LoadPinnedMap(file[0], nil)
	if err != nil {
		h.t.Fatal(err)
	}
	defer m.Close()
	value, err := m.LookupBytes(uint32(0))
	if err != nil {
		h.t.Fatal(err)
	}
	return value[48] != 0 // struct host in gateway/bpf/maps.h
}

// An operator traces on the gateway: what is sent and what is dropped, in lines and in a
// file for Wireshark, also while the gateway's process is away.
func TestTraceOfProcesses(t *testing.T) {
	t.Parallel()
	h := newHosts(t, func(*hosts) {})
	h.await()
	h.begin(20, "web1", "web2")
	if h.traced() {
		t.Error("traced without a trace")
	}

	all := h.trace("all")
	flows := func() { h.goOn("they are traced") }
	const chosen = ` slot=\d+ current=(web\d)( previous=web\d)? second=web\d list=web\d\S* sent`
	h.seen(all, `^\S+Z 192\.0\.2\.129:\d+ > 198\.51\.100\.1:443 tcp PA \d+ vip=198\.51\.100\.1:443/tcp service=web`+chosen, flows)
	h.seen(all, `^\S+Z \[2001:db8:0:9::2\]:\d+ > \[2001:db8:ffff::1\]:443 tcp A \d+ vip=\[2001:db8:ffff::1\]:443/tcp service=web`+chosen, flows)
	said, err := h.gateway.razor("gateway", "trace")
	if err == nil || said != "razor: somebody traces already, one at a time can\n" {
		t.Errorf("a second trace: %v: %s", err, said)
	}

	h.gateway.Kill()
	const dropped = "192.0.2.129:31001 > 198.51.100.1:443 tcp SA 45 vip=198.51.100.1:443/tcp service=web dropped flags"
	h.seen(all, regexp.QuoteMeta(dropped), func() { h.goOn("the gateway was killed"); h.sendFlags(31001, flagSYN|flagACK) })
	h.gateway.start()
	h.gateway.awaitUp(1)
	h.seen(all, `192\.0\.2\.129:31002 .* dropped flags`, func() { h.sendFlags(31002, 0) })

	all.Terminate()
	if said := all.read(all.said); !regexp.MustCompile(`^\d+ packets(; without a line: \d+ above the limit of lines)?\n$`).MatchString(said) {
		t.Errorf("at the end: %s", said)
	}
	if h.traced() {
		t.Error("traced after the end")
	}
	h.judgeFile(all, dropped)
	h.readerKilled()
	h.stop()
}

// judgeFile holds the file of a trace to its lines: each has a frame, and one that was
// sent a second one, which Wireshark finds to be right.
func (h *hosts) judgeFile(tr *tracing, dropped string) {
	h.t.Helper()
	file, err := os.ReadFile(tr.frames)
	if err != nil {
		h.t.Fatal(err)
	}
	var lines, comments []string
	for line := range strings.Lines(tr.read(tr.lines)) {
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	sent, found := 0, false
	for _, fields := range tshark.Fields(h.t, file, "frame.interface_name", "frame.comment", "ipv6.routing.type", "tcp.srcport", "tcp.flags.str") {
		f := strings.Split(fields, "\t")
		switch f[0] {
		case "eth0":
			comments = append(comments, f[1])
			found = found || strings.HasSuffix(f[1], dropped) && f[3] == "31001" && strings.Count(f[4], "·") == 10
		case "sent":
			sent++
		}
	}
	if !found || fmt.Sprint(comments) != fmt.Sprint(lines) || sent != strings.Count(tr.read(tr.lines), " sent") {
		h.t.Errorf("the file: %d frames came, %d were sent, the one that was dropped: %v; %d lines", len(comments), sent, found, len(lines))
	}
}

// readerKilled has a reader die: the trace ends by itself, and another one may begin at
// once.
func (h *hosts) readerKilled() {
	h.t.Helper()
	tr := h.trace("killed", "--vip", vipAddress4+":443/tcp")
	h.seen(tr, ` > 198\.51\.100\.1:443 .* sent`, func() { h.goOn("they are traced") })
	tr.Kill()
	h.goOn("its reader was killed")

	again := h.trace("again", "--vip", vipAddress4+":443/tcp", "--reason", "sent", "--count", "3")
	h.lab.Eventually("a trace of 3 packets ends", func() bool { h.goOn("they are counted"); return !again.Alive() })
	if lines := again.read(again.lines); strings.Count(lines, " > 198.51.100.1:443 ") != 3 || strings.Count(lines, "\n") != 3 || again.read(again.said) != "3 packets\n" {
		h.t.Errorf("3 packets: %s%s", lines, again.read(again.said))
	}

	tr = h.trace("killed-too")
	h.seen(tr, ` sent`, func() { h.goOn("they are traced") })
	tr.Signal(syscall.SIGSTOP) // as if it was swapped out: its lease ends
	h.lab.Eventually("the trace ends", func() bool { h.goOn("nobody reads"); return !h.traced() })
	tr.Continue()
	h.lab.Eventually("it goes on", h.traced)
	tr.Kill()
	h.lab.Eventually("the trace ends with its reader", func() bool { h.goOn("nobody reads"); return !h.traced() })
}
