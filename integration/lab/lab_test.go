package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/integration/testhost"
)

// razorBinary is the program as users have it, built once, with the race detector where
// the tests have it.
var razorBinary = sync.OnceValues(func() (string, error) {
	file := filepath.Join(os.TempDir(), fmt.Sprintf("razor-in-lab-%d", os.Getpid()))
	args := []string{"build", "-o", file}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "../..")...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return file, err
})

// asProgram is in the environment of a test that is to be the program.
const asProgram = "RAZOR_TEST_AS_LAB"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	status := m.Run()
	_ = os.Remove(filepath.Join(os.TempDir(), fmt.Sprintf("razor-in-lab-%d", os.Getpid())))
	os.Exit(status)
}

// running has a place for each lab that may run at once: many of them are too much for a
// small machine.
var running = make(chan struct{}, 2)

// needed is razor for a lab. The test is skipped without what labs need, and waits until
// there are few others.
func needed(t *testing.T, topology *Topology) string {
	t.Helper()
	running <- struct{}{}
	t.Cleanup(func() { <-running })
	testhost.NeedsRoot(t)
	if err := prepared(topology); err != nil {
		if os.Getenv("RAZOR_TEST_REQUIRE") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	razor, err := razorBinary()
	if err != nil {
		t.Fatal(err)
	}
	return razor
}

// TestStories plays the story of each topology, as -story does.
func TestStories(t *testing.T) {
	t.Parallel()
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topology, err := load(name)
			if err != nil {
				t.Fatal(err)
			}
			razor := needed(t, topology)
			var out bytes.Buffer
			status := command(t.Context(), []string{"-razor", razor, "-story", name}, nil, &out, &out)
			t.Logf("%s", out.String())
			if status != 0 {
				t.Errorf("status %d", status)
			}
		})
	}
}

// small is a site that starts fast.
const small = `One site.

-- topology --
sites:
  - {site: west, as: 4200000100, gateways: 1, backends: 2, capacity: 10}
clients:
  - {client: people, site: west, keep: 4, open: 20}
`

