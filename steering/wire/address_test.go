package wire

import (
	"net/netip"
	"testing"
)

func TestAddress(t *testing.T) {
	t.Parallel()
	source := netip.MustParseAddr("2001:db8:5e:7:5205:0:1ab:cdef") // round and entropy are in it
	if got, want := LocatorOf(source).Address(), netip.MustParseAddr("2001:db8:5e:7:5205::"); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}
