package probe

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// website is a server on [::1] with a page for each story.
func website(tb testing.TB) *httptest.Server {
	tb.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ok", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "all is well") })
	mux.HandleFunc("GET /asked", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "host=%s query=%s encoding=%q end", r.Host, r.URL.RawQuery, r.Header.Get("Accept-Encoding"))
	})
	mux.HandleFunc("GET /empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.Handle("GET /moved", http.RedirectHandler("/ok", http.StatusFound))
	mux.HandleFunc("GET /hints", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		fmt.Fprint(w, "after the hints")
	})
	mux.HandleFunc("GET /begun", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("GET /endless", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
				return
			}
		}
	})
	s := httptest.NewUnstartedServer(mux)
	s.Listener.Close()
	s.Listener = listen(tb)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	tb.Cleanup(s.Close)
	return s
}

// unsteady is a server that answers badly some of every eight times, and how often it was
// asked. None of eight that follow each other are more or less, but when bad changes.
func unsteady(tb testing.TB) (target string, bad, asked *atomic.Int64) {
	tb.Helper()
	bad, asked = new(atomic.Int64), new(atomic.Int64)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n := asked.Add(1) - 1; n*3%8 < bad.Load() { // 3 spreads them
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	s.Listener.Close()
	s.Listener = listen(tb)
	s.Start()
	tb.Cleanup(s.Close)
	return s.Listener.Addr().String(), bad, asked
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	s := website(t)
	s.Start()
	target := s.Listener.Addr().String()
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Path: "/ok"}, ""},
		{Config{Path: "/ok", Body: "well"}, ""},
		{Config{Path: "/ok", Body: "ill"}, `body without "ill"`},
		{Config{Path: "/asked?a=b", Body: "host=" + target + ` query=a=b encoding="" end`}, ""},
		{Config{Path: "/asked", Host: "www.example.org", Body: "host=www.example.org "}, ""},
		{Config{Path: "/empty", Status: 204}, ""},
		{Config{Path: "/empty"}, "status 204 instead of 200"},
		{Config{Path: "/broken"}, "status 503 instead of 200"},
		{Config{Path: "/none"}, "status 404 instead of 200"},
		{Config{Path: "/none", Status: 404}, ""},
		{Config{Path: "/moved"}, "status 302 instead of 200"},
		{Config{Path: "/moved", Status: 302}, ""},
		{Config{Path: "/hints", Body: "after"}, ""},
		{Config{Path: "/begun"}, ""},
		{Config{Path: "/endless"}, ""},
		{Config{Path: "/endless", Body: "y"}, `body without "y"`},
		{Config{Kind: kindHTTPS, Path: "/ok", Insecure: true}, "handshake: tls: first record does not look like a TLS handshake"},
	} {
		tt.cfg.Target = target
		or(&tt.cfg.Kind, kindHTTP)
		if got := measured(t, tt.cfg); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.cfg.Path, got, tt.want)
		}
	}
	runsOut(t, Config{Kind: kindHTTP, Target: target, Path: "/begun", Body: "more"}, "answer: timed out")
}

// TestHTTPConnections: each measurement has a connection of its own, and leaves
// none open that the server would keep.
func TestHTTPConnections(t *testing.T) {
	t.Parallel()
	var opened, closed atomic.Int32
	s := website(t)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			opened.Add(1)
		case http.StateClosed:
			closed.Add(1)
		}
	}
	s.Start()
	for range 5 {
		if got := measured(t, Config{Kind: kindHTTP, Target: s.Listener.Addr().String(), Path: "/begun"}); got != "" {
			t.Fatal(got)
		}
	}
	eventually(t, "all connections are closed", func() bool { return closed.Load() == 5 && opened.Load() == 5 })
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	s := website(t)
	s.StartTLS()
	known := x509.NewCertPool()
	known.AddCert(s.Certificate()) // for example.com, 127.0.0.1 and ::1
	for _, tt := range []struct {
		cfg     Config
		unknown bool   // the authority
		want    string // begins so
	}{
		{Config{}, false, ""},
		{Config{Host: "example.com"}, false, ""},
		{Config{Host: "example.com:8443"}, false, ""},
		{Config{Host: "[::1]"}, false, ""},
		{Config{Host: "other.test", TLSName: "example.com"}, false, ""},
		{Config{Host: "other.test"}, false, "handshake: tls: failed to verify certificate: x509: certificate is valid for"},
		{Config{TLSName: "other.test"}, false, "handshake: tls: failed to verify certificate: x509: certificate is valid for"},
		{Config{}, true, "handshake: tls: failed to verify certificate: x509: "},
		{Config{Insecure: true, TLSName: "other.test"}, true, ""},
	} {
		tt.cfg.Kind, tt.cfg.Target, tt.cfg.Path = kindHTTPS, s.Listener.Addr().String(), "/ok"
		cfg := checked(t, tt.cfg)
		p := newHTTPProbe(&cfg)
		if !tt.unknown {
			p.tls.RootCAs = known
		}
		got := text(p.measure(t.Context()))
		if !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%+v: %q, want %q", tt.cfg, got, tt.want)
		}
	}
}

// TestHTTPZone: the zone of a link-local target is for the kernel alone.
func TestHTTPZone(t *testing.T) {
	t.Parallel()
	cfg := checked(t, Config{Kind: kindHTTPS, Target: "[fe80::1%lo]:443"})
	p := newHTTPProbe(&cfg)
	if !bytes.Contains(p.request, []byte("\r\nHost: [fe80::1]:443\r\n")) || p.tls.ServerName != "fe80::1" {
		t.Errorf("%q, %s", p.request, p.tls.ServerName)
	}
}

func TestHTTPAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, answer, body, want string
	}{
		{"nothing", "", "", "answer: connection closed"},
		{"cut", "HTTP/1.1 200 OK\r\nA: b", "", "answer: connection closed"},
		{"not HTTP", "SSH-2.0-x\r\n", "", `answer: malformed HTTP response "SSH-2.0-x"`},
		{"old", "HTTP/1.0 200 OK\r\n\r\nwell", "well", ""},
		{"endless header", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 20_000), "", "answer: header too long"},
		{"endless line", "HTTP/1.1 200 " + strings.Repeat("A", 1<<17), "", "answer: header too long"},
		{"endless hints", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 5000), "", "answer: header too long"},
		{"switched", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "", "status 101 instead of 200"},
		{"huge length", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nwell", "ill", "body: connection closed"},
		{"huge length, and the text", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nwell", "well", ""},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "", "answer: http: message cannot contain multiple Content-Length headers; got [\"1\" \"2\"]"},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwe\r\n2\r\nll\r\n0\r\n\r\n", "well", ""},
		{"bad chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nwell", "well", "body: invalid byte in chunk length"},
	} {
		p := httpProbe{status: 200, body: []byte(tt.body)}
		if got := text(p.judge(strings.NewReader(tt.answer))); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzHTTPAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell"))
	f.Add([]byte("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n4\r\nwell\r\n0\r\nA: b\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 503 \xff\x00\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		for _, p := range []httpProbe{{status: 200}, {status: 200, body: []byte("well")}} {
			err := p.judge(bytes.NewReader(answer))
			if err == nil && !bytes.Contains(answer, []byte(" 200")) {
				t.Errorf("passed: %q", answer)
			}
			checkReason(t, text(err))
		}
	})
}