// A prompt goes on after each mistake; what does not come to be is said with what was seen
// instead.
func TestPrompt(t *testing.T) {
	t.Parallel()
	razor := needed(t, &Topology{})
	file := filepath.Join(t.TempDir(), "small.txtar")
	if err := os.WriteFile(file, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	typed := `
nonsense
fail backend nobody
fail backend
load west 20
load west 100%
expect 20 connections at west
mark
expect no broken connections
expect at most 0 sent packets at west
fail backend west-1
expect 1 active backends at west
expect no broken connections at west-1
status
heal
expect 4 connections at west
expect 2 active backends at west
drain backend west-1
expect 1 draining backends at west
expect all new flows at west-2
undrain backend west-1
expect 2 active backends at west
exec west-2 hostname -I
exec west vtysh -c "show version"
logs nobody
quit
never
`
	var out bytes.Buffer
	status := command(t.Context(), []string{"-razor", razor, file}, strings.NewReader(typed), &out, &out)
	said := out.String()
	t.Log(said)
	if status != 0 {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{
		`no command "nonsense": want one of status, `,
		`no backend "nobody": want one of west-1, west-2`,
		"want backend, gateway or site, and a name",
		`"20": want 0% to 1000%`,
		"expect at most 0 sent packets at west: ",
		"expect no broken connections at west-1: ",
		" broke, the first of people with west-1: ",
		"FRRouting",
		`no host "nobody"`,
		"in service  yes        1 of 2",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("not said: %s", want)
		}
	}
	for _, no := range []string{"not within", `"never"`} {
		if strings.Contains(said, no) {
			t.Errorf("said: %s", no)
		}
	}
}

// What is wrong about a file is said with its position, before anything is built.
func TestBadTopologies(t *testing.T) {
	t.Parallel()
	const head = "-- topology --\n"
	const west = "sites:\n  - {site: west, as: 1}\n"
	for text, want := range map[string]string{
		"":                "bad.txtar: no section -- topology --",
		"about\n" + head:  "bad.txtar:3: the topology is empty",
		head + "sites: [": "bad.txtar:2:",
		head + "sites:\n  - {site: west, as: 1, gatewys: 2}\n":              `bad.txtar:3:25: unknown field "gatewys"`,
		head + "sites:\n  - {site: west, as: x}\n":                          "bad.txtar:3:22: ",
		head + "sites:\n  - {site: West, as: 1}\n":                          `bad.txtar:3:12: sites[0].site: "West": want 1 to 11 of`,
		head + "sites:\n  - {site: west, as: 1}\n  - {site: east, as: 1}\n": `bad.txtar:4:22: sites[1].as: 1: want a number that no other`,
		head + "sites:\n  - {site: west, as: 1}\n  - {site: west, as: 2}\n": `bad.txtar:4:12: sites[1].site: "west" is there twice`,
		head + "sites: []\n": "bad.txtar:2:8: sites: 0: want 1 to 8",
		head + "sites:\n  - {site: west, as: 1, gateways: 9}\n":                                                       "sites[0].gateways: 9: want 0 to 8",
		head + "sites:\n  - {site: west, as: 1, leaves: 2}\n":                                                         "sites[0].spines: 0 with 2 leaves",
		head + "sites:\n  - {site: west, as: 1, redis: replica}\n":                                                    "0 of them have redis: primary",
		head + "sites:\n  - {site: west, as: 1, dns: true}\n":                                                         "sites[0].dns: needs redis",
		head + "sites:\n  - {site: west, as: 1, exits: 2}\n":                                                          "sites[0].exits: 2 with 0 leaves and 0 spines: want leaves",
		head + "sites:\n  - {site: west, as: 1, exits: 1, leaves: 1}\n  - {site: east, as: 9}\ncables: [west east]\n": "sites[1].exits: 0 with 1 at west: want exits at all",
		head + "sites:\n  - {site: west, as: 1, exits: 1, leaves: 1}\n  - {site: east, as: 9, exits: 1, leaves: 1}\n": "cables: want sites with exits joined",
		head + "sites:\n  - {site: west, as: 1, min_healthy: 2}\n":                                                    "sites[0].min_healthy: 2: want 0 to 1",
		head + "sites:\n  - {site: west, as: 1, spill: [{to: west, share: 2}]}\n":                                     "sites[0].spill[0].share: 2: want 0 to 1",
		head + west + "cables: [west east]\n":                                                                         `bad.txtar:4:10: cables[0]: "west east": want the names of two sites`,
		head + west + "clients:\n  - {client: a, site: east, keep: -1}\n":                                             `bad.txtar:5:23: clients[0].site: "east": no such site`,
		head + west + "-- other --\n":                                                                                 `bad.txtar:4: section "other": want topology or story`,
		head + west + "-- topology --\n":                                                                              `bad.txtar:4: section "topology" is there twice`,
		head + west + "-- story --\n\nstatus\nexpect 3 things at west\nexpect no\n":                                   "bad.txtar:7: \"things\": want one of active backends, ",
		head + west + "-- story --\nbreak all\n":                                                                      `bad.txtar:5: no command "break"`,
		head + west + "-- story --\nexpect at least 200% new flows at west\n":                                         `bad.txtar:5: "200%": want no, some, all`,
		head + west + "-- story --\nexpect no broken connections of a of b\n":                                         `bad.txtar:5: "of" is there twice`,
		head + west + "-- story --\nexpect 3 addresses at west\n":                                                     "bad.txtar:5: addresses: want of NAME",
		head + west + "-- story --\nexpect 9% outgoing flows\n":                                                       "bad.txtar:5: outgoing flows: want at EXIT",
		head + west + "-- story --\nexpect 3 pins\n":                                                                  "bad.txtar:5: pins: want at SITE",
		head + west + "-- story --\nexec west \"a\n":                                                                  `bad.txtar:5: a " without its end`,
	} {
		topology, err := parse("bad.txtar", []byte(text))
		if err == nil {
			err = checkScript(topology.story)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q:\n%v\nwant %s", text, err, want)
		}
	}
}

func FuzzTopology(f *testing.F) {
	f.Add([]byte(small))
	for _, name := range names() {
		b, err := builtin.ReadFile("topologies/" + name + ".txtar")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		if topology, err := parse("fuzz.txtar", data); err == nil {
			_ = checkScript(topology.story)
			_ = topology.picture()
		}
	})
}

