// The lab builds a network of sites in namespaces, with the real razor, FRR, nginx and
// Redis, and lets anyone break it: see help, and the topologies beside this file.
//
//	go run ./integration/lab failover
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/razor-steering/razor/integration/netlab"
)

const usage = `Usage: lab [flags] [TOPOLOGY]

Builds an emulated network in namespaces, shows it, and takes commands that break and
mend it. TOPOLOGY is a file, or one of: %s.

A file is txtar: a text; "-- topology --" and YAML; "-- story --" and commands, which
-story runs. Needs root. Nothing of the machine's own network is touched, and nothing is
left; several labs may run.

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) }) // a second one ends it at once
	os.Exit(command(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// options are the flags.
type options struct {
	razor, script         string
	http                  int
	story, clean, verbose bool
	prometheus            bool
}

// command is the program: it returns the exit status.
func command(ctx context.Context, args []string, in io.Reader, out, problems io.Writer) int {
	var o options
	flags := flag.NewFlagSet("lab", flag.ContinueOnError)
	flags.SetOutput(problems)
	flags.StringVar(&o.razor, "razor", "", "`file` of the razor to run; without it, and where the topology has clocks, it is built")
	flags.StringVar(&o.script, "script", "", "run the commands of a `file` instead of a prompt; - is standard input")
	flags.IntVar(&o.http, "http", 0, "have ports of 127.0.0.1 from this `port` on lead to a page of all gateways, and to theirs")
	flags.BoolVar(&o.prometheus, "prometheus", false, "run a Prometheus that asks all programs of the lab, with the rules of deploy/")
	flags.BoolVar(&o.story, "story", false, "run the topology's own story instead of a prompt")
	flags.BoolVar(&o.clean, "clean", false, "remove what labs left that were killed, and end; each start does that too")
	flags.BoolVar(&o.verbose, "v", false, "show each command that builds the network, as it can be typed")
	flags.Usage = func() {
		fmt.Fprintf(problems, usage, strings.Join(names(), ", "))
		flags.PrintDefaults()
		fmt.Fprintf(problems, "\nCommands:\n\n%s", help())
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if err := run(ctx, o, flags.Args(), in, out, problems); err != nil {
		fmt.Fprintln(problems, "lab:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, o options, args []string, in io.Reader, out, problems io.Writer) error {
	if len(args) > 1 {
		return fmt.Errorf("%q is too much: want one topology, behind the flags", args[1:])
	}
	if o.clean {
		return clean(out)
	}
	t, err := load(append(args, "failover")[0])
	if err != nil {
		return err
	}
	lines, err := commands(o, t, in)
	if err != nil {
		return err
	}
	if err := prepared(t); err != nil {
		return err
	}
	log := io.Discard
	if o.verbose {
		log = problems
	}
	if t.Clocks {
		o.razor, err = clocked(ctx, out)
	} else {
		o.razor, err = razorFile(ctx, o.razor, out)
	}
	if err != nil {
		return err
	}
	if o.razor == built() {
		defer os.Remove(o.razor)
	}
	fmt.Fprintf(out, "%s\n\n%s\n", t.About, t.picture())
	l, err := start(ctx, t, o.razor, out, log)
	if err != nil {
		return err
	}
	defer l.stop()
	if o.http != 0 {
		if err := l.doors(o.http); err != nil {
			return err
		}
	}
	if o.prometheus {
		if err := l.watch(); err != nil {
			return err
		}
	}
	if lines != nil {
		return l.play(lines, out)
	}
	return l.prompt(ctx, in)
}

// commands are those of the story or the script; nil is that people type them.
func commands(o options, t *Topology, in io.Reader) (lines []line, err error) {
	switch {
	case o.story && o.script != "":
		return nil, errors.New("-story and -script: want one of them")
	case o.story && t.story == nil:
		return nil, fmt.Errorf("%s has no section -- story --", t.Name)
	case o.story:
		lines = t.story
	case o.script != "":
		var text []byte
		if o.script == "-" {
			text, err = io.ReadAll(in)
		} else {
			text, err = os.ReadFile(o.script)
		}
		if err != nil {
			return nil, err
		}
		lines = script(o.script, 1, string(text))
	}
	return lines, checkScript(lines)
}

// prepared says what is missing on this machine.
func prepared(t *Topology) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root, for network namespaces and BPF: sudo make lab")
	}
	var missing []string
	for _, p := range []struct{ program, debian string }{
		{"ip", "iproute2"},
		{"ethtool", "ethtool"},
		{"mountpoint", "util-linux"},
		{"prlimit", "util-linux"},
		{"vtysh", "frr"},
		{"nginx", "nginx"},
		{"redis-server", "redis-server"},
		{"bird", "bird2"},
		{"nft", "nftables"},
	} {
		if _, err := exec.LookPath(p.program); err != nil && t.needs(p.program) {
			missing = append(missing, p.program+" (Debian: "+p.debian+")")
		}
	}
	if t.needsConsul() {
		if _, err := consulBinary(); err != nil {
			missing = append(missing, "consul (.ci/consul builds it)")
		}
	}
	if missing != nil {
		return fmt.Errorf("needs %s; install them", strings.Join(missing, ", "))
	}
	return nil
}

func (t *Topology) needsConsul() bool {
	return slices.ContainsFunc(t.Sites, func(s Site) bool { return s.Consul > 0 })
}

// needs tells whether the lab of the topology runs a program, of those that not all do.
func (t *Topology) needs(program string) bool {
	switch program {
	case "redis-server":
		return slices.ContainsFunc(t.Sites, func(s Site) bool { return s.Redis != "" })
	case "bird", "nft":
		return t.overlay()
	}
	return true
}

// built is where this process builds razor.
func built() string { return filepath.Join("/run", fmt.Sprintf("rz%d-0", os.Getpid())) }

// razorFile is the path of razor, which is built where none is named.
func razorFile(ctx context.Context, file string, out io.Writer) (string, error) {
	if file != "" {
		path, err := filepath.Abs(file)
		if err != nil {
			return "", err
		}
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("-razor: %w", err)
		}
		return path, nil
	}
	return buildRazor(ctx, out)
}

// buildRazor builds it, with further arguments of go build.
func buildRazor(ctx context.Context, out io.Writer, args ...string) (string, error) {
	from := time.Now()
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"build", "-o", built()}, args, []string{"github.com/razor-steering/razor"})...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build razor: %w\n%s", err, said)
	}
	fmt.Fprintf(out, "%-28s %5.1f s\n\n", "razor is built", time.Since(from).Seconds())
	return built(), nil
}

func clean(out io.Writer) error {
	removed, err := netlab.Sweep()
	for _, name := range removed {
		fmt.Fprintln(out, "removed", name)
	}
	return err
}

func help() string {
	var b strings.Builder
	for _, v := range verbs() {
		fmt.Fprintf(&b, "  %-44s %s\n", strings.TrimSpace(v.name+" "+v.args), v.does)
	}
	fmt.Fprintf(&b, "  %-44s %s\n  %-44s %s\n%s", "help", "this", "quit", "end the lab, as Control-D does", expectHelp)
	return b.String()
}

// prompt takes commands until there are no more, or ctx ends.
func (l *lab) prompt(ctx context.Context, in io.Reader) error {
	fmt.Fprintln(l.out, "Type help for the commands, status for how all is, quit to end.")
	typed := make(chan string)
	go func() { // ends with the program: nothing else ends a read of a terminal
		defer close(typed)
		for lines := bufio.NewScanner(in); lines.Scan(); {
			typed <- lines.Text()
		}
	}()
	for {
		fmt.Fprint(l.out, "lab> ")
		select {
		case <-ctx.Done():
			fmt.Fprintln(l.out, "\ninterrupted: the lab ends")
			return nil
		case text, ok := <-typed:
			if !ok || strings.TrimSpace(text) == "quit" {
				return nil
			}
			l.type1(strings.TrimSpace(text))
		}
	}
}

// type1 does what was typed, and says what is wrong.
func (l *lab) type1(text string) {
	c := line{text: text}
	if c.remark() {
		return
	}
	if text == "help" {
		fmt.Fprint(l.out, help())
		return
	}
	w, err := words(text)
	if err == nil {
		err = l.run(w)
	}
	if err != nil {
		fmt.Fprintln(l.out, err)
	}
}
