package consultest

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

func TestABlockingQuerySeesAChange(t *testing.T) {
	t.Parallel()
	s := Start(t)
	s.Register("web", "web-1", netip.MustParseAddrPort("[2001:db8::1]:8080"))
	s.Register("web", "web-2", netip.MustParseAddrPort("192.0.2.2:8080"))
	index := await(s, "web", 0, map[string]string{"web-1": "passing", "web-2": "passing"})
	for _, change := range []struct {
		make func(id string)
		want map[string]string
	}{
		{s.Warn, map[string]string{"web-1": "warning", "web-2": "passing"}},
		{s.Fail, map[string]string{"web-1": "critical", "web-2": "passing"}},
		{s.Pass, map[string]string{"web-1": "passing", "web-2": "passing"}},
		{s.Deregister, map[string]string{"web-2": "passing"}},
	} {
		change.make("web-1")
		index = await(s, "web", index, change.want)
	}
}

// await asks with blocking queries, from index on, until the instances of a service
// have these states, and returns the index of the answer.
func await(s *Server, service string, index uint64, want map[string]string) uint64 {
	s.tb.Helper()
	s.wait(fmt.Sprint(service, " to be ", want), func() bool {
		entries, meta, err := s.Client.Health().Service(service, "", false, &api.QueryOptions{WaitIndex: index, WaitTime: time.Second})
		s.must(err)
		index = meta.LastIndex
		got := map[string]string{}
		for _, e := range entries {
			got[e.Service.ID] = e.Checks.AggregatedStatus()
		}
		return fmt.Sprint(got) == fmt.Sprint(want)
	})
	return index
}

func TestAServerAloneStartsEmpty(t *testing.T) {
	t.Parallel()
	s := Start(t)
	s.Register("web", "web-1", netip.MustParseAddrPort("[2001:db8::1]:8080"))
	before := await(s, "web", 0, map[string]string{"web-1": "passing"})
	s.Kill()
	s.Restart()
	entries, meta, err := s.Client.Health().Service("web", "", false, nil)
	s.must(err)
	if len(entries) != 0 || meta.LastIndex >= before {
		t.Errorf("%d instances at index %d, which was %d", len(entries), meta.LastIndex, before)
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	s := Start(t)
	if s.Addr6 == "" {
		t.Skip("no IPv6 on loopback")
	}
	client, err := api.NewClient(&api.Config{Address: s.Addr6, Scheme: "http", Transport: api.DefaultNonPooledConfig().Transport})
	s.must(err)
	self, err := client.Agent().Self()
	s.must(err)
	if got := self["Config"]["NodeName"]; got != s.Node {
		t.Errorf("%v answers for %s", got, s.Node)
	}
}

func TestStopAndContinue(t *testing.T) {
	t.Parallel()
	s := Start(t)
	answers := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := s.Client.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
		return err == nil
	}
	s.Stop()
	s.wait("silence", func() bool { return !answers() })
	s.Continue()
	s.wait("an answer", answers)
}

func TestRegisterMany(t *testing.T) {
	t.Parallel()
	s := Start(t)
	var addrs []netip.AddrPort
	for i := range 150 {
		addrs = append(addrs, netip.MustParseAddrPort(fmt.Sprintf("[2001:db8::%x]:80", i+1)))
	}
	for _, service := range []string{"one", "two"} {
		s.RegisterMany(service, addrs)
		entries, _, err := s.Client.Health().Service(service, "", true, nil)
		s.must(err)
		if len(entries) != len(addrs) {
			t.Errorf("%d instances of %s", len(entries), service)
		}
	}
}

func TestAClusterElectsAnother(t *testing.T) {
	t.Parallel()
	c := Cluster(t, 3)
	old := c[0].Leader()
	a := old.Agent("edge")
	a.Register("web", "web-1", netip.MustParseAddrPort("[2001:db8::1]:8080"))
	await(a, "web", 0, map[string]string{"web-1": "passing"})
	old.Kill()
	for _, s := range c {
		if s != old {
			s.wait("another leader", func() bool { l := s.Leader(); return l != nil && l != old })
			s.WaitReady()
			await(s, "web", 0, map[string]string{"web-1": "passing"})
		}
	}
	old.Restart()
	await(old, "web", 0, map[string]string{"web-1": "passing"})

	// Killed together, they have kept everything.
	for _, s := range c {
		s.Kill()
	}
	for _, s := range c {
		s.Restart()
	}
	for _, s := range c {
		s.WaitReady()
		await(s, "web", 0, map[string]string{"web-1": "passing"})
	}
}

func TestDatacentresSeeEachOther(t *testing.T) {
	t.Parallel()
	c := WAN(t, 1, 1)
	for i, s := range []*Server{c[0][0], c[1][0]} {
		id := "web-" + s.Datacenter
		s.Register("web", id, netip.MustParseAddrPort("[2001:db8::1]:8080"))
		await(s, "web", 0, map[string]string{id: "passing"})
		other := c[1-i][0]
		entries, _, err := other.Client.Health().Service("web", "", true, &api.QueryOptions{Datacenter: s.Datacenter})
		s.must(err)
		if len(entries) != 1 || entries[0].Service.ID != id {
			t.Errorf("%s sees in %s: %v", other.Datacenter, s.Datacenter, entries)
		}
	}
}

// The test runs itself as another process, and kills that while it has a server.
func TestNoServerSurvives(t *testing.T) {
	if os.Getenv("CONSULTEST_CHILD") != "" {
		fmt.Println("consul", Start(t).cmd.Process.Pid)
		select {}
	}
	t.Parallel()
	binary(t) // or skip
	child := exec.Command(os.Args[0], "-test.run=^TestNoServerSurvives$")
	child.Env = append(os.Environ(), "CONSULTEST_CHILD=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	pid := 0
	lines := bufio.NewScanner(out)
	for pid == 0 && lines.Scan() {
		_, _ = fmt.Sscanf(lines.Text(), "consul %d", &pid)
	}
	if pid == 0 || !alive(pid) {
		t.Fatal("no server in the child")
	}
	_ = child.Process.Kill()
	for deadline := time.Now().Add(30 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("consul survives the test that started it")
		}
	}
}

// alive says whether a process runs: a zombie that nobody waits for does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestAPortThatIsTaken(t *testing.T) {
	t.Parallel()
	a := Start(t)
	s := newServer(t, development, "dc1", "server-2", nil)
	s.members = []*Server{s}
	s.place(a.host, a.port)
	s.run()
	if s.answers() || !s.portTaken() {
		t.Errorf("a second server on the ports of another: %s", s.log())
	}
}
