// Package gateway is the host's side of announcing VIPs: who the gateway is to its
// BGP peers, and the VIPs that the host takes for its own.
package gateway
