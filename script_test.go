package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// freeAddrs are n addresses on loopback whose ports nobody has, neither with
// TCP nor with UDP.
func freeAddrs(n int) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for len(out) < n {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer tcp.Close() // until all are found, so that they differ
		addr := tcp.Addr().(*net.TCPAddr).AddrPort()
		udp, err := net.ListenPacket("udp", addr.String())
		if err != nil {
			continue
		}
		defer udp.Close()
		out = append(out, addr)
	}
	return out, nil
}

func freeAddr(t *testing.T) string {
	t.Helper()
	addrs, err := freeAddrs(1)
	if err != nil {
		t.Fatal(err)
	}
	return addrs[0].String()
}

// freePorts sets the variables that it is given to free addresses, and those
// with _PORT behind the name to the ports alone:
//
//	free-ports DNS HTTP
func freePorts(ts *testscript.TestScript, neg bool, names []string) {
	if neg {
		ts.Fatalf("unsupported: ! free-ports")
	}
	addrs, err := freeAddrs(len(names))
	ts.Check(err)
	for i, name := range names {
		ts.Setenv(name, addrs[i].String())
		ts.Setenv(name+"_PORT", strconv.Itoa(int(addrs[i].Port())))
	}
}

// holdPort listens on a free port until the script ends and sets the variable
// to its address:
//
//	hold-port udp TAKEN
func holdPort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || !slices.Contains([]string{"tcp", "udp"}, args[0]) {
		ts.Fatalf("usage: hold-port tcp|udp NAME")
	}
	var addr fmt.Stringer
	if args[0] == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		ts.Check(err)
		ts.Defer(func() { conn.Close() })
		addr = conn.LocalAddr()
	} else {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		ts.Defer(func() { ln.Close() })
		addr = ln.Addr()
	}
	ts.Setenv(args[1], addr.String())
}

// httpGet asks until the status is the wanted one, and the words are in the body,
// which it leaves for stdout:
//
//	http 503 $HTTP/readyz 'not ready'
func httpGet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 && len(args) != 3 {
		ts.Fatalf("usage: http STATUS ADDRESS/PATH [WORDS]")
	}
	words := strings.Join(args[2:], "")
	last := ""
	for range 200 {
		status, body, err := get("http://" + args[1])
		if err == nil && strconv.Itoa(status) == args[0] && strings.Contains(body, words) {
			_, _ = io.WriteString(ts.Stdout(), body)
			return
		}
		last = fmt.Sprint(status, " ", body, err)
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("%s: not %s, but %s", args[1], args[0], last)
}

func get(url string) (status int, body string, err error) {
	resp, err := (&http.Client{Timeout: 5 * time.Second}).Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), err
}

// subst copies a file with the variables in it replaced:
//
//	subst razor.yaml.in razor.yaml
func subst(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: subst FROM TO")
	}
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// conditions of scripts: [required] is that a missing program is a failure.
func conditions(name string) (bool, error) {
	if name != "required" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	return os.Getenv("RAZOR_TEST_REQUIRE") != "", nil
}

// redisServer runs a Redis until the script ends and sets the variable to its
// address:
//
//	[!exec:redis-server] [!required] skip 'needs redis-server'
//	redis-server REDIS
func redisServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: redis-server NAME")
	}
	addrs, err := freeAddrs(1)
	ts.Check(err)
	cmd := exec.Command("redis-server", "--port", strconv.Itoa(int(addrs[0].Port())), "--bind", "127.0.0.1", "--dir", ts.MkAbs("."), "--save", "")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 200 {
		if conn, err := net.Dial("tcp", addrs[0].String()); err == nil {
			conn.Close()
			ts.Setenv(args[0], addrs[0].String())
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("redis-server does not answer at %v", addrs[0])
}

// redisDo sends one command to a Redis and leaves its reply's first line for
// stdout:
//
//	redis $REDIS SADD node1.example:A 192.0.2.1
func redisDo(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: redis ADDRESS COMMAND ARG...")
	}
	conn, err := net.Dial("tcp", args[0])
	ts.Check(err)
	defer conn.Close()
	ts.Check(conn.SetDeadline(time.Now().Add(5 * time.Second)))
	fmt.Fprintf(conn, "*%d\r\n", len(args)-1)
	for _, a := range args[1:] {
		fmt.Fprintf(conn, "$%d\r\n%s\r\n", len(a), a)
	}
	reply, err := bufio.NewReader(conn).ReadString('\n')
	ts.Check(err)
	if reply[0] == '-' {
		ts.Fatalf("%s", reply)
	}
	_, _ = io.WriteString(ts.Stdout(), reply)
}
