// Package agent is the role of a backend host: it keeps the endpoint on the interfaces
// that gateways send encapsulated packets to, and the VIPs on loopback, for as long as
// it runs. The endpoint itself is agent/segment; what is pinned goes on while the agent
// is started again.
package agent
