package wire

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestBadPins(t *testing.T) {
	t.Parallel()
	six, vip := "[2001:db8:c::9]:1", "[2001:db8:53::1]:443"
	for _, tt := range []struct {
		name        string
		client, vip string
		protocol    uint8
		want        string
	}{
		{"no client", "", vip, 6, "client invalid IP: want the address of a host"},
		{"no VIP", six, "", 6, "VIP invalid IP: want"},
		{"two families", "192.0.2.1:1", vip, 6, "want one family"},
		{"an IPv4 address and a mapped one are one family", "192.0.2.1:1", "[::ffff:192.0.2.2]:1", 6, ""},
		{"unspecified", "[::]:1", vip, 6, "client ::: want"},
		{"unspecified IPv4", "192.0.2.1:1", "0.0.0.0:1", 6, "VIP 0.0.0.0: want"},
		{"unspecified mapped", "192.0.2.1:1", "[::ffff:0.0.0.0]:1", 6, "want the address of a host"},
		{"multicast", six, "[ff02::1]:1", 6, "VIP ff02::1: want"},
		{"multicast IPv4", "224.0.0.1:1", "192.0.2.1:1", 6, "client 224.0.0.1: want"},
		{"zone", "[fe80::1%eth0]:1", vip, 6, "client fe80::1%eth0: want"},
		{"no port of the client", "[2001:db8:c::9]:0", vip, 6, "port 0"},
		{"no port of the VIP", six, "[2001:db8:53::1]:0", 17, "port 0"},
		{"no protocol", six, vip, 0, "protocol 0: want TCP or UDP"},
		{"ICMP has no ports", six, vip, 58, "protocol 58: want TCP or UDP"},
		{"good", six, vip, 17, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := NewSealer(seven(t), LocatorOf(agent), gateway, noon)
			p := Pin{Protocol: tt.protocol}
			if tt.client != "" {
				p.Client = netip.MustParseAddrPort(tt.client)
			}
			if tt.vip != "" {
				p.VIP = netip.MustParseAddrPort(tt.vip)
			}
			_, err := s.SealPins(nil, []Pin{pins[0], p}, noon)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "pin 1: ") || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error is %v, want %q of pin 1", err, tt.want)
			}
		})
	}
}

// TestBadBodies: what a known key sealed and is no list of pins, is none, and nothing of
// it is taken.
func TestBadBodies(t *testing.T) {
	t.Parallel()
	good := pins[1].appendTo(pins[0].appendTo(nil))
	change := func(at int, to ...byte) []byte {
		b := slices.Clone(good)
		copy(b[pinBytes+at:], to)
		return b
	}
	for _, tt := range []struct {
		name string
		kind Type
		body []byte
		ok   bool
	}{
		{"good", TypePins, good, true},
		{"another type", TypePins + 1, good, false},
		{"none", TypePins, nil, false},
		{"a byte more", TypePins, append(slices.Clone(good), 0), false},
		{"a byte less", TypePins, good[:2*pinBytes-1], false},
		{"spare", TypePins, change(atSpare, 1), false},
		{"protocol", TypePins, change(atProtocol, 1), false},
		{"port", TypePins, change(atClientPort, 0, 0), false},
		{"client of another family", TypePins, change(atClient, 0x20), false},
		{"VIP of another family", TypePins, change(atVIP+10, 0xff, 0xfe), false},
		{"any target", TypePins, change(atTarget, 0xff, 0xff), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Message{Type: tt.kind, Body: tt.body}.AppendPins(pins[:1:1])
			if tt.ok && (err != nil || len(got) != 3) {
				t.Errorf("%d pins, %v", len(got), err)
			}
			if !tt.ok && (!errors.Is(err, Malformed) || !slices.Equal(got, pins[:1])) {
				t.Errorf("pins %v, %v", got, err)
			}
		})
	}
}
