package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	procStat    = "/proc/stat"
	procLoadavg = "/proc/loadavg"
)

// cpus are the CPUs of the host, whichever this process may run on.
func cpus() int {
	_, n, err := readStat()
	if err != nil || n == 0 {
		return runtime.NumCPU()
	}
	return n
}

// busy are the CPUs of the host that were busy since the measurement before.
type busy struct{ last ticks }

// ticks are the times of all CPUs together since the start.
type ticks struct{ busy, all uint64 }

func (b *busy) measure(context.Context) (float64, error) {
	now, n, err := readStat()
	if err != nil {
		return 0, err
	}
	was := b.last
	b.last = now
	if now.all <= was.all || now.busy < was.busy { // iowait may go back (proc(5))
		return 0, errNoTime
	}
	return float64(now.busy-was.busy) / float64(now.all-was.all) * float64(n), nil
}

// errNoTime is that there is nothing to compare with yet.
var errNoTime = errors.New("no time passed since the last measurement")

// readStat reads the times of all CPUs, and how many there are (proc(5)).
func readStat() (t ticks, n int, err error) {
	text, err := os.ReadFile(procStat)
	if err != nil {
		return t, 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, " ")
		switch {
		case !strings.HasPrefix(name, "cpu"):
			return t, n, nil
		case name != "cpu":
			n++
			continue
		}
		// user, nice, system, idle, iowait, irq, softirq, steal; guests are in the first.
		for i, word := range strings.Fields(rest) {
			v, err := strconv.ParseUint(word, 10, 64)
			if err != nil {
				return t, 0, fmt.Errorf("%s: %q is no time", procStat, word)
			}
			if i >= 8 {
				break
			}
			t.all += v
			if i != 3 && i != 4 {
				t.busy += v
			}
		}
	}
	return t, n, nil
}

// group are the CPUs that a cgroup used since the measurement before.
type group struct {
	file string
	last time.Duration
	at   time.Time
}

func newGroup(dir string) *group { return &group{file: filepath.Join(dir, "cpu.stat")} }

func (g *group) measure(context.Context) (float64, error) {
	text, err := os.ReadFile(g.file)
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut("\n"+string(text), "\nusage_usec ")
	word, _, _ := strings.Cut(rest, "\n")
	usage, err := strconv.ParseInt(word, 10, 64)
	if !found || err != nil {
		return 0, fmt.Errorf("%s: no usage_usec; want that of a cgroup of version 2", g.file)
	}
	was, before := g.last, g.at
	g.last, g.at = time.Duration(usage)*time.Microsecond, time.Now()
	if before.IsZero() || g.last < was || !g.at.After(before) { // made anew
		return 0, errNoTime
	}
	return float64(g.last-was) / float64(g.at.Sub(before)), nil
}

// average is the load average of the last minute.
func average(context.Context) (float64, error) {
	text, err := os.ReadFile(procLoadavg)
	if err != nil {
		return 0, err
	}
	word, _, _ := strings.Cut(string(text), " ")
	f, err := strconv.ParseFloat(word, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is no average", procLoadavg, word)
	}
	return f, nil
}
