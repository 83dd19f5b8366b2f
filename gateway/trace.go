package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/razor-steering/razor/gateway/balancer"
)

// TraceOptions are which packets are traced, in the words of the command line. What is ""
// is all.
type TraceOptions struct {
	VIP     string
	Client  string // address or prefix
	Reasons []string
	Every   uint32 // one of so many packets is looked at
	Count   int    // lines after which it ends; 0 is never
	File    string // for frames, "-" is the output; "" for none
}

// toOutput is the file that stands for the output.
const toOutput = "-"

// Trace writes to out what the balancer of this host does with packets, a line for each,
// until ctx ends or there are enough; how many there are no lines of goes to remarks. The
// gateway's process need not run.
func Trace(ctx context.Context, c *Config, o TraceOptions, out, remarks io.Writer) (err error) {
	f, err := o.filter()
	if err != nil {
		return err
	}
	t, err := balancer.OpenTracer(c.Dataplane.Pins, f, c.traceNames())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	write, closeFile, err := o.writer(out)
	if err != nil {
		return err
	}
	lines := 0
	err = t.Run(ctx, func(r *balancer.TraceRecord) (bool, error) {
		lines++
		return lines != o.Count, write(r)
	})
	if err = errors.Join(err, closeFile()); err != nil {
		return err
	}
	lost, err := t.Losses()
	if err == nil {
		_, err = io.WriteString(remarks, summary(lines, lost))
	}
	return err
}

// filter reads what was asked for.
func (o *TraceOptions) filter() (f balancer.TraceFilter, err error) {
	f.Reasons, f.Every = o.Reasons, o.Every
	if o.Every == 0 {
		return f, errors.New("--every 0: want 1 or more")
	}
	if o.Count < 0 {
		return f, fmt.Errorf("--count %d: want 0 or more", o.Count)
	}
	if o.VIP != "" {
		if f.VIP, err = balancer.ParseVIP(o.VIP); err != nil {
			return f, fmt.Errorf("--vip %q: %w, want such as 198.51.100.1:443/tcp", o.VIP, err)
		}
	}
	if o.Client != "" {
		if f.Client, err = clientPrefix(o.Client); err != nil {
			return f, fmt.Errorf("--client %q: %w", o.Client, err)
		}
	}
	return f, nil
}

// clientPrefix reads an address or a prefix.
func clientPrefix(text string) (p netip.Prefix, err error) {
	if p, err = netip.ParsePrefix(text); err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return p, errors.New("neither an address nor a prefix")
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, nil
}

// writer is what a record is given to: lines are not where the frames are.
func (o *TraceOptions) writer(out io.Writer) (write func(*balancer.TraceRecord) error, closeFile func() error, err error) {
	line := func(r *balancer.TraceRecord) error {
		_, err := fmt.Fprintln(out, r)
		return err
	}
	closeFile = func() error { return nil }
	if o.File == "" {
		return line, closeFile, nil
	}
	w := out
	if o.File != toOutput {
		file, err := os.OpenFile(o.File, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return nil, nil, err
		}
		w, closeFile = file, file.Close
	}
	capture, err := balancer.NewCapture(w)
	switch {
	case err != nil:
		return nil, nil, errors.Join(err, closeFile())
	case o.File == toOutput:
		return capture.Write, closeFile, nil
	}
	return func(r *balancer.TraceRecord) error { return errors.Join(capture.Write(r), line(r)) }, closeFile, nil
}

// traceNames are the names of the configuration's backends, and of sites for the entries
// of their gateways, by their SIDs. Those that are not in the file are what a gateway has
// kept last; what it has not, has no name.
func (c *Config) traceNames() map[netip.Addr]string {
	names := map[netip.Addr]string{}
	var backends map[string]map[netip.Addr]member
	_ = readKept(filepath.Join(c.StateDir, membersFile), &backends)
	for name := range c.memberships() {
		for sid, is := range backends[name] {
			names[sid] = is.Name
		}
	}
	var kept map[string]keyedSite
	if c.ConsulSites != nil {
		_ = readKept(filepath.Join(c.StateDir, consulSitesFile), &kept)
	}
	sites := slices.Clone(c.Sites)
	for _, s := range kept {
		sites = append(sites, s.SiteConfig)
	}
	for i := range sites {
		site := sites[i].plan()
		for _, entry := range site.Gateways {
			names[entry] = site.Name
		}
	}
	for i := range c.Services {
		for j := range c.Services[i].Backends {
			b := &c.Services[i].Backends[j]
			if sid, ok := b.sid(); ok {
				names[sid] = b.Name
			}
		}
	}
	return names
}

// summary says how many packets there were lines of, and of which there were none.
func summary(lines int, lost balancer.TraceLosses) string {
	text := fmt.Sprintf("%d packets", lines)
	if lines == 1 {
		text = "1 packet"
	}
	var without []string
	for _, l := range []struct {
		n   uint64
		why string
	}{
		{lost.Limited, "above the limit of lines"},
		{lost.Full, "as lines were not taken fast enough"},
		{lost.Unseen, "not looked at, above the limit of that"},
	} {
		if l.n > 0 {
			without = append(without, fmt.Sprintf("%d %s", l.n, l.why))
		}
	}
	if len(without) > 0 {
		text += "; without a line: " + strings.Join(without, ", ")
	}
	return text + "\n"
}
