// Package redistest runs redis-server processes for tests: private sockets and
// ports, ended with the test whatever happens.
package redistest

import (
	"context"
	"errors"
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

	"github.com/redis/go-redis/v9"
)

// Server is one redis-server process. It can be killed, stopped, continued and
// started again where it was; what it saved is in Dir.
type Server struct {
	Addr   string // Host and Port
	Host   string // an address of loopback that is its own
	Port   int
	Dir    string
	Client *redis.Client

	tb    testing.TB
	args  []string // of redis-server
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is no more
}

// Start runs a server with further arguments ("--replicaof", …). The test is
// skipped where there is no redis-server, unless RAZOR_TEST_REQUIRE is set.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	s := newServer(tb)
	s.launch(func() []string {
		return append([]string{
			"--port", strconv.Itoa(s.Port), "--bind", s.Host, "--replica-announce-ip", s.Host, "--dir", s.Dir, "--save", "",
			"--repl-diskless-sync-delay", "0", "--enable-debug-command", "yes", "--loglevel", "warning",
		}, args...)
	})
	return s
}

// newServer is a server that was not started yet.
func newServer(tb testing.TB) *Server {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("RAZOR_TEST_REQUIRE") != "" {
			tb.Fatal("redis-server is required here:", err)
		}
		tb.Skip("needs redis-server (Debian: redis-server)")
	}
	s := &Server{tb: tb, Dir: tb.TempDir()}
	tb.Cleanup(func() {
		_ = s.Client.Close()
		s.Kill()
	})
	s.place()
	return s
}

// place says where s listens: on an address of loopback that hardly another server
// has, so that none is taken for it.
func (s *Server) place() {
	b := func() byte { return byte(1 + rand.IntN(254)) }
	s.Host = netip.AddrFrom4([4]byte{127, b(), b(), b()}).String()
	s.Port = randomPort()
	s.Addr = net.JoinHostPort(s.Host, strconv.Itoa(s.Port))
	if s.Client != nil {
		_ = s.Client.Close()
	}
	s.Client = redis.NewClient(&redis.Options{Addr: s.Addr, ReadTimeout: 30 * time.Second, MaxRetries: -1})
}

// launch runs the process for the first time, elsewhere where the port is taken;
// args are its arguments there.
func (s *Server) launch(args func() []string) {
	s.tb.Helper()
	for range 10 {
		s.args = args()
		s.run()
		if s.answers() {
			return
		}
		if !strings.Contains(s.log(), "ddress already in use") {
			break
		}
		s.place()
	}
	s.tb.Fatalf("redis-server ended at its start\n%s", s.log())
}

// Replica runs a replica of s and waits until it has all of it.
func (s *Server) Replica(args ...string) *Server {
	s.tb.Helper()
	r := Start(s.tb, append([]string{"--replicaof", s.Host + " " + strconv.Itoa(s.Port)}, args...)...)
	r.WaitReplica()
	return r
}

// ListenTLS has s listen with TLS as well, until it is restarted, and returns where.
// The certificate is its own authority, also for clients.
func (s *Server) ListenTLS(cert, key string) string {
	s.tb.Helper()
	port := strconv.Itoa(s.Port + 1)
	s.DoArgs("CONFIG", "SET", "tls-port", port, "tls-cert-file", cert, "tls-key-file", key, "tls-ca-cert-file", cert)
	return net.JoinHostPort(s.Host, port)
}

// WaitReplica waits for the link to the primary.
func (s *Server) WaitReplica() {
	s.tb.Helper()
	s.wait("replication link", func() bool {
		return s.Info("master_link_status") == "up" && s.Info("master_sync_in_progress") == "0"
	})
}

// Restart starts the process (again) and waits until it answers.
func (s *Server) Restart() {
	s.tb.Helper()
	s.run()
	if !s.answers() {
		s.tb.Fatalf("redis-server ended at its start\n%s", s.log())
	}
}

func (s *Server) run() {
	s.tb.Helper()
	cmd := exec.Command("redis-server", s.args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	logFile, err := os.Create(s.logName())
	if err != nil {
		s.tb.Fatal(err)
	}
	defer logFile.Close()
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

// answers waits for the process, and no other, to answer. It says whether it lives.
func (s *Server) answers() bool {
	s.tb.Helper()
	pid, alive := strconv.Itoa(s.cmd.Process.Pid), true
	s.wait("redis-server to answer", func() bool {
		select {
		case <-s.ended:
			alive = false
			return true
		default:
			return s.Client.Ping(context.Background()).Err() == nil && s.Info("process_id") == pid
		}
	})
	return alive
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

// Do runs one command line as redis-cli takes it, words separated by spaces,
// and fails the test on an error.
func (s *Server) Do(line string) any {
	s.tb.Helper()
	var args []any
	for w := range strings.FieldsSeq(line) {
		args = append(args, w)
	}
	return s.DoArgs(args...)
}

// DoArgs is Do for words with spaces in them.
func (s *Server) DoArgs(args ...any) any {
	s.tb.Helper()
	v, err := s.Client.Do(context.Background(), args...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		s.tb.Fatalf("%v: %v", args, err)
	}
	return v
}

// Info is a field of INFO, "" where the server does not have it.
func (s *Server) Info(field string) string {
	text, _ := s.Client.Info(context.Background(), "everything").Result()
	for line := range strings.Lines(text) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), ":"); k == field {
			return v
		}
	}
	return ""
}

func (s *Server) wait(what string, ok func() bool) {
	s.tb.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			s.tb.Fatalf("waiting for %s: timed out\n%s", what, s.log())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *Server) logName() string { return filepath.Join(s.Dir, "log") }

func (s *Server) log() string {
	text, _ := os.ReadFile(s.logName())
	return string(text)
}

// randomPort is below the ports that the system gives to connections, which could
// take it before a server does.
func randomPort() int { return 10000 + rand.IntN(20000) }

// FreePort is a TCP port of 127.0.0.1 that nobody has at the moment.
func FreePort(tb testing.TB) int {
	tb.Helper()
	for range 100 {
		port := randomPort()
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	tb.Fatal("no free port")
	return 0
}

// Members are n addresses of a documentation or benchmark block, IPv4 or IPv6,
// as SADD takes them.
func Members(v6 bool, from, n int) []any {
	out := make([]any, n)
	for i := range out {
		if x := from + i; v6 {
			out[i] = fmt.Sprintf("2001:db8::%x:%x", x>>16, x&0xffff)
		} else {
			out[i] = fmt.Sprintf("198.%d.%d.%d", 18+x>>16, x>>8&255, x&255)
		}
	}
	return out
}
