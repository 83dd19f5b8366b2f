package bgp

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/razor-steering/razor/steering"
)

// octets reads hexadecimal digits; blanks between them mean nothing.
func octets(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// rawMessage has the length and type that it is told, whatever its body is.
func rawMessage(n int, typ uint8, body []byte) []byte {
	m := append(bytes.Clone(marker), byte(n>>8), byte(n), typ)
	return append(m, body...)
}

// verdict is an error in short: its codes and data if it is a notification.
func verdict(err error) string {
	n, ok := errors.AsType[*notification](err)
	switch {
	case err == nil:
		return "ok"
	case !ok:
		return err.Error()
	}
	return strings.TrimSpace(hex.EncodeToString([]byte{n.code}) + "/" + hex.EncodeToString([]byte{n.subcode}) + " " + hex.EncodeToString(n.data))
}

func TestReadMessage(t *testing.T) {
	t.Parallel()
	broken := bytes.Clone(keepalive)
	broken[7] = 0xfe
	for _, c := range []struct {
		name string
		in   []byte
		want string
	}{
		{"keepalive", keepalive, "ok"},
		{"smallest open", rawMessage(29, typeOpen, make([]byte, 10)), "ok"},
		{"largest update", rawMessage(4096, typeUpdate, make([]byte, 4077)), "ok"},
		{"smallest notification", rawMessage(21, typeNotification, make([]byte, 2)), "ok"},
		{"route refresh", newRefresh(steering.IPv6), "ok"},
		{"nothing", nil, "EOF"},
		{"marker", broken, "01/01"},
		{"length 0", rawMessage(0, typeKeepalive, nil), "01/02 0000"},
		{"length 18", rawMessage(18, typeKeepalive, nil), "01/02 0012"},
		{"length 4097", rawMessage(4097, typeUpdate, make([]byte, 4078)), "01/02 1001"},
		{"length 65535", rawMessage(65535, typeUpdate, nil), "01/02 ffff"},
		{"open of 28", rawMessage(28, typeOpen, make([]byte, 9)), "01/02 001c"},
		{"update of 22", rawMessage(22, typeUpdate, make([]byte, 3)), "01/02 0016"},
		{"notification of 20", rawMessage(20, typeNotification, make([]byte, 1)), "01/02 0014"},
		{"keepalive of 20", rawMessage(20, typeKeepalive, make([]byte, 1)), "01/02 0014"},
		{"refresh of 22", rawMessage(22, typeRefresh, make([]byte, 3)), "01/02 0016"},
		{"type 0", rawMessage(19, 0, nil), "01/03 00"},
		{"type 6", rawMessage(19, 6, nil), "01/03 06"},
		{"type 255", rawMessage(4096, 255, make([]byte, 4077)), "01/03 ff"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := bufio.NewReader(io.MultiReader(bytes.NewReader(c.in), bytes.NewReader(keepalive)))
			if len(c.in) == 0 {
				r = bufio.NewReader(bytes.NewReader(nil))
			}
			m, err := readMessage(r)
			if got := verdict(err); got != c.want {
				t.Fatalf("%s, want %s", got, c.want)
			}
			if err != nil {
				return
			}
			if !bytes.Equal(m, c.in) || m.typ() != c.in[18] || !bytes.Equal(m.body(), c.in[19:]) {
				t.Errorf("read % x", m)
			}
			if next, err := readMessage(r); err != nil || !bytes.Equal(next, keepalive) {
				t.Errorf("then % x, %v", next, err)
			}
			truncated(t, c.in)
		})
	}
}

// truncated reads every beginning of a message.
func truncated(t *testing.T, m []byte) {
	t.Helper()
	for n := range m {
		want := "unexpected EOF"
		if n == 0 {
			want = "EOF"
		}
		if _, err := readMessage(bufio.NewReader(bytes.NewReader(m[:n]))); verdict(err) != want {
			t.Errorf("%d octets: %v", n, err)
		}
	}
}

func TestReadMessageAllocatesNothing(t *testing.T) {
	b := slices.Repeat([]byte(keepalive), 1100)
	r := bufio.NewReader(bytes.NewReader(b))
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := readMessage(r); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	for _, f := range []steering.Family{steering.IPv4, steering.IPv6} {
		if got, ok := parseRefresh(newRefresh(f).body()); got != f || !ok {
			t.Errorf("%v, %t of %v", got, ok, f)
		}
	}
	for in, want := range map[string]string{
		"":              "none",
		"000100":        "none",
		"00010001":      "IPv4",
		"00020001":      "IPv6",
		"00020001 0102": "IPv6", // a route filter
		"00010101":      "none", // beginning of a refresh
		"00010201":      "none", // end of one
		"0001ff01":      "none",
		"00010002":      "none",
		"00000001":      "none",
		"00190046":      "none",
		"ffff0001":      "none",
	} {
		got := "none"
		if f, ok := parseRefresh(octets(t, in)); ok {
			got = f.String()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte(keepalive))
	f.Add(rawMessage(4097, typeUpdate, nil))
	f.Add(append(rawMessage(29, typeOpen, make([]byte, 10)), rawMessage(19, 6, nil)...))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		for {
			m, err := readMessage(r)
			if err != nil {
				return
			}
			if !bytes.HasPrefix(in, m) || len(m) < headerLen || len(m) > maxMessage {
				t.Fatalf("% x of % x", m, in)
			}
			in = in[len(m):]
		}
	})
}