// The picture is as its topology is.
func TestPicture(t *testing.T) {
	t.Parallel()
	const text = `-- topology --
sites:
  - {site: west, as: 64500, gateways: 2, backends: 5, redis: primary, dns: true}
  - {site: east, as: 64510, leaves: 2, spines: 2, gateways: 1}
  - {site: north, as: 64520}
cables:
  - west east
  - north west
clients:
  - {client: ann, site: west}
  - {client: bob, site: west}
  - {client: carl, site: north}
`
	want := map[string]string{text: `                   ann
                   bob                                                                   carl
                     │                                                                     │
┌────────────────────┴───────────────────┐    ┌──────────────────────────────┐    ┌────────┴────────┐
│ west  AS 64500                         │────│ east  AS 64510               │    │ north  AS 64520 │
│ gateways  west-gw1 west-gw2            │    │ routers   2 spines, 2 leaves │    └─────────────────┘
│ backends  west-1 west-2 west-3 west-4  │    │ gateways  east-gw1           │
│           west-5                       │    └──────────────────────────────┘
│ services  west-svc  redis primary, dns │
└────────────────────────────────────────┘
and north ── west
`}[text]
	topology, err := parse("t.txtar", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := topology.picture(); got != want {
		t.Errorf("got\n%s", got)
	}
}

// A lab that cannot start, is interrupted, or is killed leaves nothing.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	razor := needed(t, &Topology{})
	file := filepath.Join(t.TempDir(), "small.txtar")
	if err := os.WriteFile(file, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("cannot start", func(t *testing.T) {
		said, pid := aLab(t, "/bin/false", file, func(*exec.Cmd) {})
		if !strings.Contains(said, "a program on west-") {
			t.Errorf("said: %s", said)
		}
		left(t, pid)
	})
	t.Run("interrupted", func(t *testing.T) {
		said, pid := aLab(t, razor, file, func(c *exec.Cmd) { _ = c.Process.Signal(os.Interrupt) })
		if !strings.Contains(said, "interrupted: the lab ends") {
			t.Errorf("said: %s", said)
		}
		left(t, pid)
	})
	t.Run("killed", func(t *testing.T) {
		_, pid := aLab(t, razor, file, func(c *exec.Cmd) { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
		// What removes it meanwhile may still be at it.
		var out bytes.Buffer
		for deadline := time.Now().Add(time.Minute); len(remains(pid)) > 0 && time.Now().Before(deadline); {
			if command(t.Context(), []string{"-clean"}, nil, &out, &out) != 0 {
				t.Log(out.String())
			}
		}
		left(t, pid)
	})
}

// aLab runs a lab as a process of its own until it takes commands, if it does, and then
// does something to it. It returns what was said once it has ended.
func aLab(t *testing.T, razor, file string, do func(*exec.Cmd)) (said string, pid int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-razor", razor, file)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	part := make([]byte, 4096)
	for {
		n, err := out.Read(part)
		text.Write(part[:n])
		if strings.HasSuffix(text.String(), "lab> ") {
			do(cmd)
		}
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	return text.String(), cmd.Process.Pid
}

// remains is what is there of the labs of a process.
func remains(pid int) []string {
	spaces, _ := filepath.Glob(fmt.Sprintf("/run/netns/rz%d-*", pid))
	dirs, _ := filepath.Glob(fmt.Sprintf("/run/rz%d-*", pid))
	mounts, _ := os.ReadFile("/proc/mounts")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, fmt.Sprintf("/run/rz%d-", pid)) {
			dirs = append(dirs, line)
		}
	}
	return append(spaces, dirs...)
}

func left(t *testing.T, pid int) {
	t.Helper()
	if all := remains(pid); len(all) > 0 {
		t.Errorf("left: %v", all)
	}
}
