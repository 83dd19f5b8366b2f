package live

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// served is a page of the sample on a server, until the test ends.
type served struct {
	*Page

	t      *testing.T
	log    *slog.Logger
	server *httptest.Server
	stop   func() // ends the page
}

func serve(t *testing.T) *served {
	t.Helper()
	events := &Events{}
	sampleEvents(events)
	s := &served{Page: New(events, sample), t: t, log: slog.New(events.Handler(slog.DiscardHandler))}
	mux := http.NewServeMux()
	s.Register(mux.Handle)
	s.server = httptest.NewUnstartedServer(mux)
	s.server.Config.ReadTimeout, s.server.Config.WriteTimeout = time.Second, time.Second // a stream outlives both
	s.server.Start()
	ctx, stop := context.WithCancel(t.Context())
	s.stop = stop
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		s.server.Client().CloseIdleConnections()
		s.server.Close()
	})
	return s
}

func (s *served) get(path string) *http.Response {
	s.t.Helper()
	r, err := s.server.Client().Get(s.server.URL + path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = r.Body.Close() })
	return r
}

func (s *served) text(path string) (http.Header, string) {
	s.t.Helper()
	r := s.get(path)
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %d, %v", path, r.StatusCode, err)
	}
	return r.Header, string(text)
}

func (s *served) eventually(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waiting until %s: timed out", what)
		}
	}
}

func (s *served) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients)
}

// The page has the whole state without its script, nothing of others, and runs nothing
// but what is its own.
func TestPage(t *testing.T) {
	t.Parallel()
	header, text := serve(t).text("/")
	for _, want := range []string{
		"<h1>edge1.west.example.net</h1>", "lists: redis does not answer", "198.51.100.1:443/tcp", "drained by an operator: new kernel", "1 of 3 active backends are up",
		"2001:db8:feed::53/128", "no way to it", "connection refused; held down for 12s", "<code>7/8 &#43;&#43;&#43;-&#43;&#43;&#43;&#43;</code>", "silent for 3 intervals", "&lt;i&gt;web&lt;/i&gt;", "BFD up, 150ms", "site east", "site west", "the nearest with room",
		"nameservers: draining", "drained by an operator: new kernel <time", ", decided here", "level <span class=\"doubt\">warning</span>", "weight 100",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(text, "<i>web</i>") {
		t.Error("what others write is not escaped")
	}
	if bad := regexp.MustCompile(`(?i)https?://|\ssrc=|\shref=|\sstyle=|\son[a-z]+="|@import|url\(`).FindString(text); bad != "" {
		t.Errorf("the page has %q", bad)
	}
	policy := header.Get("Content-Security-Policy")
	for _, element := range []string{"style", "script"} {
		inside := regexp.MustCompile(`(?s)<`+element+`>(.*?)</`+element+`>`).FindAllStringSubmatch(text, -1)
		if len(inside) != 1 || !strings.Contains(policy, element+"-src "+hashed(inside[0][1])+";") {
			t.Errorf("%d of %s, and the policy is %s", len(inside), element, policy)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") || header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", header)
	}
}

func TestOthersAreRefused(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for _, tt := range []struct {
		method, path string
		status       int
	}{{"POST", "/", 405}, {"DELETE", "/live.json", 405}, {"POST", "/live", 405}, {"GET", "/live/", 404}, {"GET", "/style.css", 404}} {
		r, err := http.NewRequestWithContext(t.Context(), tt.method, s.server.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := s.server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != tt.status {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, answer.StatusCode, tt.status)
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	_, text := serve(t).text("/live.json")
	var d Document
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	if d.Name != "edge1.west.example.net" || len(d.Services) != 2 || len(d.Services[0].Backends) != 7 || len(d.Events) != 7 || d.Events[0].Reason != "connection refused" || d.Time.IsZero() {
		t.Errorf("%+v", d)
	}
}

// message is an event of a stream.
type message struct{ name, data string }

func next(t *testing.T, r *bufio.Reader) (m message, err error) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		switch line = strings.TrimSuffix(line, "\n"); {
		case err != nil:
			return m, err
		case line == "":
			return m, nil
		case strings.HasPrefix(line, "event: "):
			m.name = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			m.data = line[len("data: "):]
		default:
			t.Fatalf("unexpected %q", line)
		}
	}
}

// A stream of documents has each event once, and outlives the timeouts of the server.
func TestStreamOfDocuments(t *testing.T) {
	t.Parallel()
	s := serve(t)
	r := bufio.NewReader(s.get("/live").Body)
	var numbers []uint64
	began := time.Now()
	for i := 0; time.Since(began) < 2500*time.Millisecond; i++ {
		m, err := next(t, r)
		if err != nil {
			t.Fatal(err)
		}
		var d Document
		if err := json.Unmarshal([]byte(m.data), &d); err != nil || m.name != "" {
			t.Fatalf("%q: %v", m.name, err)
		}
		for _, e := range slices.Backward(d.Events) {
			numbers = append(numbers, e.Number)
		}
		s.log.Info("something", "n", i)
	}
	for i, n := range numbers {
		if n != uint64(i+1) {
			t.Fatalf("events %v", numbers)
		}
	}
	if len(numbers) < 9 {
		t.Errorf("events %v", numbers)
	}
}

// A stream of sections has those that are others, and the time of each look.
func TestStreamOfSections(t *testing.T) {
	t.Parallel()
	s := serve(t)
	r := bufio.NewReader(s.get("/live?html").Body)
	seen := map[string]int{}
	for seen["tick"] < 3 {
		m, err := next(t, r)
		if err != nil {
			t.Fatal(err)
		}
		key := m.name
		if m.name == "section" {
			var of section
			if err := json.Unmarshal([]byte(m.data), &of); err != nil || of.HTML == "" {
				t.Fatalf("%s: %v", m.data, err)
			}
			key = of.ID
		}
		seen[key]++
		if seen["tick"] == 1 && key == "tick" && len(seen) != len(sections)+1 {
			t.Fatalf("at first there are %v", seen)
		}
	}
	if seen["figures"] != 3 || seen["events"] != 1 {
		t.Errorf("seen: %v", seen)
	}
}

// There are at most so many clients, and there is room again when one leaves.
func TestTooManyClients(t *testing.T) {
	t.Parallel()
	s := serve(t)
	ctx, leave := context.WithCancel(t.Context())
	for range mostClients {
		r, err := http.NewRequestWithContext(ctx, "GET", s.server.URL+"/live", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := s.server.Client().Do(r)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatal(answer, err)
		}
		t.Cleanup(func() { _ = answer.Body.Close() })
	}
	if r := s.get("/live"); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("one more: %d", r.StatusCode)
	}
	if r := s.get("/live.json"); r.StatusCode != http.StatusOK {
		t.Errorf("the document: %d", r.StatusCode)
	}
	leave()
	s.eventually("all have left", func() bool { return s.count() == 0 })
	if r := s.get("/live"); r.StatusCode != http.StatusOK {
		t.Errorf("after that: %d", r.StatusCode)
	}
}

