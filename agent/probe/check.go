package probe

import (
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/steering"
)

// Defect is one setting that cannot be used: the path of the setting, its value,
// what is wrong and what would be right. It has the fields of upstreams.Defect, so
// that a role can convert it.
type Defect struct {
	Key    string
	Member string
	Reason string
	Want   string
}

// Error is the defect on one line.
func (d Defect) Error() string {
	return d.Key + ": " + strconv.QuoteToASCII(d.Member) + ": " + d.Reason + "; want " + d.Want
}

const (
	// Bounds of times: shorter ones would keep a core busy, and longer ones are slips.
	shortest = 10 * time.Millisecond
	longest  = time.Hour
	// mostInRow bounds rise and fall.
	mostInRow = 100
	// maxName and maxText bound what is put into labels, and sent.
	maxName = 64
	maxText = 1024
)

// Check lists what is wrong with the probe at key in the configuration; the keys
// are paths below it. Defaults have been filled in.
func (c *Config) Check(key string) []Defect {
	d := defects{prefix: key + "."}
	if !named(c.Name) {
		d.add("name", c.Name, "not a name", `letters, digits, "-", "_" and ".", such as "web"`)
	}
	switch c.Kind {
	case kindHTTP, kindHTTPS:
		d.http(c)
	case kindTCP:
		d.target(c.Target)
	case kindDNS:
		d.dns(c)
	case kindExec:
		d.exec(c.Command)
	default:
		d.add("kind", c.Kind, "unknown", "http, https, tcp, dns or exec")
		return d.list // what would be stray is not known
	}
	d.strays(c)
	d.times(c)
	d.counts(c)
	return d.list
}

func named(name string) bool {
	const octets = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	return name != "" && len(name) <= maxName && strings.Trim(name, octets) == ""
}

// defects are those of one probe.
type defects struct {
	prefix string
	list   []Defect
}

func (d *defects) add(key, member, reason, want string) {
	d.list = append(d.list, Defect{d.prefix + key, member, reason, want})
}

func (d *defects) oneOf(key, member string, words ...string) {
	if !slices.Contains(words, member) {
		last := len(words) - 1
		d.add(key, member, "unknown", strings.Join(words[:last], ", ")+" or "+words[last])
	}
}

func (d *defects) target(text string) {
	at, err := netip.ParseAddrPort(text)
	addr := at.Addr()
	if err != nil || at.Port() == 0 || addr.Is4In6() || addr.IsUnspecified() || addr.IsMulticast() {
		d.add("target", text, "not an address and port", `"[::1]:80" or "127.0.0.1:80"`)
	}
}

func (d *defects) http(c *Config) {
	d.target(c.Target)
	if _, err := url.ParseRequestURI(c.Path); err != nil || c.Path[0] != '/' || !visible(c.Path) {
		d.add("path", c.Path, "not a path", `"/" or "/health?full=1"`)
	}
	if c.Host != "" && (!visible(c.Host) || strings.ContainsAny(c.Host, "/@?#")) {
		d.add("host", c.Host, "not a host name", `"www.example.org" or "www.example.org:8080"`)
	}
	if c.Status < 200 || c.Status > 599 {
		d.add("status", strconv.Itoa(c.Status), "not a final status", "200 to 599")
	}
	if len(c.Body) > maxText {
		d.add("body", c.Body, "too long", "a text of at most 1024 octets")
	}
	if c.Kind == kindHTTPS && c.TLSName != "" && (!visible(c.TLSName) || strings.ContainsAny(c.TLSName, "/@?#[]")) {
		d.add("tls_name", c.TLSName, "not a host name", `"www.example.org"`)
	}
}

// visible tells whether text is short, and nothing but visible ASCII: it cannot
// end a line of a request.
func visible(text string) bool {
	return len(text) <= maxText && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (d *defects) dns(c *Config) {
	d.target(c.Target)
	if _, ok := dns.IsDomainName(c.Query); !ok || c.Query == "" {
		d.add("query", c.Query, "not a domain name", `the zone, such as "routes.example.org"`)
	}
	d.oneOf("type", c.Type, "A", "AAAA", "SOA", "NS", "TXT")
	d.oneOf("transport", c.Transport, "udp", "tcp")
	d.oneOf("expect", c.Expect, expectNoError, expectRecords, expectReply)
}

func (d *defects) exec(command []string) {
	if len(command) == 0 {
		d.add("command", "", "missing", `["/usr/local/bin/check", "--short"]`)
		return
	}
	if !filepath.IsAbs(command[0]) {
		d.add("command[0]", command[0], "not a full path", `one such as "/usr/local/bin/check"`)
	}
	for i, arg := range command {
		if strings.ContainsRune(arg, 0) {
			d.add("command["+strconv.Itoa(i)+"]", arg, "has a NUL", "an argument without")
		}
	}
}

// strays finds settings that another kind would have.
func (d *defects) strays(c *Config) {
	asked, web := []string{kindHTTP, kindHTTPS, kindTCP, kindDNS}, []string{kindHTTP, kindHTTPS}
	for _, s := range []struct {
		key   string
		set   bool
		kinds []string
	}{
		{"target", c.Target != "", asked},
		{"path", c.Path != "", web},
		{"host", c.Host != "", web},
		{"status", c.Status != 0, web},
		{"body", c.Body != "", web},
		{"tls_name", c.TLSName != "", []string{kindHTTPS}},
		{"insecure", c.Insecure, []string{kindHTTPS}},
		{"query", c.Query != "", []string{kindDNS}},
		{"type", c.Type != "", []string{kindDNS}},
		{"transport", c.Transport != "", []string{kindDNS}},
		{"expect", c.Expect != "", []string{kindDNS}},
		{"command", len(c.Command) > 0, []string{kindExec}},
	} {
		if s.set && !slices.Contains(s.kinds, c.Kind) {
			d.add(s.key, "", "not of kind "+c.Kind, "no such key, or kind "+strings.Join(s.kinds, ", "))
		}
	}
}

func (d *defects) times(c *Config) {
	within := func(key string, v, least, most time.Duration) bool {
		if v < least || v > most {
			d.add(key, v.String(), "out of range", least.String()+" to "+most.String())
			return false
		}
		return true
	}
	within("hold_down", c.HoldDown, time.Millisecond, longest)
	// Each has its default from those before it. A measurement that takes its time
	// must not end the lease of a prober that is well.
	_ = within("interval", c.Interval, shortest, longest) &&
		within("timeout", c.Timeout, shortest, longest) &&
		within("lease", c.Lease, 2*(c.Interval+c.Timeout), 6*longest)
}

// counts finds what is wrong with how many measurements have to pass, or fail.
func (d *defects) counts(c *Config) {
	within := func(key string, n, least, most int, what string) bool {
		if n < least || n > most {
			d.add(key, strconv.Itoa(n), "out of range", strconv.Itoa(least)+" to "+strconv.Itoa(most)+what)
			return false
		}
		return true
	}
	if !c.windowed() {
		within("rise", c.Rise, 1, mostInRow, "")
		within("fall", c.Fall, 1, mostInRow, "")
		return
	}
	for _, row := range []struct {
		key string
		n   int
	}{{"rise", c.Rise}, {"fall", c.Fall}} {
		if row.n != 0 {
			d.add(row.key, strconv.Itoa(row.n), "beside window, threshold or initial", "rise and fall, or those")
		}
	}
	_ = within("window", *c.Window, 1, steering.MaxWindow, "") &&
		within("threshold", *c.Threshold, 1, *c.Window, ", the window") &&
		within("initial", *c.Initial, 0, *c.Window, ", the window")
}
