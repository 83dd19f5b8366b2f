package upstreams

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/razor-steering/razor/steering"
)

// everyKind are the contents of keys of every kind, awkward ones among them.
var everyKind = map[string]raw{
	"r.example:CONFIG":         rawHash("SOA", goodSOA, "NS", "a., b", "TTL", "7", "COUNT", "2", "ANSWER", "geoip", "FLOOR", "", "ALPN", "h3,\r\n h2", "PORT", "8443"),
	"half.example:CONFIG":      rawHash("SOA", "broken", "TTL", "1"),
	"r.example:A":              rawSet("192.0.2.1", "::ffff:192.0.2.2", "198.51.100.0/24", "0.0.0.0/0"),
	"r.example:AAAA":           rawSet("[2001:DB8:0::1]", "2001:db8::/64", "2001:db8:1::/47"),
	"r.example:A:SKIPLIST":     rawSet("192.0.2.1", "192.0.2.1/31"),
	"r.example:AAAA:SKIPLIST":  rawSet("2001:db8::1"),
	"r.example:A:BLACKHOLE":    rawSet("192.0.2.1 until=2026-11-21T05:31:00Z", "192.0.2.1", "192.0.2.2  until=never", "192.0.2.2"),
	"r.example:AAAA:BLACKHOLE": rawSet("[2001:DB8::1] until=2026-11-21T05:31:00.25+02:00"),
	"east:STATE":               rawText("draining  since=2026-11-21T05:31:00Z"),
	"west:STATE":               rawText("drained"),
	"west:HEALTH":              rawText("down  since=2026-11-21T05:31:00Z at=2026-11-21T05:31:00.25Z reason= nobody\n hears it: \xff "),
	"r.example:EDGES":          rawSet("East", "west"),
	"r.example:GROUPS":         rawSet("G1", "g2.example.", "g\\.3"),
	"Shop.Example":             rawText("Node1.Route.Example."),
	`a\.b\\\000.example`:       rawText(`c\.\032d.example`),
	`colon\058in:A`:            rawSet("192.0.2.9"),
	`colon\058in.example`:      rawText(`colon\058in`),
	`dot\046`:                  rawText(`dot\046`),
	"geoip:eu:LT":              rawText("node1"),
	"geoip:na:us:ca":           rawText("node2.example"),
}

func parsedValues(tb testing.TB, raws map[string]raw) map[keyID]*value {
	tb.Helper()
	out := map[keyID]*value{}
	for key, r := range raws {
		id, defect := parseKey(key)
		if defect != nil || id.kind == kindForeign {
			tb.Fatalf("%s: kind %d, %v", key, id.kind, defect)
		}
		v, _ := parseValue(id, key, r)
		if v == nil {
			tb.Fatalf("%s has no value", key)
		}
		out[id] = v
	}
	return out
}

func sameValues(t *testing.T, got, want map[keyID]*value) {
	t.Helper()
	for id, v := range want {
		w := got[id]
		if w == nil {
			t.Errorf("%s is missing", id.spelling())
			continue
		}
		// Broken fields are not on disk.
		if v.config != nil && v.config.bad != nil {
			c := *v.config
			c.bad = nil
			v = &value{config: &c}
		}
		if !v.equal(w) || said(v) != said(w) {
			t.Errorf("%s: %s; want %s", id.spelling(), said(w), said(v))
		}
	}
	for id := range got {
		if want[id] == nil {
			t.Errorf("%s appeared", id.spelling())
		}
	}
}

func saved(t *testing.T, values map[keyID]*value) (dir string, data []byte) {
	t.Helper()
	dir = t.TempDir()
	if err := save(dir, values); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, SnapshotFile))
	if err != nil {
		t.Fatal(err)
	}
	return dir, data
}

func TestSaveLoad(t *testing.T) {
	t.Parallel()
	for key, r := range everyKind {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			values := parsedValues(t, map[string]raw{key: r})
			dir, _ := saved(t, values)
			got, err := load(dir)
			if err != nil {
				t.Fatal(err)
			}
			sameValues(t, got, values)
		})
	}
	t.Run("all", func(t *testing.T) {
		t.Parallel()
		values := parsedValues(t, everyKind)
		dir, _ := saved(t, values)
		got, err := load(dir)
		if err != nil {
			t.Fatal(err)
		}
		sameValues(t, got, values)
	})
	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		dir, _ := saved(t, nil)
		got, err := load(dir)
		if err != nil || len(got) != 0 {
			t.Fatalf("%v, %v", got, err)
		}
	})
}

