package wire

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseKeys(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, file string
		ids        string // as they print
		err        string // lines of it
	}{
		{"one", "7: " + hexKey, "[key 7]", ""},
		{"the order of the file", "9:" + otherKey + "\n2: " + hexKey + "\n", "[key 9 key 2]", ""},
		{"comments, spaces, ends of lines", "\n# of 2026\n\t65535 :\t" + hexKey + " # now\r\n\r\n 0: " + otherKey, "[key 65535 key 0]", ""},
		{"capitals", "1: " + strings.ToUpper(hexKey), "[key 1]", ""},
		{"64 bytes", "1: " + hexKey + hexKey, "[key 1]", ""},
		{"empty", "", "", `no key; want lines of "id: secret"`},
		{"comments alone", "# 7: " + hexKey, "", `no key; want lines of "id: secret"`},
		{"no colon", hexKey, "", `line 1: no colon; want "id: secret"`},
		{"the wrong way round", hexKey + ": 7", "", "line 1: bad id: want a number of 0 to 65535"},
		{"id too large", "65536: " + hexKey, "", "line 1: bad id: want a number of 0 to 65535"},
		{"negative id", "-1: " + hexKey, "", "line 1: bad id: want a number of 0 to 65535"},
		{"no secret", "7:", "", "line 1: key 7 has 0 bytes: want 32 to 64, as of openssl rand -hex 32"},
		{"short", "7: " + hexKey[2:], "", "line 1: key 7 has 31 bytes: want 32 to 64, as of openssl rand -hex 32"},
		{"long", "7: " + hexKey + hexKey + "00", "", "line 1: key 7 has 65 bytes: want 32 to 64, as of openssl rand -hex 32"},
		{"half a byte", "7: " + hexKey + "0", "", "line 1: key 7 is neither hexadecimal nor base64"},
		{"a passphrase", "7: correct horse battery staple", "", "line 1: key 7 is neither hexadecimal nor base64"},
		{"base64 for URLs", "7: " + strings.Repeat("_-", 21) + "_=", "", "line 1: key 7 is neither hexadecimal nor base64"},
		{"the same id", "7: " + hexKey + "\n7: " + otherKey, "", "line 2: key 7 is there twice"},
		{"the same secret", "7: " + hexKey + "\n8: " + hexKey, "", "line 2: key 8 has the secret of key 7"},
		{"all that is wrong", "x\n7: " + hexKey + "\ny:", "", "line 1: no colon; want \"id: secret\"\nline 3: bad id: want a number of 0 to 65535"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			keys, err := ParseKeys(tt.file)
			if tt.err == "" {
				if got := fmt.Sprint(keys); err != nil || got != tt.ids {
					t.Errorf("got %s, %v; want %s", got, err, tt.ids)
				}
				return
			}
			if err == nil || err.Error() != tt.err || keys != nil {
				t.Errorf("got %v, %v; want %s", keys, err, tt.err)
			}
		})
	}
}

// TestKeysAreNotPrinted: neither by formats nor by errors.
func TestKeysAreNotPrinted(t *testing.T) {
	t.Parallel()
	keys := seven(t)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if got := fmt.Sprintf(format, keys); strings.Contains(got, keys[0].secret[1:]) || strings.Contains(got, hexKey[2:]) {
			t.Errorf("%s prints %s", format, got)
		}
	}
}

// FuzzParseKeys: any file is keys that can be used, or an error without secrets.
func FuzzParseKeys(f *testing.F) {
	f.Add("7: " + hexKey)
	f.Add("# comment\n9: " + otherKey + "\r\n2:" + hexKey)
	f.Add(hexKey + ": 7\n: \n\x00:\xff")
	f.Fuzz(func(t *testing.T, file string) {
		keys, err := ParseKeys(file)
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%v, %v", keys, err)
		}
		seen := make(map[uint16]bool)
		for _, k := range keys {
			if seen[k.ID] || len(k.secret) < 32 || len(k.secret) > 64 {
				t.Errorf("%v of %d bytes", k, len(k.secret))
			}
			seen[k.ID] = true
		}
		if err == nil {
			return
		}
		for word := range strings.FieldsFuncSeq(file, func(r rune) bool { return r == ':' || r <= ' ' }) {
			if len(word) > 16 && strings.Contains(err.Error(), word) {
				t.Errorf("%q is in the error %q", word, err)
			}
		}
	})
}
