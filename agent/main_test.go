package agent

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/razor-steering/razor/integration/testhost"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newHost makes the test's thread a host of its own: eth0 leads to a router, which
// default routes name. It returns a directory on a BPF file system.
//
//	this host  eth0 ── peer  (the same namespace)
func newHost(t *testing.T) string {
	t.Helper()
	testhost.Enter(t)
	pins := testhost.BPFFS(t)
	for _, line := range []string{
		"ip link set lo up",
		"ip link add eth0 mtu 1644 type veth peer name peer",
		"ip link set eth0 up",
		"ip link set peer up",
		"ethtool -K eth0 tx off",
		"ip addr add 192.0.2.9/24 dev eth0",
		"ip addr add 2001:db8:1::9/64 dev eth0 nodad",
		"ip route add default via 192.0.2.1",
		"ip -6 route add default via 2001:db8:1::1",
		"ip addr add 2001:db8:5e:7::1/128 dev lo",
	} {
		run(t, line)
	}
	set(t, "eth0", "rp_filter", "0")
	set(t, "all", "rp_filter", "0")
	return pins
}

// run runs a command of an operator on the host.
func run(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func set(t *testing.T, device, name, value string) {
	t.Helper()
	file := fmt.Sprintf("/proc/sys/net/ipv4/conf/%s/%s", device, name)
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// section is a configuration that suits the host.
func section(change ...func(*Config)) *Config {
	c := &Config{StateDir: "/nonexistent", Interfaces: []string{"eth0"}, SRBlock: "2001:db8:5e::/48", VIPs: []string{"198.51.100.1", "2001:db8:ffff::1"}}
	for _, f := range change {
		f(c)
	}
	c.Defaults()
	return c
}