func TestSaveManyMembers(t *testing.T) {
	t.Parallel()
	for _, n := range []int{saddMembers - 1, saddMembers, saddMembers + 1, 3*saddMembers + 7} {
		members := make([]netip.Prefix, n)
		for i := range members {
			members[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		}
		id := keyID{kindPool, steering.IPv4, wire(t, "r.example")}
		values := map[keyID]*value{id: {pool: steering.NewPool(steering.IPv4, members)}}
		dir, data := saved(t, values)
		got, err := load(dir)
		if err != nil {
			t.Fatal(err)
		}
		sameValues(t, got, values)
		if commands, want := bytes.Count(data, []byte("SADD")), (n+saddMembers-1)/saddMembers; commands != want {
			t.Errorf("%d members in %d commands; want %d", n, commands, want)
		}
	}
}

func TestLoadWithoutFile(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing")} {
		if _, err := load(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v; want not exist", err)
		}
	}
}

// TestLoadDamaged cuts the file at every length, and flips a bit of every octet.
func TestLoadDamaged(t *testing.T) {
	t.Parallel()
	_, data := saved(t, parsedValues(t, everyKind))
	for n := range data {
		if got, err := parseCommands(data[:n]); !errors.Is(err, errTruncated) || got != nil {
			t.Fatalf("cut to %d of %d: %d values, %v", n, len(data), len(got), err)
		}
		bad := bytes.Clone(data)
		bad[n] ^= 1 << (n % 8)
		if got, err := parseCommands(bad); !errors.Is(err, errTruncated) || got != nil {
			t.Fatalf("octet %d of %d changed: %d values, %v", n, len(data), len(got), err)
		}
	}
	if _, err := parseCommands(append(bytes.Clone(data), '\n')); !errors.Is(err, errTruncated) {
		t.Errorf("an octet more: %v", err)
	}
	if _, err := parseCommands(append(bytes.Clone(data), data...)); err == nil {
		t.Error("two files in one are read")
	}
}

// sealed is a body with the right checksum.
func sealed(body []byte) []byte {
	sum := sha256.Sum256(body)
	return append(bytes.Clone(body), appendCommand(nil, "ECHO", hex.EncodeToString(sum[:]))...)
}

func TestLoadNonsense(t *testing.T) {
	t.Parallel()
	command := func(words ...string) string { return string(appendCommand(nil, words...)) }
	for _, tt := range []struct{ name, body, want string }{
		{"bad command", command("DEL", "r:A", "x"), "not the Redis protocol: command DEL"},
		{"bad command of control characters", command("\x1b", "r:A", "x"), `not the Redis protocol: command \027`},
		{"bad command alone", command("FLUSHALL"), "not the Redis protocol"},
		{"bad odd HSET", command("HSET", "r:CONFIG", "TTL"), "not the Redis protocol"},
		{"bad SADD without members", command("SADD", "r:A"), "not the Redis protocol"},
		{"bad inline command", "SET a b\r\n", `not the Redis protocol: type 'S'`},
		{"bad number", ":1\r\n", "not the Redis protocol"},
		{"bad key", command("SADD", "r:B", "x"), "r:B: unknown key"},
		{"bad key of control characters", command("SADD", "\x1b:B", "x"), `\027:B: unknown key`},
		{"good wrong command for the key", command("SET", "r:A", "192.0.2.1") + command("SADD", "r:CONFIG", "x") + command("HSET", "r:GROUPS", "a", "b"), ""},
		{"good members that cannot be used", command("SADD", "r:A", "x"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseCommands(sealed([]byte(tt.body)))
			switch {
			case tt.want == "" && (err != nil || len(got) != 0):
				t.Errorf("%d values, %v; want none", len(got), err)
			case tt.want != "" && (err == nil || err.Error() != tt.want || got != nil):
				t.Errorf("%d values, %v; want %s", len(got), err, tt.want)
			}
		})
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, SnapshotFile)
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(dir); err == nil || err.Error() != path+": truncated or changed: checksum does not match" {
		t.Errorf("%v", err)
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// TestSaveReplaces checks that the file is another one after each save, never the
// old one written over, and that nothing is left beside it.
func TestSaveReplaces(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "on", "the", "way")
	if err := save(dir, parsedValues(t, everyKind)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, SnapshotFile)
	reader, err := os.Open(path) // a reader at the time of the next save
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	second := parsedValues(t, map[string]raw{"r:A": rawSet("192.0.2.7")})
	if err := save(dir, second); err != nil {
		t.Fatal(err)
	}
	var old bytes.Buffer
	if _, err := old.ReadFrom(reader); err != nil || !bytes.Equal(old.Bytes(), before) {
		t.Errorf("an open file changed: %d octets of %d, %v", old.Len(), len(before), err)
	}
	got, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	sameValues(t, got, second)
	if left := entries(t, dir); !slices.Equal(left, []string{SnapshotFile}) {
		t.Errorf("left in the directory: %v", left)
	}
}

// TestSaveFails checks that a save that cannot be finished leaves the last file
// and nothing else.
func TestSaveFails(t *testing.T) {
	t.Parallel()
	values := parsedValues(t, everyKind)
	t.Run("directory is a file", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := save(file, values); err == nil {
			t.Error("no error")
		}
	})
	t.Run("name is taken by a directory", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, SnapshotFile, "full"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := save(dir, values); err == nil {
			t.Error("no error")
		}
		if left := entries(t, dir); !slices.Equal(left, []string{SnapshotFile}) {
			t.Errorf("left in the directory: %v", left)
		}
	})
	t.Run("not writable", func(t *testing.T) {
		t.Parallel()
		// Root writes wherever there is a file system; nobody writes in /proc.
		if err := save("/proc/self", values); err == nil {
			t.Error("no error")
		}
	})
}

