package gateway

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/razor-steering/razor/gateway/balancer"
)

func TestTraceRefusals(t *testing.T) {
	t.Parallel()
	c := balanced(t)
	c.Dataplane.Pins = t.TempDir()
	for want, o := range map[string]TraceOptions{
		"--every 0: want 1 or more":  {},
		"--count -1: want 0 or more": {Every: 1, Count: -1},
		`--vip "x": "x" is neither an address nor a prefix, want such as 198.51.100.1:443/tcp`: {Every: 1, VIP: "x"},
		`--client "203.0.113.9:1": neither an address nor a prefix`:                            {Every: 1, Client: "203.0.113.9:1"},
		`--client "fe80::1%eth0": neither an address nor a prefix`:                             {Every: 1, Client: "fe80::1%eth0"},
		"no balancer has its maps in " + c.Dataplane.Pins + ": it is not":                      {Every: 1},
	} {
		var out, remarks bytes.Buffer
		if err := Trace(t.Context(), &c, o, &out, &remarks); err == nil || !strings.HasPrefix(err.Error(), want) || out.Len()+remarks.Len() > 0 {
			t.Errorf("%v, want %s; said %s%s", err, want, &out, &remarks)
		}
	}
}

func TestTraceFilter(t *testing.T) {
	t.Parallel()
	for client, want := range map[string]string{
		"203.0.113.9": "203.0.113.9/32", "203.0.113.0/24": "203.0.113.0/24", "2001:DB8:0::1": "2001:db8::1/128",
		"::ffff:203.0.113.9": "203.0.113.9/32", "::ffff:203.0.113.0/120": "203.0.113.0/24",
	} {
		o := TraceOptions{Client: client, Every: 7, VIP: "[2001:db8:ffff::1]:443/tcp"}
		f, err := o.filter()
		if err != nil || f.Client != netip.MustParsePrefix(want) || f.Every != 7 || f.VIP.String() != o.VIP {
			t.Errorf("%s: %+v, %v", client, f, err)
		}
	}
}

// Backends are called as in the configuration, containers too, and entries as their site.
func TestTraceNames(t *testing.T) {
	t.Parallel()
	c := ofSites(t)
	names := c.traceNames()
	if len(names) != 5 || names[netip.MustParseAddr("2001:db8:5e:b1:5201::")] != "2001:db8:5e:b1::/64" || names[netip.MustParseAddr("2001:db8:5e:b2:5201:3::")] != "b2" ||
		names[netip.MustParseAddr("2001:db8:5e:e002:5203::")] != "east" || names[netip.MustParseAddr("2001:db8:5e:e101:5203::")] != "north" {
		t.Error(names)
	}
	c.StateDir = t.TempDir()
	c.Sites, c.ConsulSites, c.Services[0].Backends, c.Services[0].Upstream = nil, &ConsulSitesConfig{}, nil, "web"
	for file, text := range map[string]string{
		consulSitesFile: `{"east": {"Name": "east", "Gateways": ["2001:db8:5e:e001::/64"]}}`,
		membersFile:     `{"web": {"2001:db8:5e:b1:5201::": {"Name": "one"}}, "mail": {"2001:db8:5e:b2:5201::": {"Name": "none"}}}`,
	} {
		if err := os.WriteFile(filepath.Join(c.StateDir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names = c.traceNames()
	if len(names) != 2 || names[netip.MustParseAddr("2001:db8:5e:b1:5201::")] != "one" || names[netip.MustParseAddr("2001:db8:5e:e001:5203::")] != "east" {
		t.Errorf("of what was kept: %v", names)
	}
}

// Lines go to the output, frames to the file; where that is the output there are no lines.
func TestTraceOutput(t *testing.T) {
	t.Parallel()
	r := &balancer.TraceRecord{Before: make([]byte, 14), BeforeBytes: 14, Slot: -1, Round: -1, Action: "dropped"}
	dir := t.TempDir()
	section := "\x0a\x0d\x0d\x0a"
	for _, c := range []struct{ file, out, inFile string }{
		{"", r.String(), ""},
		{filepath.Join(dir, "frames"), r.String(), section},
		{"-", section, ""},
	} {
		var out bytes.Buffer
		o := TraceOptions{File: c.file}
		write, closeFile, err := o.writer(&out)
		if err != nil {
			t.Fatal(err)
		}
		if err := write(r); err != nil {
			t.Fatal(err)
		}
		if err := closeFile(); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(out.String(), c.out) || (c.file == "-") == strings.HasSuffix(out.String(), r.String()+"\n") {
			t.Errorf("%q: %q", c.file, &out)
		}
		if c.inFile == "" {
			continue
		}
		frames, err := os.ReadFile(c.file)
		if err != nil || !strings.HasPrefix(string(frames), c.inFile) {
			t.Errorf("file: %q, %v", frames, err)
		}
		if at, err := os.Stat(c.file); err != nil || at.Mode().Perm() != 0o600 {
			t.Errorf("file: %v, %v", at.Mode(), err)
		}
	}
	o := TraceOptions{File: dir}
	if _, _, err := o.writer(&bytes.Buffer{}); err == nil {
		t.Error("a directory was written")
	}
}

func TestTraceSummary(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"0 packets\n": summary(0, balancer.TraceLosses{}),
		"1 packet\n":  summary(1, balancer.TraceLosses{}),
		"7 packets; without a line: 3 above the limit of lines, 2 as lines were not taken fast enough, 1 not looked at, above the limit of that\n": summary(7, balancer.TraceLosses{Unseen: 1, Limited: 3, Full: 2}),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
