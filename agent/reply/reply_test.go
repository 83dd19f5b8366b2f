package reply

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"pgregory.net/rapid"

	"github.com/razor-steering/razor/integration/testhost"
)

// goesOn is TCX_NEXT.
const goesOn = 1<<32 - 1

func loaded(t testing.TB, pins string) *Replies {
	t.Helper()
	testhost.NeedsRoot(t)
	r, err := Load(Options{Pins: pins})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run is what the program makes of a frame.
func run(t interface {
	Helper()
	Fatal(...any)
}, r *Replies, in []byte,
) (verdict uint32, out []byte) {
	t.Helper()
	out = make([]byte, len(in)+256)
	o := ebpf.RunOptions{Data: in, DataOut: out}
	verdict, err := r.Program().Run(&o)
	if err != nil {
		t.Fatal(err)
	}
	return verdict, o.DataOut
}

// A SYN+ACK from a VIP tells of segments that fit, wherever the option is; all else is as
// it was.
func TestClamp(t *testing.T) {
	t.Parallel()
	r := loaded(t, "")
	must(t, r.SetVIPs([]netip.Addr{vip4, vip6}))
	must(t, r.Set(Setting{Packet: 1356}))
	const mss4, mss6 = 1316, 1296
	for _, tt := range []struct {
		name    string
		flags   byte
		options []byte
		small   bool // the value is one that is lowered
	}{
		{"of Linux", syn | ack, []byte{2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7}, true},
		{"alone", syn, []byte{2, 4, 5, 0xb4}, true},
		{"of a jumbo frame", syn | ack, []byte{2, 4, 0x22, 0xd8}, true},
		{"at an odd place", syn | ack, []byte{1, 2, 4, 5, 0xb4, 1, 1, 1}, true},
		{"behind another", syn | ack, []byte{3, 3, 7, 2, 4, 5, 0xb4, 0}, true},
		{"the last", syn | ack, append(bytes.Repeat([]byte{1}, 36), 2, 4, 5, 0xb4), true},
		{"smaller", syn | ack, []byte{2, 4, 5, 0}, false},
		{"behind the end", syn | ack, []byte{0, 0, 0, 0, 2, 4, 5, 0xb4}, false},
		{"cut off", syn | ack, []byte{1, 2, 4, 5}, false},
		{"of another length", syn | ack, []byte{2, 6, 5, 0xb4, 1, 1, 1, 1}, false},
		{"behind one of no length", syn | ack, []byte{8, 0, 1, 1, 2, 4, 5, 0xb4}, false},
		{"behind one that is too long", syn | ack, []byte{8, 255, 1, 1, 2, 4, 5, 0xb4}, false},
		{"none", syn | ack, nil, false},
		{"no SYN", ack, []byte{2, 4, 5, 0xb4}, false},
	} {
		for _, family := range []struct {
			vip, client netip.Addr
			most        uint16
			header      int
		}{{vip4, client4, mss4, ip4Len}, {vip6, client6, mss6, ip6Len}} {
			in := segment(family.vip, family.client, tt.flags, tt.options)
			want := clamped(in, family.vip, family.client, tt.flags, tt.options, family.most)
			if changes := !bytes.Equal(in, want); changes != tt.small {
				t.Fatalf("%s: the model changes it: %v", tt.name, changes)
			}
			if verdict, got := run(t, r, in); verdict != goesOn || !bytes.Equal(got, want) {
				t.Errorf("%s from %v: verdict %d\n%x, want\n%x", tt.name, family.vip, verdict, got, want)
			}
			// The kernel runs no shorter ones.
			for n := etherLen + family.header; n < len(in); n++ {
				if verdict, got := run(t, r, in[:n]); verdict != goesOn || !bytes.Equal(got, in[:n]) {
					t.Errorf("%s from %v, %d bytes of it: verdict %d, %x", tt.name, family.vip, n, verdict, got)
				}
			}
			other := segment(family.client, family.vip, tt.flags, tt.options)
			if verdict, got := run(t, r, other); verdict != goesOn || !bytes.Equal(got, other) {
				t.Errorf("%s to %v: verdict %d, %x", tt.name, family.vip, verdict, got)
			}
		}
	}
	counts, err := r.Counts()
	must(t, err)
	if counts["clamped"] != 12 {
		t.Error(counts)
	}
	in := segment(vip4, client4, syn, []byte{2, 4, 5, 0xb4})
	must(t, r.SetVIPs(nil))
	if _, got := run(t, r, in); !bytes.Equal(got, in) {
		t.Error("from what is no VIP any more: ", got)
	}
}

// Whatever the options are, program and model agree.
func TestClampRandomly(t *testing.T) {
	t.Parallel()
	r := loaded(t, "")
	must(t, r.SetVIPs([]netip.Addr{vip4, vip6}))
	rapid.Check(t, func(t *rapid.T) {
		packet := rapid.IntRange(1, 9000).Draw(t, "packet")
		if err := r.Set(Setting{Packet: packet}); err != nil {
			t.Fatal(err)
		}
		from, to, headers := vip4, client4, headers4
		if rapid.Bool().Draw(t, "IPv6") {
			from, to, headers = vip6, client6, headers6
		}
		options := rapid.SliceOfN(rapid.OneOf(rapid.ByteRange(0, 8), rapid.Byte()), 0, mostOptions).Draw(t, "options")
		options = options[:len(options)/4*4]
		flags := rapid.SampledFrom([]byte{syn, syn | ack, ack}).Draw(t, "flags")
		in := segment(from, to, flags, options)
		want := clamped(in, from, to, flags, options, uint16(max(packet-headers, smallest)))
		if verdict, got := run(t, r, in); verdict != goesOn || !bytes.Equal(got, want) {
			t.Fatalf("verdict %d\n%x, want\n%x of\n%x", verdict, got, want, in)
		}
	})
}

// mostOptions is how many bytes of options a segment has.
const mostOptions = 40

// on are the programs on the way out of an interface.
func on(t *testing.T, index int) []link.AttachedProgram {
	t.Helper()
	q, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXEgress})
	must(t, err)
	return q.Programs
}