// TestFileIsCommands sends the file to a Redis as it is, as redis-cli --pipe does.
func TestFileIsCommands(t *testing.T) {
	t.Parallel()
	e, err := StartEmbedded("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	values := parsedValues(t, everyKind)
	_, data := saved(t, values)
	client := redis.NewClient(&redis.Options{Addr: e.Addr(), DisableIdentity: true})
	defer client.Close()
	for r := respReader(string(data)); ; {
		v, err := readRESP(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		list, _ := v.([]any)
		if err := client.Do(t.Context(), list...).Err(); err != nil {
			t.Fatalf("%v: %v", v, err)
		}
	}
	// Sticky names are read below configured zones.
	got, err := scanLive(t.Context(), Config{Address: e.Addr()}, []string{"example", `dot\046`})
	if err != nil {
		t.Fatal(err)
	}
	sameValues(t, got.values, values)
	if len(got.defects) > 0 {
		t.Errorf("defects: %v", got.defects)
	}
}

// TestSavedTextIsStable writes the same values again after reading them.
func TestSavedTextIsStable(t *testing.T) {
	t.Parallel()
	values := parsedValues(t, everyKind)
	lines := func(values map[keyID]*value) []string {
		var out []string
		for id, v := range values {
			var b strings.Builder
			if err := writeValue(&b, id, v); err != nil {
				t.Fatal(err)
			}
			out = append(out, b.String())
		}
		slices.Sort(out)
		return out
	}
	dir, _ := saved(t, values)
	again, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := lines(values), lines(again); !slices.Equal(a, b) {
		t.Errorf("%q\nbecame %q", a, b)
	}
}

func FuzzParseCommands(f *testing.F) {
	var b bytes.Buffer
	for id, v := range parsedValues(f, everyKind) {
		var one bytes.Buffer
		if err := writeValue(&one, id, v); err != nil {
			f.Fatal(err)
		}
		f.Add(one.Bytes())
		b.Write(one.Bytes())
	}
	f.Add(b.Bytes())
	f.Add([]byte("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"))
	f.Add([]byte("*4\r\n$4\r\nHSET\r\n$8\r\nr:CONFIG\r\n$3\r\nSOA\r\n$1\r\nx\r\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := parseCommands(body); err == nil {
			if !bytes.Contains(body, []byte("ECHO")) {
				t.Fatal("read without a checksum")
			}
		}
		values, err := parseCommands(sealed(body))
		if err != nil {
			if values != nil {
				t.Fatalf("%d values beside %v", len(values), err)
			}
			return
		}
		// What was read can be kept again and makes a snapshot.
		var out bytes.Buffer
		if err := writeCommands(&out, values); err != nil {
			t.Fatal(err)
		}
		again, err := parseCommands(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if len(again) != len(values) {
			t.Fatalf("%v became %v", slices.Collect(keyTexts(values)), slices.Collect(keyTexts(again)))
		}
		var changes []change
		for id, v := range values {
			if w := again[id]; w == nil || said(v) != said(w) {
				t.Fatalf("%s: %s became %s", id.spelling(), said(v), said(w))
			}
			changes = append(changes, change{id, v})
		}
		newModel(nil).apply(changes)
	})
}

func keyTexts(values map[keyID]*value) func(func(string) bool) {
	return func(yield func(string) bool) {
		for id := range maps.Keys(values) {
			if !yield(fmt.Sprintf("%d %q", id.kind, id.spelling())) {
				return
			}
		}
	}
}

// TestReplaceFile: a file is what it was, or the new text.
func TestReplaceFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	for _, text := range []string{"first", "", "third"} {
		if err := ReplaceFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != text {
			t.Errorf("got %q, %v, want %q", got, err, text)
		}
	}
	if left := entries(t, dir); !slices.Equal(left, []string{"file"}) {
		t.Errorf("left in the directory: %v", left)
	}
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{taken, filepath.Join(name, "below"), "/proc/self/file"} {
		if err := ReplaceFile(name, []byte("x"), 0o600); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if left := entries(t, dir); !slices.Equal(left, []string{"file", "taken"}) {
		t.Errorf("left in the directory: %v", left)
	}
}
