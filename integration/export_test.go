package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/razor"
)

// program is the path of one that a test needs, and a Debian package has.
func program(tb testing.TB, name string) string {
	tb.Helper()
	for _, place := range []string{name, "/usr/sbin/" + name} { // not on everybody's PATH
		if path, err := exec.LookPath(place); err == nil {
			return path
		}
	}
	if os.Getenv("RAZOR_TEST_REQUIRE") != "" {
		tb.Fatal(name, "is required here")
	}
	tb.Skip("needs " + name + " (Debian: " + name + ")")
	return ""
}

// A proxy is a HAProxy or nginx that takes its backends from razor.
type proxy struct {
	tb  testing.TB
	dir string
	url string
	log string // file
	web http.Client
}

// startProxy runs a program in the foreground until the test ends.
func startProxy(tb testing.TB, dir string, port int, path string, args ...string) *proxy {
	tb.Helper()
	p := &proxy{tb: tb, dir: dir, url: "http://127.0.0.1:" + strconv.Itoa(port) + "/", log: filepath.Join(dir, "log")}
	// A connection of its own for each request: balanced alone.
	p.web = http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	log, err := os.Create(p.log)
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return p
}

// example is a file of deploy/proxies with other places in it; each must be there.
func example(tb testing.TB, name string, places ...string) string {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("..", "deploy", "proxies", name))
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(places); i += 2 {
		if strings.Count(string(data), places[i]) != 1 {
			tb.Fatalf("%s: not once %q", name, places[i])
		}
	}
	return strings.NewReplacer(places...).Replace(string(data))
}

func writeFile(tb testing.TB, name, text string) string {
	tb.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return name
}

// startHAProxy runs the example against a razor.
func startHAProxy(tb testing.TB, nameserver string, places ...string) *proxy {
	tb.Helper()
	path, dir, port := program(tb, "haproxy"), tb.TempDir(), redistest.FreePort(tb)
	cfg := example(tb, "haproxy.cfg", append([]string{
		"tcp@127.0.0.1:53", nameserver, "bind :80", "bind 127.0.0.1:" + strconv.Itoa(port),
		"/run/haproxy/admin.sock", filepath.Join(dir, "admin.sock"),
		// Looked at soon, and never down because the machine is busy: without a timeout
		// of its own a check has the time between two.
		"inter 2s", "inter 100ms fall 1000", "timeout server 30s", "timeout server 30s\n    timeout check 30s",
	}, places...)...)
	return startProxy(tb, dir, port, path, "-db", "-f", writeFile(tb, filepath.Join(dir, "haproxy.cfg"), cfg))
}

// get is who answers a request; "" where nobody does.
func (p *proxy) get() string {
	r, err := p.web.Get(p.url)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

func (p *proxy) until(what string, ok func() bool) {
	p.tb.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(p.log)
			p.tb.Fatalf("waiting until %s: timed out\n%s", what, log)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// reaches waits until a backend is asked.
func (p *proxy) reaches(backend string) {
	p.tb.Helper()
	p.until(backend+" is asked", func() bool { return p.get() == backend })
}

// command is what HAProxy says to one on its socket.
func (p *proxy) command(line string) string {
	p.tb.Helper()
	c, err := net.Dial("unix", filepath.Join(p.dir, "admin.sock"))
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintln(c, line)
	out, _ := io.ReadAll(c)
	return string(out)
}

// weights are those of the servers that HAProxy has, by address and port.
func (p *proxy) weights() map[string]int {
	p.tb.Helper()
	// Columns of version 1 (management guide, "show servers state").
	const addr, weight, port = 4, 7, 18
	out := map[string]int{}
	for line := range strings.Lines(p.command("show servers state web")) {
		f := strings.Fields(line)
		if len(f) <= port || f[0] == "#" || f[addr] == "-" {
			continue
		}
		w, err := strconv.Atoi(f[weight])
		if err != nil {
			p.tb.Fatalf("%q: %v", line, err)
		}
		out[net.JoinHostPort(f[addr], f[port])] = w
	}
	return out
}

// startBackend is a web server that answers with its address.
func startBackend(tb testing.TB, addr string) string {
	tb.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	self := l.Addr().String()
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, self) })}
	go func() { _ = s.Serve(l) }()
	tb.Cleanup(func() { _ = s.Close() })
	return self
}

const exportApp = "web.example.org"

// startExport runs Redis with a zone and a list, and a razor that exports it.
func startExport(tb testing.TB, endpoints ...any) (*redistest.Server, *nameserver) {
	tb.Helper()
	r := redistest.Start(tb)
	r.DoArgs("HSET", "routes.test:CONFIG", "SOA", "ns.test. root.test. 1 2 3 4 5")
	r.DoArgs(append([]any{"SADD", exportApp + ":UPSTREAMS"}, endpoints...)...)
	return r, startReady(tb, r.Addr, exporting)
}

func exporting(c *razor.Config) { c.Export = "lists.internal" }

