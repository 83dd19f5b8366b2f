package integration

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/gateway/bfd"
	"github.com/razor-steering/razor/integration/netlab"
)

// bfdFolder is set in the environment of the process that TestBFDProcess is then:
// the folder of the files by which it is told what to do and says what it does.
const bfdFolder = "RAZOR_TEST_BFD"

// bfdProcess is a BFD speaker on a node, in a process of its own, which is ended
// and killed as a gateway is.
type bfdProcess struct {
	*netlab.Process

	lab  *netlab.Lab
	node *netlab.Node
}

// startBFD runs a speaker with sessions.
func startBFD(lab *netlab.Lab, node *netlab.Node, sessions ...bfd.Config) *bfdProcess {
	p := &bfdProcess{lab: lab, node: node}
	p.write(sessions)
	p.restart()
	return p
}

// restart runs it again when it has ended. What the last one handed over is gone
// on with.
func (p *bfdProcess) restart() {
	_ = os.Remove(filepath.Join(p.node.Dir, "status")) // what the last one said
	p.Process = p.node.Start("env", bfdFolder+"="+p.node.Dir, os.Args[0], "-test.run=^TestBFDProcess$", "-test.timeout=0")
}

// handOver ends it so that the next one can go on.
func (p *bfdProcess) handOver() {
	p.Signal(syscall.SIGUSR1)
	<-p.Ended
}

// adminDown takes all sessions down by will.
func (p *bfdProcess) adminDown() { p.Signal(syscall.SIGUSR2) }

func (p *bfdProcess) write(sessions []bfd.Config) {
	b, err := json.Marshal(sessions)
	if err == nil {
		err = os.WriteFile(filepath.Join(p.node.Dir, "sessions"), b, 0o644)
	}
	if err != nil {
		panic(err)
	}
}

// changes are all changes that the processes on the node told.
func (p *bfdProcess) changes() (out []bfd.Change) {
	f, err := os.Open(filepath.Join(p.node.Dir, "changes"))
	if err != nil {
		return nil
	}
	defer f.Close()
	d := json.NewDecoder(f)
	for {
		var c bfd.Change
		if d.Decode(&c) != nil {
			return out
		}
		out = append(out, c)
	}
}

// session is the one with a peer as it was a moment ago.
func (p *bfdProcess) session(peer netip.Addr) bfd.Status {
	b, _ := os.ReadFile(filepath.Join(p.node.Dir, "status"))
	var all []bfd.Status
	_ = json.Unmarshal(b, &all)
	for _, s := range all {
		if s.Peer == peer {
			return s
		}
	}
	return bfd.Status{}
}

// TestBFDProcess is no test, but the process of a bfdProcess.
func TestBFDProcess(t *testing.T) {
	folder := os.Getenv(bfdFolder)
	if folder == "" {
		return
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	file := func(name string) string { return filepath.Join(folder, name) }
	told, err := os.OpenFile(file("changes"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	speaker := bfd.New(bfd.Options{Changed: func(c bfd.Change) {
		b, _ := json.Marshal(c)
		_, _ = told.Write(append(b, '\n'))
	}}, slog.New(slog.NewTextHandler(os.Stderr, nil)), prometheus.NewRegistry())
	var peers []netip.Addr
	for _, c := range sessionsOf(t, file) {
		if err := speaker.Add(c); err != nil {
			t.Fatal(err)
		}
		peers = append(peers, c.Peer)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- speaker.Run(ctx) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
			return
		case <-tick.C:
			put(t, file("status"), speaker.Sessions())
		case s := <-signals:
			switch s {
			case syscall.SIGTERM:
				cancel()
			case syscall.SIGUSR1:
				put(t, file("resume"), speaker.Handover(ctx, 20*time.Second))
				cancel()
			case syscall.SIGUSR2:
				for _, p := range peers {
					speaker.AdminDown(p)
				}
			}
		}
	}
}

// sessionsOf are the sessions of the process, with what it is to go on with.
func sessionsOf(t *testing.T, file func(string) string) []bfd.Config {
	t.Helper()
	b, err := os.ReadFile(file("sessions"))
	if err != nil {
		t.Fatal(err)
	}
	var sessions []bfd.Config
	if err := json.Unmarshal(b, &sessions); err != nil {
		t.Fatal(err)
	}
	b, err = os.ReadFile(file("resume"))
	if err != nil {
		return sessions
	}
	_ = os.Remove(file("resume")) // it is for one process
	var resume []bfd.Resume
	if err := json.Unmarshal(b, &resume); err != nil {
		t.Fatal(err)
	}
	for i := range resume {
		for j := range sessions {
			if sessions[j].Peer == resume[i].Peer {
				sessions[j].Resume = &resume[i]
			}
		}
	}
	return sessions
}

// put replaces a file at once.
func put(t *testing.T, file string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(file+".new", b, 0o644)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		t.Fatal(err)
	}
}
