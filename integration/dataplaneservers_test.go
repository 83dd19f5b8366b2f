package integration

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/balancer"
)

// hashed has the VIPs, with all ports of both protocols, be of a service that hashes
// by the client alone: its connections go to one backend, as iperf3 needs it, and so do
// the fragments of its datagrams.
func (k *kept) hashed() {
	k.t.Helper()
	s := balancer.PlannedService{Service: balancer.Service{Name: "hashed", Key: serviceKey, Fragments: true}, Backends: slices.Clone(k.plan)}
	for _, a := range []string{vipAddress6 + "/128", vipAddress4 + "/32"} {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			s.VIPs = append(s.VIPs, balancer.VIP{Prefix: netip.MustParsePrefix(a), Protocol: protocol})
		}
	}
	k.must(k.keeper.Apply(balancer.Plan{Services: []balancer.PlannedService{s}}, time.Now()))
}

// Real servers behind the VIPs, with an MTU of 1500 on all links: nginx, from which
// much is fetched over both families, and iperf3, to which much is sent, over UDP in
// datagrams of 8,000 bytes.
func TestRealServers(t *testing.T) {
	t.Parallel()
	k := newKept(t, 3)
	data := make([]byte, rounds(32<<20, 1<<30))
	_, _ = rand.Read(data)
	want := sha256.Sum256(data)
	for _, b := range k.backends {
		k.must(os.WriteFile(filepath.Join(b.Dir, "data"), data, 0o644))
		conf := filepath.Join(b.Dir, "nginx.conf")
		k.must(os.WriteFile(conf, fmt.Appendf(nil, `daemon off; worker_processes 1; user root; pid %[1]s/nginx.pid; error_log stderr;
events {}
http { access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  server { listen [::]:80 ipv6only=on; listen 80; root %[1]s; } }
`, b.Dir), 0o644))
		b.Start("nginx", "-c", conf, "-p", b.Dir)
		b.Sysctl("net.ipv6.ip_nonlocal_bind", "1")               // the VIPs are routes, not addresses
		for _, vip := range []string{vipAddress6, vipAddress4} { // else it answers UDP from another address
			b.Start("iperf3", "-s", "-p", "5201", "-B", vip)
		}
	}
	k.hashed()
	for _, vip := range []string{"[" + vipAddress6 + "]", vipAddress4} {
		k.lab.Eventually("nginx", func() bool {
			c, err := k.client.Dial(t.Context(), "tcp", vip+":80")
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		})
		if got := k.fetch("http://" + vip + ":80/data"); got != want {
			t.Errorf("%s: other bytes came", vip)
		}
	}
	for _, vip := range []string{vipAddress6, vipAddress4} {
		// What is on its way when the client ends is not counted.
		if sent, received, _ := k.iperf(vip); received < sent/4 || received > sent {
			t.Errorf("TCP to %s: %d bytes sent, %d received", vip, sent, received)
		}
		// A server that has no CPU for a moment loses what does not fit into its socket.
		lost, before := 100.0, k.counts()
		for try := 0; try < 5 && lost > 5; try++ {
			_, _, lost = k.iperf(vip, "-u", "-b", "40M", "-l", "8000")
		}
		if lost > 5 {
			t.Errorf("UDP to %s: %.1f %% lost; %v, before %v", vip, lost, k.counts(), before)
		}
	}
}

// fetch is the hash of what the client fetches.
func (k *kept) fetch(url string) (sum [sha256.Size]byte) {
	k.t.Helper()
	transport := &http.Transport{DialContext: k.client.Dial}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: 5 * time.Minute}).Get(url)
	k.must(err)
	defer resp.Body.Close()
	h := sha256.New()
	_, err = io.Copy(h, resp.Body)
	k.must(err)
	return [sha256.Size]byte(h.Sum(nil))
}

// iperf sends much, and returns the bytes sent and received, and how much of
// what was sent by UDP was lost, in percent.
func (k *kept) iperf(vip string, args ...string) (sent, received int, lost float64) {
	k.t.Helper()
	out, err := k.client.Command("iperf3", append([]string{"-c", vip, "-p", "5201", "-J", "-n", fmt.Sprint(rounds(8<<20, 1<<30))}, args...)...).Output()
	if err != nil {
		k.t.Fatalf("%v: %s", err, out)
	}
	var r struct {
		End struct {
			Sum, SumSent, SumReceived struct {
				Bytes int     `json:"bytes"`
				Lost  float64 `json:"lost_percent"`
			}
		} `json:"end"`
	}
	var raw struct {
		End map[string]json.RawMessage `json:"end"`
	}
	k.must(json.Unmarshal(out, &raw))
	for name, to := range map[string]any{"sum": &r.End.Sum, "sum_sent": &r.End.SumSent, "sum_received": &r.End.SumReceived} {
		if text, ok := raw.End[name]; ok {
			k.must(json.Unmarshal(text, to))
		}
	}
	if r.End.SumReceived.Bytes == 0 {
		return r.End.Sum.Bytes, r.End.Sum.Bytes, r.End.Sum.Lost
	}
	return r.End.SumSent.Bytes, r.End.SumReceived.Bytes, r.End.Sum.Lost
}