// The program stays on an interface when its process ends, and the next process puts its
// own in the place; what is left is gone.
func TestLife(t *testing.T) {
	t.Parallel()
	testhost.Enter(t)
	pins := testhost.BPFFS(t)
	add := func() *net.Interface {
		t.Helper()
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "eth0.5"
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}))
		i, err := net.InterfaceByName("eth0.5")
		must(t, err)
		return i
	}
	i := add()
	r := loaded(t, pins)
	must(t, r.SetVIPs([]netip.Addr{vip4}))
	must(t, r.Set(Setting{Packet: 1356}))
	must(t, r.Join(i))
	must(t, r.Join(i))
	first := on(t, i.Index)
	if len(first) != 1 {
		t.Fatal("attached: ", first)
	}
	must(t, r.Close())
	if got := on(t, i.Index); !slices.Equal(got, first) {
		t.Errorf("without a process: %v, before %v", got, first)
	}

	r = loaded(t, pins)
	if want, _ := (Setting{Packet: 1356}).entry(); r.setting != want {
		t.Error("the setting was forgotten: ", r.setting)
	}
	must(t, r.Join(i))
	next := on(t, i.Index)
	if len(next) != 1 || next[0].ID == first[0].ID {
		t.Errorf("taken over: %v, before %v", next, first)
	}
	if joined, err := r.Joined(); err != nil || !slices.Equal(joined, []string{"eth0.5"}) {
		t.Error("joined: ", joined, err)
	}

	must(t, r.Close())
	must(t, os.Rename(r.dir, filepath.Join(pins, "reply-1"))) // of a version with other maps
	r = loaded(t, pins)
	must(t, r.Join(i))
	left := next // the kernel takes a program off that nobody has pinned any more, a little later
	for end := time.Now().Add(30 * time.Second); (len(left) != 1 || left[0].ID == next[0].ID) && time.Now().Before(end); time.Sleep(time.Millisecond) {
		left = on(t, i.Index)
	}
	if len(left) != 1 || left[0].ID == next[0].ID {
		t.Errorf("in the place of another version: %v, before %v", left, next)
	}

	l, err := netlink.LinkByName("eth0.5")
	must(t, err)
	must(t, netlink.LinkDel(l))
	i = add()
	must(t, r.Join(i))
	if got := on(t, i.Index); len(got) != 1 {
		t.Error("made anew: ", got)
	}
	must(t, r.Leave("eth0.5"))
	if got := on(t, i.Index); len(got) != 0 {
		t.Error("left: ", got)
	}
	must(t, r.Unpin())
	if left, err := filepath.Glob(filepath.Join(pins, "*")); err != nil || len(left) > 0 {
		t.Error("pins: ", left, err)
	}
	if _, err := os.Stat(pins); err != nil {
		t.Error(err)
	}
	if !Able() {
		t.Error("this kernel was able")
	}
}