// TestExportHAProxy: HAProxy has the endpoints of a list with their weights, and
// obeys edits of it, over TCP as in the example and over UDP.
func TestExportHAProxy(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp@", "udp@"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			a, b, c := startBackend(t, "127.0.0.1:0"), startBackend(t, "[::1]:0"), startBackend(t, "127.0.0.1:0")
			r, n := startExport(t, a+" weight=10", b+" weight=30", "192.0.2.1:80 weight=0")
			p := startHAProxy(t, network+n.addr)
			p.reaches(a)
			p.reaches(b)
			if got := p.weights(); len(got) != 2 || got[a] != 10 || got[b] != 30 {
				t.Errorf("weights %v", got)
			}

			r.DoArgs("SADD", exportApp+":UPSTREAMS", c+" weight=256")
			p.reaches(c)
			if got := p.weights(); len(got) != 3 || got[a] != 10 || got[b] != 30 || got[c] != 256 {
				t.Errorf("weights %v", got)
			}

			r.DoArgs("SREM", exportApp+":UPSTREAMS", b+" weight=30")
			p.until("a backend is gone", func() bool { return p.weights()[b] == 0 })
			for range 50 {
				if got := p.get(); got != a && got != c {
					t.Fatalf("asked %q", got)
				}
			}

			// Weights change in place, and the ratio is kept above 256.
			r.DoArgs("SREM", exportApp+":UPSTREAMS", a+" weight=10", c+" weight=256")
			r.DoArgs("SADD", exportApp+":UPSTREAMS", a+" weight=1000", c+" weight=4000")
			p.until("weights are scaled", func() bool { w := p.weights(); return w[a] == 64 && w[c] == 256 })
		})
	}
}

// TestExportHAProxyAlone: with the example's hold settings HAProxy keeps its servers
// while razor is away, and takes edits once it is back; without them it does not.
func TestExportHAProxyAlone(t *testing.T) {
	t.Parallel()
	a, b := startBackend(t, "127.0.0.1:0"), startBackend(t, "[::1]:0")
	r, n := startExport(t, a)
	kept := startHAProxy(t, "tcp@"+n.addr)
	forgets := startHAProxy(t, "tcp@"+n.addr, "hold timeout 24h", "hold timeout 1s", "hold refused 24h", "hold refused 1s", "hold other 24h", "hold other 1s")
	kept.reaches(a)
	forgets.reaches(a)

	n.stop()
	forgets.until("the servers are forgotten without a hold", func() bool { return forgets.get() == "" })
	for range 50 {
		if got := kept.get(); got != a {
			t.Fatalf("asked %q", got)
		}
	}

	r.DoArgs("SADD", exportApp+":UPSTREAMS", b)
	startReady(t, r.Addr, func(c *razor.Config) { exporting(c); c.Listen = []string{n.addr} })
	kept.reaches(b)
	kept.reaches(a)
	forgets.reaches(b)
}

// TestExportHAProxyLarge gives HAProxy a list of a thousand, most of whose addresses
// it has to ask for one by one.
func TestExportHAProxyLarge(t *testing.T) {
	t.Parallel()
	const n = 1000
	var list []any
	for _, m := range redistest.Members(false, 1, n) {
		list = append(list, fmt.Sprintf("%s:80 weight=7", m))
	}
	_, ns := startExport(t, list...)
	p := startHAProxy(t, "tcp@"+ns.addr, "web 10 _http", "web 1000 _http", "check inter 2s", "weight 1")
	p.until("all endpoints are there", func() bool { return len(p.weights()) == n })
	for addr, w := range p.weights() {
		if w != 7 {
			t.Errorf("%s has weight %d", addr, w)
		}
	}
}

// TestExportNginx: nginx asks the addresses of a list, and follows edits.
func TestExportNginx(t *testing.T) {
	t.Parallel()
	path, dir, port := program(t, "nginx"), t.TempDir(), redistest.FreePort(t)
	backend := redistest.FreePort(t)
	at := func(host string) string { return net.JoinHostPort(host, strconv.Itoa(backend)) }
	a, b, c := startBackend(t, at("127.0.0.2")), startBackend(t, at("::1")), startBackend(t, at("127.0.0.3"))
	r, n := startExport(t, a, b)
	server := writeFile(t, filepath.Join(dir, "razor.conf"), example(t, "nginx.conf",
		"127.0.0.1:53", n.addr, "listen 80", "listen 127.0.0.1:"+strconv.Itoa(port), ":8080", ":"+strconv.Itoa(backend)))
	temp := ""
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temp += kind + "_temp_path " + filepath.Join(dir, kind) + ";\n"
	}
	cfg := writeFile(t, filepath.Join(dir, "nginx.conf"), "daemon off;\nmaster_process off;\npid "+filepath.Join(dir, "pid")+
		";\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"+temp+"include "+server+";\n}\n")
	p := startProxy(t, dir, port, path, "-c", cfg, "-p", dir, "-e", "stderr")
	p.reaches(a)
	p.reaches(b)
	r.DoArgs("SADD", exportApp+":UPSTREAMS", c)
	p.reaches(c)
	r.DoArgs("SREM", exportApp+":UPSTREAMS", a)
	p.until("a backend is no longer asked", func() bool {
		for range 20 {
			if got := p.get(); got != b && got != c {
				return false
			}
		}
		return true
	})
}
