// Package consultest runs Consul servers for tests: alone, as clusters, and as
// datacentres that know each other; on addresses and ports of their own, ended
// with the test whatever happens.
package consultest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// Server is one Consul process. It can be killed, stopped, continued and started
// again where it was.
type Server struct {
	Node       string // the name of its node
	Datacenter string
	Addr       string // HTTP, 127.x.y.z:port
	Addr6      string // HTTP, [::1]:port; empty where there is no IPv6
	Dir        string
	Client     *api.Client

	tb      testing.TB
	binary  string
	config  []string
	members []*Server // of its cluster, itself among them, in the order of their start
	wan     []*Server // of all datacentres, when there are several
	kind    kind
	host    netip.Addr
	port    int // HTTP; the ports behind it are RPC's and Serf's
	cmd     *exec.Cmd
	ended   chan struct{}   // closed when the process is no more
	nodes   map[string]bool // that RegisterMany has written
}

type kind int

const (
	development kind = iota // a server alone, in memory
	member                  // a server of a cluster
	agent                   // no server: it asks the servers that it joined
)

// Start runs a server alone, with further configuration (HCL). Its data is in
// memory: started again it is empty, and its index begins anew. As every
// development server it indents the JSON of its answers. The test is skipped where
// Consul is not built, unless RAZOR_TEST_REQUIRE is set.
func Start(tb testing.TB, config ...string) *Server {
	tb.Helper()
	s := newServer(tb, development, "dc1", "server-1", config)
	s.members = []*Server{s}
	s.launch()
	s.WaitReady()
	return s
}

func newServer(tb testing.TB, k kind, datacenter, name string, config []string) *Server {
	tb.Helper()
	s := &Server{
		Node: datacenter + "-" + name, Datacenter: datacenter, Dir: tb.TempDir(),
		tb: tb, binary: binary(tb), kind: k, config: config, nodes: map[string]bool{},
	}
	tb.Cleanup(s.Kill)
	return s
}

// launch runs the process for the first time, on an address of loopback that is
// its own, so that only the port of [::1] can be taken; then it tries another. The
// ports are below those that the system gives to connections.
func (s *Server) launch() {
	s.tb.Helper()
	for range 10 {
		b := func() byte { return byte(1 + rand.IntN(254)) }
		s.place(netip.AddrFrom4([4]byte{127, b(), b(), b()}), 10000+rand.IntN(20000))
		s.run()
		if s.answers() {
			return
		}
		if !s.portTaken() {
			break
		}
	}
	s.tb.Fatalf("consul ended at its start\n%s", s.log())
}

func (s *Server) portTaken() bool { return strings.Contains(s.log(), "address already in use") }

// place says where s listens.
func (s *Server) place(host netip.Addr, port int) {
	s.tb.Helper()
	s.host, s.port = host, port
	s.Addr = s.address(http)
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		_ = l.Close()
		s.Addr6 = net.JoinHostPort("::1", strconv.Itoa(s.port))
	}
	config := api.DefaultNonPooledConfig()
	config.Address, config.Scheme = s.Addr, "http"
	client, err := api.NewClient(config)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.Client = client
}

// Restart runs a killed server again. It waits for the process to answer, and
// where a majority of the cluster runs, for a leader.
func (s *Server) Restart() {
	s.tb.Helper()
	s.run()
	if !s.answers() {
		s.tb.Fatalf("consul ended at its start\n%s", s.log())
	}
	running := 0
	for _, m := range s.members {
		if m.cmd != nil {
			running++
		}
	}
	if 2*running > len(s.members) {
		s.WaitReady()
	}
}

func (s *Server) run() {
	s.tb.Helper()
	args := []string{"agent"}
	if s.kind == development {
		args = append(args, "-dev")
	}
	for i, text := range append([]string{s.settings()}, s.config...) {
		file := filepath.Join(s.Dir, fmt.Sprintf("%02d.hcl", i))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			s.tb.Fatal(err)
		}
		args = append(args, "-config-file", file)
	}
	logFile, err := os.Create(s.logName())
	if err != nil {
		s.tb.Fatal(err)
	}
	defer logFile.Close()
	cmd := exec.Command(s.binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	s.cmd, s.ended = cmd, ended
}

// Kill ends the process at once (SIGKILL).
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.ended
	s.cmd = nil
}

// Stop halts the process (SIGSTOP): connections stay, nothing is answered.
func (s *Server) Stop() { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue ends Stop.
func (s *Server) Continue() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

// WaitReady waits until s knows a leader and can write.
func (s *Server) WaitReady() {
	s.tb.Helper()
	s.wait("a leader", func() bool {
		if leader, err := s.Client.Status().Leader(); err != nil || leader == "" {
			return false
		}
		key := "consultest/" + s.Node
		if _, err := s.Client.KV().Put(&api.KVPair{Key: key}, nil); err != nil {
			return false
		}
		_, err := s.Client.KV().Delete(key, nil)
		return err == nil
	})
}

// answers waits for the agent, which may have no leader yet, and says whether it
// lives.
func (s *Server) answers() bool {
	s.tb.Helper()
	alive := true
	s.wait("consul to answer", func() bool {
		select {
		case <-s.ended:
			alive = false
			return true
		default:
			self, err := s.Client.Agent().Self()
			return err == nil && self["Config"]["NodeName"] == s.Node
		}
	})
	return alive
}

func (s *Server) wait(what string, ok func() bool) {
	s.tb.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			s.tb.Fatalf("waiting for %s: timed out\n%s", what, s.log())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *Server) logName() string { return filepath.Join(s.Dir, "log") }

func (s *Server) log() string {
	text, _ := os.ReadFile(s.logName())
	return string(text)
}
