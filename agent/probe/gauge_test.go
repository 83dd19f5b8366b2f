package probe

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestGaugeOfProgram(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		script string
		want   float64
		err    string
	}{
		{"echo 0.75", 0.75, ""},
		{"echo; echo ' 12e3 '; echo more", 12000, ""},
		{"echo -1", -1, ""},
		{"echo 3; exit 1", 0, "exit 1: 3"},
		{"true", 0, `"" is no figure`},
		{"echo load: 3", 0, `"load: 3" is no figure`},
		{"echo nan", 0, `"nan" is no figure`},
		{"echo 1e999", 0, `"1e999" is no figure`},
		{`printf '\033[2J'`, 0, `"\027[2J" is no figure`},
	} {
		g := NewGauge(GaugeConfig{Kind: kindExec, Timeout: patience, Command: shell(tt.script)})
		if got, err := g.Read(t.Context()); got != tt.want || text(err) != tt.err {
			t.Errorf("%s: %v, %v; want %v, %q", tt.script, got, err, tt.want, tt.err)
		}
	}
	slow := NewGauge(GaugeConfig{Kind: kindExec, Timeout: 50 * time.Millisecond, Command: shell("exec sleep 1000")})
	if _, err := slow.Read(t.Context()); text(err) != "timed out" {
		t.Error("slow: ", err)
	}
}

func TestGaugeOfHTTP(t *testing.T) {
	t.Parallel()
	s := website(t)
	mux := s.Config.Handler.(*http.ServeMux)
	mux.HandleFunc("GET /load", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "17.5\nof 20\n") })
	mux.HandleFunc("GET /long", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "3\n"+strings.Repeat("x", 2*maxAnswer))
	})
	s.Start()
	for _, tt := range []struct {
		path string
		want float64
		err  string
	}{
		{"/load", 17.5, ""},
		{"/long", 3, ""},
		{"/ok", 0, `"all is well" is no figure`},
		{"/none", 0, "status 404 instead of 200"},
	} {
		g := NewGauge(GaugeConfig{Kind: kindHTTP, Timeout: patience, Target: s.Listener.Addr().String(), Path: tt.path})
		if got, err := g.Read(t.Context()); got != tt.want || text(err) != tt.err {
			t.Errorf("%s: %v, %v; want %v, %q", tt.path, got, err, tt.want, tt.err)
		}
	}
}

// What cannot be asked for a figure, by the key of what is wrong.
func TestGaugeCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cfg  GaugeConfig
		keys string
	}{
		{GaugeConfig{Kind: "exec", Command: []string{"/bin/true"}}, ""},
		{GaugeConfig{Kind: "http", Target: "[::1]:80"}, ""},
		{GaugeConfig{}, "load.kind"},
		{GaugeConfig{Kind: "dns", Target: "[::1]:53"}, "load.kind"},
		{GaugeConfig{Kind: "exec"}, "load.command"},
		{GaugeConfig{Kind: "exec", Command: []string{"/bin/true"}, Path: "/"}, "load.path"},
		{GaugeConfig{Kind: "https", Target: "web:443", Timeout: time.Nanosecond}, "load.target load.timeout"},
	} {
		tt.cfg.Defaults()
		var keys []string
		for _, d := range tt.cfg.Check("load") {
			keys = append(keys, d.Key)
		}
		if got := strings.Join(keys, " "); got != tt.keys {
			t.Errorf("%+v: %q, want %q", tt.cfg, got, tt.keys)
		}
	}
}
