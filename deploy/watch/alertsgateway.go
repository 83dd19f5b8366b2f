package watch

func gatewayAlerts() []Alert {
	at := func(more ...string) map[string]string {
		out := map[string]string{"instance": "a:8055", "site": "west"}
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
		}
		return out
	}
	return []Alert{
		{
			Name: "RazorGatewayIsolated", For: "1m", Severity: Critical,
			Expr:        `sum by (instance, site) (razor_gateway_peer_up) == 0 unless on (instance) razor_gateway_drain_stage > 0`,
			Summary:     "The gateway {{ $labels.instance }} has no BGP session: it announces nothing",
			Description: "razor status has the last error of each peer; then the interfaces and the routers.",
			Fires:       map[string]string{`razor_gateway_peer_up{instance="a:8055",site="west",peer="tor1"}`: "0x30", `razor_gateway_drain_stage{instance="a:8055",site="west"}`: "0x30"},
			Quiet:       map[string]string{`razor_gateway_peer_up{instance="a:8055",site="west",peer="tor1"}`: "0x30", `razor_gateway_drain_stage{instance="a:8055",site="west"}`: "2x30"},
			Labels:      at(),
		},
		{
			Name: "RazorPeerDown", Expr: `razor_gateway_peer_up == 0 unless on (instance) razor_gateway_drain_stage > 0`, For: "2m", Severity: Warning,
			Summary:     "The BGP session of {{ $labels.instance }} with {{ $labels.peer }} is down",
			Description: "razor status has the last error of the peer and since when, and whether BFD sees it.",
			Fires:       one(`razor_gateway_peer_up{instance="a:8055",site="west",peer="tor1"}`, "1 0x30"), Quiet: one(`razor_gateway_peer_up{instance="a:8055",site="west",peer="tor1"}`, "1x30"),
			Labels: at("peer", "tor1"),
		},
		{
			Name: "RazorPeerHeldOff", Expr: `razor_gateway_peer_held_off == 1`, For: "1m", Severity: Warning,
			Summary:     "{{ $labels.instance }} has the peer {{ $labels.peer }} wait, as its sessions keep failing by its fault",
			Description: "razor status has the error; razor_gateway_peer_errors_total counts them by reason.",
			Fires:       one(`razor_gateway_peer_held_off{instance="a:8055",site="west",peer="tor1"}`, "1x30"), Quiet: one(`razor_gateway_peer_held_off{instance="a:8055",site="west",peer="tor1"}`, "0x30"),
			Labels: at("peer", "tor1"),
		},
		{
			Name: "RazorBFDDown", Expr: `razor_gateway_bfd_session_up == 0 unless on (instance) razor_gateway_drain_stage > 0`, For: "2m", Severity: Warning,
			Summary:     "BFD of {{ $labels.instance }} does not hear {{ $labels.peer }}",
			Description: "razor status; does the router run BFD for us, and is the path there (ping, interface counters)?",
			Fires:       one(`razor_gateway_bfd_session_up{instance="a:8055",site="west",peer="fe80::1"}`, "0x30"), Quiet: one(`razor_gateway_bfd_session_up{instance="a:8055",site="west",peer="fe80::1"}`, "1x30"),
			Labels: at("peer", "fe80::1"),
		},
		{
			Name: "RazorNoAnnouncer", For: "1m", Severity: Critical,
			Expr:        `sum by (set) (razor_gateway_prefixes{state="announced"}) == 0 and sum by (set) (razor_gateway_prefixes) > 0`,
			Summary:     "No gateway announces the prefixes of {{ $labels.set }}",
			Description: "razor status on each gateway says why: a probe that is down, no backend, drained by hand. Lowered ones still carry traffic.",
			Fires:       map[string]string{`razor_gateway_prefixes{instance="a:8055",set="dns",state="announced"}`: "0x30", `razor_gateway_prefixes{instance="a:8055",set="dns",state="withdrawn"}`: "2x30"},
			Quiet:       map[string]string{`razor_gateway_prefixes{instance="a:8055",set="dns",state="withdrawn"}`: "2x30", `razor_gateway_prefixes{instance="b:8055",set="dns",state="announced"}`: "2x30"},
			Labels:      map[string]string{"set": "dns"},
		},
		{
			Name: "RazorPrefixesNotAnnounced", For: "5m", Severity: Warning,
			Expr:        `razor_gateway_prefixes{state!="announced"} > 0 unless on (instance) razor_gateway_drain_stage > 0`,
			Summary:     "Prefixes of {{ $labels.set }} are {{ $labels.state }} at {{ $labels.instance }}",
			Description: "razor status says of every prefix why.",
			Fires:       one(`razor_gateway_prefixes{instance="a:8055",site="west",set="dns",state="lowered"}`, "2x30"),
			Quiet:       map[string]string{`razor_gateway_prefixes{instance="a:8055",site="west",set="dns",state="lowered"}`: "0x30", `razor_gateway_prefixes{instance="a:8055",site="west",set="dns",state="announced"}`: "2x30"},
			Labels:      at("set", "dns", "state", "lowered"),
		},
		{
			Name: "RazorSpeakerDied", Unseen: "none died", Expr: `increase(razor_gateway_speaker_crashes_total[15m]) > 0`, For: "0m", Severity: Warning,
			Summary:     "A BGP speaker of {{ $labels.instance }} died, of the peer {{ $labels.peer }}",
			Description: "The next one keeps the routes. The log has its last words; if it goes on, look at what the peer sends.",
			Fires:       one(`razor_gateway_speaker_crashes_total{instance="a:8055",site="west",peer="tor1"}`, "0+1x30"), Quiet: one(`razor_gateway_speaker_crashes_total{instance="a:8055",site="west",peer="tor1"}`, "2x30"),
			Labels: at("peer", "tor1"),
		},
		{
			Name: "RazorMalformedUpdates", Unseen: "the peers break no rules", Expr: `increase(razor_gateway_peer_malformed_updates_total[15m]) > 0`, For: "0m", Severity: Info,
			Summary:     "{{ $labels.peer }} sends {{ $labels.instance }} updates that break RFC 7606",
			Description: "They are ignored, and nothing that a peer announces is imported. The log names the attribute: tell who runs the router.",
			Fires:       one(`razor_gateway_peer_malformed_updates_total{instance="a:8055",site="west",peer="tor1"}`, "0+1x30"), Quiet: one(`razor_gateway_peer_malformed_updates_total{instance="a:8055",site="west",peer="tor1"}`, "2x30"),
			Labels: at("peer", "tor1"),
		},
		{
			Name: "RazorGatewayDrainForgotten", Expr: `razor_gateway_drain_stage > 0`, For: "1d", Severity: Info,
			Summary:     "{{ $labels.instance }} has been drained for a day",
			Description: "razor status says by whom and why; razor undrain gateway announces again.",
			Fires:       one(`razor_gateway_drain_stage{instance="a:8055",site="west"}`, "2x1500"), Quiet: one(`razor_gateway_drain_stage{instance="a:8055",site="west"}`, "2x1000 0x500"),
			Labels: at(),
		},
		{
			Name: "RazorEdgeHealthNotTold", Unseen: "gateways that tell nothing", Expr: `razor_gateway_edge_health_age_seconds > 10`, For: "10s", Severity: Warning,
			Summary:     "{{ $labels.instance }} cannot tell nameservers how its edge is",
			Description: "While other gateways can, the edge is taken for down. razor status has the error of Redis: is the primary there, and may the account write <name>:HEALTH?",
			Fires:       one(`razor_gateway_edge_health_age_seconds{instance="a:8055",site="west"}`, "0+60x30"), Quiet: one(`razor_gateway_edge_health_age_seconds{instance="a:8055",site="west"}`, "1x30"),
			Labels: at(),
		},
		{
			Name: "RazorBlackholesBeyondLimit", Expr: `razor_gateway_blackholes_refused > 0`, For: "1m", Severity: Warning,
			Summary:     "{{ $labels.instance }} does not announce all attacked prefixes: there are more than blackhole.limit",
			Description: "razor status shows those that are announced. Take ended ones off the BLACKHOLE lists, or raise the limit if the routers take more.",
			Fires:       one(`razor_gateway_blackholes_refused{instance="a:8055",site="west"}`, "3x30"), Quiet: one(`razor_gateway_blackholes_refused{instance="a:8055",site="west"}`, "0x30"),
			Labels: at(),
		},
		{
			Name: "RazorMembersNotAnnounced", Expr: `razor_gateway_members_refused > 0`, For: "15m", Severity: Warning,
			Summary:     "{{ $labels.instance }} must not announce some members of its lists",
			Description: "razor status names them, and why: outside of allowed, too wide, not unicast.",
			Fires:       one(`razor_gateway_members_refused{instance="a:8055",site="west"}`, "1x40"), Quiet: one(`razor_gateway_members_refused{instance="a:8055",site="west"}`, "0x40"),
			Labels: at(),
		},
		{
			Name: "RazorProbeDown", Expr: `razor_probe_up == 0`, For: "2m", Severity: Warning,
			Summary:     "The probe {{ $labels.probe }} is down at {{ $labels.instance }}",
			Description: "razor status (of a gateway) or razor agent status has its last result.",
			Fires:       one(`razor_probe_up{instance="a:8055",site="west",probe="dns"}`, "0x30"), Quiet: one(`razor_probe_up{instance="a:8055",site="west",probe="dns"}`, "1x30"),
			Labels: at("probe", "dns"),
		},
	}
}
