package balancer

// Hop is how a packet leaves for its next router.
type Hop struct {
	Destination [6]byte // MAC address
	Source      [6]byte
	Index       int    // of the interface; 0: not resolved
	VLAN        uint16 // 0: no tag
	MTU         uint16 // of the path, for the packet with what was added
}
