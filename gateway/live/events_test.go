package live

import (
	"bytes"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
)

// Events have what the log has, with the reason apart, and the log stays as it was.
func TestEvents(t *testing.T) {
	t.Parallel()
	var e Events
	var text bytes.Buffer
	log := slog.New(e.Handler(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelWarn})))
	log.Debug("not noted")
	log.Info("noted alone", "set", "dns")
	log.With("probe", "web").WithGroup("of").With("a", 1).Warn("changed", "to", "down", "n", 2)
	log.Error("failed", "service", "web", "err", fmt.Errorf("no way: %d", 7))
	const long = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	log.Info(long+long+long+long+long+long+long, "key", strings.Repeat("y", 1000))
	got := e.Since(0)
	var short []string
	for _, ev := range got {
		short = append(short, fmt.Sprint(ev.Number, ev.Level, ev.Text[:min(len(ev.Text), 20)], ev.Reason, ev.Attributes[:min(len(ev.Attributes), 1)]))
	}
	want := []string{
		"4infoxxxxxxxxxxxxxxxxxxxx[{key " + strings.Repeat("y", mostText) + "…}]", "3errorfailedno way: 7[{service web}]", "2warnchanged[{probe web}]", "1infonoted alone[{set dns}]",
	}
	if !reflect.DeepEqual(short, want) {
		t.Errorf("got  %q\nwant %q", short, want)
	}
	if a := got[2].Attributes; !reflect.DeepEqual(a, []Attribute{{"probe", "web"}, {"of.a", "1"}, {"of.to", "down"}, {"of.n", "2"}}) {
		t.Errorf("attributes %v", a)
	}
	if n := len(got[0].Text); n != mostText+len("…") {
		t.Errorf("a text of %d octets", n)
	}
	if got := text.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "msg=changed probe=web of.a=1 of.to=down of.n=2") {
		t.Errorf("the log has %s", got)
	}
}

// The last 200 are kept, and none of them is told twice.
func TestEventsAreBounded(t *testing.T) {
	t.Parallel()
	var e Events
	log := slog.New(e.Handler(slog.DiscardHandler))
	if got := e.Since(0); len(got) != 0 {
		t.Errorf("%v of nothing", got)
	}
	for i := range 500 {
		log.Info("event", "n", i)
	}
	all := e.Since(0)
	if len(all) != mostEvents || all[0].Number != 500 || all[mostEvents-1].Number != 301 {
		t.Errorf("%d events, %d to %d", len(all), all[0].Number, all[len(all)-1].Number)
	}
	if got := e.Since(498); len(got) != 2 || got[1].Attributes[0].Value != "498" {
		t.Errorf("since 498: %v", got)
	}
	if got := e.Since(500); len(got) != 0 {
		t.Errorf("since the last: %v", got)
	}
	many := make([]any, 0, 200)
	for i := range 100 {
		many = append(many, fmt.Sprint("k", i), i)
	}
	log.Info("many", many...)
	if got := e.Since(500)[0].Attributes; len(got) != mostAttributes {
		t.Errorf("%d attributes", len(got))
	}
}
