package integration

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// page is what a role on a node answers on HTTP; "" while it does not.
func page(a *announcer, url string) string {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return a.node.Dial(ctx, network, address)
		},
	}}
	answer, err := client.Get(url)
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return string(text)
}

// balanced is how many packets a gateway's balancer counted for a reason, as text.
func (h *hosts) balanced(reason string) string {
	h.t.Helper()
	_, rest, found := strings.Cut(page(h.gateway, "http://[::1]:8055/metrics"), `,result="`+reason+`"} `)
	if !found {
		h.t.Fatalf("the gateway has no counter of %s", reason)
	}
	n, _, _ := strings.Cut(rest, "\n")
	return n
}

// segmentOf is the largest segment that a connection sends.
func segmentOf(t *testing.T, c net.Conn) (size int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := raw.Control(func(fd uintptr) { size, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return size
}

// Clients behind an MTU of 1500 never have to be told of a packet that is too big, in a
// fabric of 1500: the agent has told them of smaller segments.
func TestClientsSendWhatFits(t *testing.T) {
	t.Parallel()
	h := newHosts(t, func(*hosts) {})
	h.await()
	const timestamps = 12 // bytes of options in each segment
	for i := range 4 {
		f := beginFlow(t, h.client, i)
		if got, want := segmentOf(t, f.conn), []int{1500 - 144 - 60 - timestamps, 1500 - 144 - 40 - timestamps}[i%2]; got != want {
			t.Errorf("segments of %d to %v, want %d", got, f.conn.RemoteAddr(), want)
		}
		_ = f.conn.SetDeadline(time.Now().Add(30 * time.Second))
		const lines = 64
		sent := make(chan error, 1)
		go func() {
			_, err := io.WriteString(f.conn, strings.Repeat(strings.Repeat("x", 60000)+"\n", lines))
			sent <- err
		}()
		answers := bufio.NewScanner(f.reader)
		for n := range lines {
			if !answers.Scan() {
				t.Fatalf("%d of %d lines to %v were answered: %v", n, lines, f.conn.RemoteAddr(), answers.Err())
			}
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
	for _, reason := range []string{"too_big", "too_big_untold"} {
		if n := h.balanced(reason); n != "0" {
			t.Errorf("%s packets were %s", n, reason)
		}
	}
	if n := h.balanced("sent"); n == "0" {
		t.Error("none was sent")
	}
	told := 0
	for _, a := range h.agents {
		if n := page(a, "http://[::1]:8056/metrics"); strings.Contains(n, `razor_agent_reply_packets_total{reason="clamped"} `) &&
			!strings.Contains(n, `razor_agent_reply_packets_total{reason="clamped"} 0`) {
			told++
		}
	}
	if told == 0 {
		t.Error("no agent told a client")
	}
}
