package hostile

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take, on however busy a machine.
const patience = 5 * time.Minute

// bird runs BIRD, which expects the peer, until the end of the test, and returns
// how to connect to it.
func bird(t *testing.T) Connect {
	t.Helper()
	program, err := exec.LookPath("bird")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/bird") // not on everybody's PATH
	}
	if err != nil {
		if os.Getenv("RAZOR_TEST_REQUIRE") != "" {
			t.Fatal("bird is required here:", err)
		}
		t.Skip("needs bird (Debian: bird2)")
	}
	b := func() byte { return byte(1 + rand.IntN(254)) }
	address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, b(), b(), b()}), uint16(10000+rand.IntN(20000)))
	dir := t.TempDir()
	file := filepath.Join(dir, "bird.conf")
	conf := fmt.Sprintf(`
router id 192.0.2.1;
protocol device {}
protocol bgp hostile {
  local %s port %d as 64500;
  neighbor 127.0.0.1 as %d;
  multihop;
  passive;
  error wait time 1, 1;
  ipv4 { import none; export none; extended next hop; };
  ipv6 { import none; export none; };
}
`, address.Addr(), address.Port(), AS)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	out := &strings.Builder{}
	cmd := exec.CommandContext(t.Context(), program, "-f", "-c", file, "-s", filepath.Join(dir, "ctl"), "-P", filepath.Join(dir, "pid"))
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() { // the context of the test has killed it
		<-ended
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Errorf("bird has ended: %v\n%s", cmd.ProcessState, out)
		}
	})
	return func(ctx context.Context) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
		return d.DialContext(ctx, "tcp", address.String())
	}
}

// A speaker that others wrote outlives the cases that are to be outlived.
func TestBIRD(t *testing.T) {
	t.Parallel()
	connect := bird(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var list []Case
	for _, c := range Cases() {
		if c.Survives && c.State == Established {
			list = append(list, c)
		}
	}
	culprits, err := Culprits(ctx, connect, list)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range culprits {
		t.Errorf("%s", c.Name)
	}
}

// named returns the case of that name.
func named(t *testing.T, name string) Case {
	t.Helper()
	list := Cases()
	i := slices.IndexFunc(list, func(c Case) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no case %q", name)
	}
	return list[i]
}

// What ends a session is found among what does not.
func TestCulprits(t *testing.T) {
	t.Parallel()
	connect := bird(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	list := []Case{
		named(t, "Established: refresh of family 25/70"), named(t, "Established: UPDATE: without attribute 1"),
		named(t, "Established: UPDATE: MP_REACH_NLRI twice"), named(t, "Established: UPDATE: without attribute 2"),
	}
	culprits, err := Culprits(ctx, connect, list)
	if err != nil || len(culprits) != 1 || culprits[0].Name != list[2].Name {
		t.Errorf("%v, %v", culprits, err)
	}
}

func TestAssault(t *testing.T) {
	t.Parallel()
	connect := bird(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := Assault(ctx, connect, []Case{
		named(t, "Established: UPDATE: MP_REACH_NLRI twice"), named(t, "Established: UPDATE: without attribute 2"),
		named(t, "Established: type 6"), named(t, "Established: another protocol"),
	}); err != nil {
		t.Error(err)
	}
}

// Each state is reached, and what the speaker says in it is heard.
func TestPlay(t *testing.T) {
	t.Parallel()
	connect := bird(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, c := range []struct{ name, want string }{
		{"Connected: length 18, type 4", "session ended: NOTIFICATION 1/2 00 12"},
		{"OpenSent: type 6", "session ended: NOTIFICATION 1/3 06"},
		{"OpenSent: OPEN: hold time 2", "session ended: NOTIFICATION 2/6 00 02"},
		{"OpenSent: OPEN: unknown capabilities from 10 of 1 octets", "<nil>"},
		{"OpenConfirm: second OPEN", "session ended: NOTIFICATION 5/2 "},
		{"Established: marker, octet 7", "session ended: NOTIFICATION 1/1 "},
		{"Established: UPDATE: MP_REACH_NLRI twice", "session ended: NOTIFICATION 3/1 "},
	} {
		one := named(t, c.name)
		got := fmt.Sprint(Play(ctx, connect, one))
		for one.State == Connected && got != c.want && ctx.Err() == nil {
			got = fmt.Sprint(Play(ctx, connect, one)) // it cannot know whether a session was wanted
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
