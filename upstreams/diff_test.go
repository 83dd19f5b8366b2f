package upstreams

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	set := func(members ...string) raw { return raw{exists: true, set: members} }
	text := func(s string) raw { return raw{exists: true, text: s} }
	hash := rawHash
	for _, row := range []struct {
		key     string
		old, is raw
		want    string
	}{
		{"r:A", set("192.0.2.1", "192.0.2.0/24"), set("192.0.2.2", "192.0.2.0/24"), "- r:A 192.0.2.1|+ r:A 192.0.2.2"},
		{"r:A", raw{}, set("192.0.2.2"), "+ r:A 192.0.2.2"},
		{"r:AAAA", set("2001:DB8::1"), set("2001:db8::1"), ""},
		{"r:A:SKIPLIST", set("192.0.2.1"), raw{}, "- r:A:SKIPLIST 192.0.2.1"},
		{"r:CONFIG", hash("TTL", "5", "COUNT", "2"), hash("TTL", "6", "COUNT", "2"), "- r:CONFIG TTL 5|+ r:CONFIG TTL 6"},
		{"r:GROUPS", set("a"), set("a", "b"), "+ r:GROUPS b"},
		{"r:EDGES", set("a", "b"), set("b"), "- r:EDGES a"},
		{"e:STATE", raw{}, text("drained"), "+ e:STATE drained"},
		{"e:STATE", text("active"), text("draining since=2026-11-21T05:31:00Z"), "- e:STATE active|+ e:STATE draining since=2026-11-21T05:31:00Z"},
		{"e:HEALTH", text("up at=2026-11-21T05:31:00Z"), text("up at=2026-11-21T05:31:02Z"), ""},
		{"e:HEALTH", text("up at=2026-11-21T05:31:00Z"), text("down at=2026-11-21T05:31:02Z reason=no session is up"), "- e:HEALTH up|+ e:HEALTH down reason=no session is up"},
		{"r:A:BLACKHOLE", set("192.0.2.1", "192.0.2.2"), set("192.0.2.1", "192.0.2.2 until=2026-11-21T05:31:00Z"), "- r:A:BLACKHOLE 192.0.2.2|+ r:A:BLACKHOLE 192.0.2.2 until=2026-11-21T05:31:00Z"},
		{"s", text("a"), text("b"), "- s a|+ s b"},
		{"geoip:eu", text("a"), text("b"), "- geoip:eu a|+ geoip:eu b"},
		{"prefix:192.0.2.0/24", raw{}, text("b"), "+ prefix:192.0.2.0/24 b"},
		{"app:UPSTREAMS", set("192.0.2.1:80"), set("192.0.2.1:80 weight=2"), "- app:UPSTREAMS 192.0.2.1:80|+ app:UPSTREAMS 192.0.2.1:80 weight=2"},
		{"app:UPSTREAMS:META", hash("source", "consul"), hash("source", "operator"), "- app:UPSTREAMS:META source consul|+ app:UPSTREAMS:META source operator"},
	} {
		id, _ := parseKey(row.key)
		old, _ := parseValue(id, row.key, row.old)
		is, _ := parseValue(id, row.key, row.is)
		if got := strings.Join(diff(id, old, is), "|"); got != row.want {
			t.Errorf("%s: %q, want %q", row.key, got, row.want)
		}
	}
}

// lines is what a verb has written, for a test that reads meanwhile.
type lines struct {
	mu   sync.Mutex
	b    bytes.Buffer
	fail error
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return 0, l.fail
	}
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestWatchAndDiffLive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := startEmbedded(t)
	w := follow(t, e.Addr(), Options{StateDir: dir})
	w.waitLink(LinkTracking)
	w.fill(2)
	w.waitFilled(2)
	w.stop() // and has saved
	redisClient := redis.NewClient(&redis.Options{Addr: e.Addr(), DisableIdentity: true})
	t.Cleanup(func() { _ = redisClient.Close() })

	var out lines
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var said logLines
	go func() {
		done <- WatchLive(ctx, Config{Address: e.Addr()}, nil, slog.New(slog.NewTextHandler(&said, nil)), &out)
	}()
	w.wait("watching", func() bool { return said.count("following redis") == 1 })
	for _, cmd := range [][]any{{"SADD", "n1.r.example:A", "192.0.2.77"}, {"SET", "shop.r.example", "n1.r.example"}} {
		if err := redisClient.Do(t.Context(), cmd...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	want := "+ n1.r.example:A 192.0.2.77\n+ shop.r.example n1.r.example\n"
	// Both may be seen at once, and then in any order.
	w.wait("the changes", func() bool {
		return slices.Equal(slices.Sorted(strings.Lines(out.String())), slices.Sorted(strings.Lines(want)))
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}

	var b strings.Builder
	for _, from := range []string{dir, filepath.Join(dir, SnapshotFile)} {
		b.Reset()
		differs, err := DiffLive(t.Context(), Config{Address: e.Addr()}, nil, from, &b)
		if err != nil || !differs || b.String() != want {
			t.Errorf("%t, %v, %q; want %q", differs, err, b.String(), want)
		}
	}
	if _, err := DiffLive(t.Context(), Config{Address: e.Addr()}, nil, filepath.Join(dir, "none"), &b); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// A reader that goes away ends the watching.
func TestWatchWithoutReader(t *testing.T) {
	t.Parallel()
	e := startEmbedded(t)
	w := follow(t, e.Addr(), Options{})
	w.waitLink(LinkTracking)
	w.fill(1)
	w.waitFilled(1)
	gone := errors.New("gone")
	done := make(chan error, 1)
	var said logLines
	go func() {
		done <- WatchLive(t.Context(), Config{Address: e.Addr()}, nil, slog.New(slog.NewTextHandler(&said, nil)), &lines{fail: gone})
	}()
	w.wait("watching", func() bool { return said.count("following redis") == 1 })
	w.do("SADD n0.r.example:A 192.0.2.77")
	if err := <-done; !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
	w.stop()
}
