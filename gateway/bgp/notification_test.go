package bgp

import (
	"bytes"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestNotificationInWords(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                           "NOTIFICATION 0/0",
		"01":                         "NOTIFICATION 0/0",
		"0101":                       "message header error: connection not synchronized",
		"0102 0012":                  "message header error: bad message length: data 0012",
		"0200":                       "OPEN message error",
		"0202":                       "OPEN message error: bad peer AS",
		"020b":                       "OPEN message error: role mismatch",
		"0209":                       "OPEN message error: subcode 9",
		"03ff":                       "UPDATE message error: subcode 255",
		"0400":                       "hold timer expired",
		"0503":                       "finite state machine error: unexpected message in Established",
		"0602":                       "Cease: administrative shutdown",
		"0602 00":                    "Cease: administrative shutdown: ",
		"0602 03 6f7574":             "Cease: administrative shutdown: out",
		"0604 02 6f7574":             "Cease: administrative reset: ou",
		"0602 ff 6f7574":             "Cease: administrative shutdown: out",
		"0602 07 1b5b306d0a7f61":     "Cease: administrative shutdown: ?[0m??a",
		"0602 05 c3a9c328ff":         "Cease: administrative shutdown: é?(?",
		"0602 06 e280aee2808b":       "Cease: administrative shutdown: ??", // direction, width 0
		"0606":                       "Cease: other configuration change",
		"0609":                       "Cease: hard reset",
		"0609 0602 03 6f7574":        "Cease: hard reset: Cease: administrative shutdown",
		"0609 0609 0609":             "Cease: hard reset: Cease: hard reset",
		"060a":                       "Cease: BFD down",
		"0601 000101 00000064":       "Cease: maximum number of prefixes reached: data 00010100000064",
		"0701":                       "ROUTE-REFRESH message error: invalid message length",
		"0800":                       "send hold timer expired",
		"0000":                       "NOTIFICATION 0/0",
		"ff01":                       "NOTIFICATION 255/1",
		"0300" + "aa" + twenty("bb"): "UPDATE message error: data aabbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
	} {
		body := octets(t, in)
		if got := parseNotification(body).Error(); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func twenty(s string) string { return strings.Repeat(s, 20) }

func TestNotificationRoundTrip(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	for _, n := range []*notification{
		{code: codeCease, subcode: ceaseBFDDown},
		{code: codeHeader, subcode: headerBadType, data: []byte{6}},
		{code: codeUpdate, subcode: updateOptional, data: []byte(long)},
		cease(ceaseShutdown, "moved to east"),
	} {
		m := n.encode()
		if got, err := checkHeader(m); got != len(m) || err != nil {
			t.Fatalf("%v: %d octets, %d in the header, %v", n, len(m), got, err)
		}
		again := parseNotification(m.body())
		if again.code != n.code || again.subcode != n.subcode || !bytes.HasPrefix(n.data, again.data) || again.Error() != n.Error() {
			t.Errorf("%v came back as %v", n, again)
		}
	}
}

func TestCease(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		subcode uint8
		text    string
		want    string // the body
	}{
		{ceaseShutdown, "", "0602"},
		{ceaseShutdown, "out", "0602 03 6f7574"},
		{ceaseReset, "é", "0604 02 c3a9"},
		{ceaseReset, "\xff\xfe", "0604 01 3f"},
		{ceaseBFDDown, "nobody is told", "060a"},
	} {
		if got := cease(c.subcode, c.text).encode().body(); !bytes.Equal(got, octets(t, c.want)) {
			t.Errorf("%q: % x, want %s", c.text, got, c.want)
		}
	}
	n := cease(ceaseShutdown, strings.Repeat("é", 200))
	if got := n.data[1:]; len(got) != 254 || int(n.data[0]) != 254 || !utf8.Valid(got) {
		t.Errorf("%d octets: %s", len(got), got)
	}
}

func FuzzNotification(f *testing.F) {
	f.Add([]byte{6, 2, 3, 'o', 'u', 't'})
	f.Add([]byte{6, 9, 6, 2})
	f.Add([]byte{3, 9, 1, 2, 3})
	f.Fuzz(func(t *testing.T, body []byte) {
		s := parseNotification(body).Error()
		if len(s) > 1000 || !utf8.ValidString(s) {
			t.Errorf("%q", s)
		}
		for _, r := range s {
			if !unicode.IsPrint(r) {
				t.Errorf("%q", s)
			}
		}
	})
}