// A client that does not read is given up, and keeps nobody else from what is new.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	s := serve(t)
	c, err := net.Dial("tcp", s.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET /live?html HTTP/1.1\r\nHost: razor\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	s.eventually("it has joined", func() bool { return s.count() == 1 })
	stop := make(chan struct{})
	told := make(chan struct{})
	go func() {
		defer close(told)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				s.tell(&look{at: time.Now(), sections: []section{{"events", fmt.Sprint(i, strings.Repeat("x", 1<<20))}}})
			}
		}
	}()
	s.eventually("it is given up", func() bool { return s.count() == 0 })
	close(stop)
	<-told
}

// Streams end with the page.
func TestEnd(t *testing.T) {
	t.Parallel()
	s := serve(t)
	r := bufio.NewReader(s.get("/live").Body)
	if _, err := next(t, r); err != nil {
		t.Fatal(err)
	}
	s.stop()
	for {
		if _, err := next(t, r); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// Nobody is asked while nobody watches, and once a second while somebody does.
func TestNobodyWatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		p := New(&Events{}, func(now time.Time) Document {
			asked.Add(1)
			return sample(now)
		})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go p.Run(ctx)
		during := func(d time.Duration) int64 {
			was := asked.Load()
			time.Sleep(d)
			synctest.Wait()
			return asked.Load() - was
		}
		if n := during(time.Hour); n != 0 {
			t.Errorf("asked %d times for nobody", n)
		}
		c := p.join()
		go func() {
			for range c.looks {
			}
		}()
		if n := during(10*time.Second + time.Millisecond); n != 10 {
			t.Errorf("asked %d times in 10 s", n)
		}
		p.leave(c)
		close(c.looks)
		if n := during(time.Hour); n > 1 { // the one that was waited for
			t.Errorf("asked %d times for who has left", n)
		}
		for range 3 {
			p.json(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/live.json", nil))
		}
		if n := during(time.Second); n != 0 {
			t.Errorf("asked %d times after a document", n)
		}
	})
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0", 7: "7", 0.25: "0.25", 12.34: "12.3", 999: "999", 999.6: "1\u202fk", 1234: "1.23\u202fk", 12345: "12.3\u202fk", 999_499: "999\u202fk", 2.5e9: "2.5\u202fG", 7e15: "7000\u202fT",
	} {
		if got := number(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0 %", 0.0004: "<0.1 %", 0.5: "50.0 %", 1: "100 %", 0.9999: "100 %"} {
		if got := percent(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}
