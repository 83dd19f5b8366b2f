package watch

func dataplaneAlerts() []Alert {
	at := func(label, value string) map[string]string {
		return map[string]string{"instance": "a:8055", "site": "west", label: value}
	}
	return []Alert{
		{
			Name: "RazorServiceFailsOver", Expr: `sum by (instance, site, service) (razor_gateway_backend_active) == 0`, For: "1m", Severity: Critical,
			Summary:     "{{ $labels.service }} has no backend for new flows at {{ $labels.instance }}: other sites get them, or nobody",
			Description: "razor status says of each backend why; razor undrain agent on one that was drained by hand.",
			Fires:       map[string]string{`razor_gateway_backend_active{instance="a:8055",site="west",service="web",backend="2001:db8::1"}`: "0x30", `razor_gateway_backend_active{instance="a:8055",site="west",service="web",backend="2001:db8::2"}`: "0x30"},
			Quiet:       map[string]string{`razor_gateway_backend_active{instance="a:8055",site="west",service="web",backend="2001:db8::1"}`: "0x30", `razor_gateway_backend_active{instance="a:8055",site="west",service="web",backend="2001:db8::2"}`: "1x30"},
			Labels:      at("service", "web"),
		},
		{
			Name: "RazorBackendSilent", Expr: `max by (site, backend) (razor_gateway_backend_silent) == 1`, For: "1m", Severity: Warning,
			Summary:     "The agent of {{ $labels.backend }} at site {{ $labels.site }} is silent: its host is taken for dead",
			Description: "Is the host there, does razor agent run on it (razor agent status), does UDP port 5205 pass between them?",
			Fires:       one(`razor_gateway_backend_silent{instance="a:8055",site="west",backend="2001:db8::1"}`, "1x30"), Quiet: one(`razor_gateway_backend_silent{instance="a:8055",site="west",backend="2001:db8::1"}`, "0x30"),
			Labels: map[string]string{"site": "west", "backend": "2001:db8::1"},
		},
		{
			Name: "RazorBackendDown", Expr: `max by (site, service, backend) (razor_gateway_backend_health) == 0`, For: "2m", Severity: Warning,
			Summary:     "{{ $labels.service }} is down on {{ $labels.backend }} at site {{ $labels.site }}",
			Description: "razor agent status on the backend has the result of its probes.",
			Fires:       one(`razor_gateway_backend_health{instance="a:8055",site="west",service="web",backend="2001:db8::1"}`, "0x30"), Quiet: one(`razor_gateway_backend_health{instance="a:8055",site="west",service="web",backend="2001:db8::1"}`, "-1x30"),
			Labels: map[string]string{"site": "west", "service": "web", "backend": "2001:db8::1"},
		},
		{
			Name: "RazorBackendUnreachable", Expr: `razor_gateway_backend_reachable == 0`, For: "1m", Severity: Warning,
			Summary:     "{{ $labels.instance }} has no way to {{ $labels.backend }}",
			Description: "razor status says why; ip route get to the SID, ip neigh. The gateway of an entry of another site may have died.",
			Fires:       one(`razor_gateway_backend_reachable{instance="a:8055",site="west",backend="2001:db8::1"}`, "0x30"), Quiet: one(`razor_gateway_backend_reachable{instance="a:8055",site="west",backend="2001:db8::1"}`, "1x30"),
			Labels: at("backend", "2001:db8::1"),
		},
		{
			Name: "RazorAgentsDisbelieved", Expr: `razor_gateway_service_agents_disbelieved == 1`, For: "1m", Severity: Critical,
			Summary:     "So many agents of {{ $labels.service }} report trouble to {{ $labels.instance }} that they are not believed",
			Description: "razor status says what they report. One cause that all share (a probe, the network between) is likelier than many broken hosts.",
			Fires:       one(`razor_gateway_service_agents_disbelieved{instance="a:8055",site="west",service="web"}`, "1x30"), Quiet: one(`razor_gateway_service_agents_disbelieved{instance="a:8055",site="west",service="web"}`, "0x30"),
			Labels: at("service", "web"),
		},
		{
			Name: "RazorMissBudget", Expr: `rate(razor_gateway_packets_total{result="budget"}[5m]) > 1`, For: "5m", Severity: Warning,
			Summary:     "{{ $labels.instance }} drops packets that nobody has, as more miss than miss_budget lets ask",
			Description: "razor gateway trace --reason budget shows whose they are: a flood of packets without a flow, or routes that moved many flows at once.",
			Fires:       one(`razor_gateway_packets_total{instance="a:8055",site="west",result="budget",dropped="true"}`, "0+600x30"), Quiet: one(`razor_gateway_packets_total{instance="a:8055",site="west",result="budget",dropped="true"}`, "90x30"),
			Labels: map[string]string{"instance": "a:8055", "site": "west", "result": "budget", "dropped": "true"},
		},
		{
			Name: "RazorPinsDisplaced", Expr: `rate(razor_gateway_pins_ended_total{reason="displaced"}[5m]) > 0`, For: "5m", Severity: Warning,
			Summary:     "{{ $labels.instance }} has more flows to pin than there is room for",
			Description: "Flows are found all the same, with more work. Many pins mean that many flows are away from their rows: razor status, and what changed lately.",
			Fires:       one(`razor_gateway_pins_ended_total{instance="a:8055",site="west",reason="displaced"}`, "0+60x30"), Quiet: one(`razor_gateway_pins_ended_total{instance="a:8055",site="west",reason="displaced"}`, "60x30"),
			Labels: at("reason", "displaced"),
		},
		{
			Name: "RazorDataplaneDrops", For: "5m", Severity: Critical,
			Expr:        `sum by (instance, site, result) (rate(razor_gateway_packets_total{result=~"no_backend|no_neighbour|no_headroom|relay|too_big_untold"}[5m])) > 1`,
			Summary:     "{{ $labels.instance }} drops packets of clients: {{ $labels.result }}",
			Description: "razor gateway trace --reason {{ $labels.result }} shows them; razor check names what is wrong with interfaces, MTU and routes.",
			Fires:       one(`razor_gateway_packets_total{instance="a:8055",site="west",result="no_neighbour",dropped="true"}`, "0+600x30"), Quiet: one(`razor_gateway_packets_total{instance="a:8055",site="west",result="flags",dropped="true"}`, "0+600x30"),
			Labels: at("result", "no_neighbour"),
		},
		{
			Name: "RazorOutsiders", Expr: `rate(razor_gateway_packets_total{result="outsider"}[5m]) > 1`, For: "5m", Severity: Warning,
			Summary:     "Packets from outside of the SR domain reach SIDs of {{ $labels.instance }}",
			Description: "They are dropped. Exits have to filter sr_block as source and destination (RFC 8754 section 5); razor gateway trace --reason outsider shows where they come from.",
			Fires:       one(`razor_gateway_packets_total{instance="a:8055",site="west",result="outsider",dropped="true"}`, "0+600x30"), Quiet: one(`razor_gateway_packets_total{instance="a:8055",site="west",result="outsider",dropped="true"}`, "90x30"),
			Labels: map[string]string{"instance": "a:8055", "site": "west", "result": "outsider", "dropped": "true"},
		},
		{
			Name: "RazorKeysDiffer", For: "5m", Severity: Critical,
			Expr:        `sum by (instance, site, reason) (rate(razor_gateway_report_refusals_total{reason=~"unknown_key|forged|version"}[5m])) > 0`,
			Summary:     "{{ $labels.instance }} cannot believe its agents: {{ $labels.reason }}",
			Description: "key_file is not the same on all gateways and agents, or somebody forges reports. SIGHUP reads it again.",
			Fires:       one(`razor_gateway_report_refusals_total{instance="a:8055",site="west",reason="unknown_key"}`, "0+60x30"), Quiet: one(`razor_gateway_report_refusals_total{instance="a:8055",site="west",reason="unknown_key"}`, "60x30"),
			Labels: at("reason", "unknown_key"),
		},
		{
			Name: "RazorClocksDrift", For: "5m", Severity: Warning, Unseen: "no agent has spoken yet",
			Expr:        `max by (instance, site) (abs(razor_gateway_backend_clock_seconds)) > 5`,
			Summary:     "The clock of an agent is more than 5 s away from that of {{ $labels.instance }}",
			Description: "Nothing is lost below 30 s; beyond, its backend gets no new flows. razor_gateway_backend_clock_seconds says whose it is; chronyc tracking there and on the gateway.",
			Fires:       one(`razor_gateway_backend_clock_seconds{instance="a:8055",site="west",backend="b"}`, "-6x30"), Quiet: one(`razor_gateway_backend_clock_seconds{instance="a:8055",site="west",backend="b"}`, "-4x30"),
			Labels: map[string]string{"instance": "a:8055", "site": "west"},
		},
		{
			Name: "RazorClocksDiffer", For: "5m", Severity: Critical,
			Expr:        `sum by (instance, site, reason) (rate(razor_gateway_report_refusals_total{reason=~"stale|early"}[5m])) > 0`,
			Summary:     "Clocks of agents are more than 30 s away from that of {{ $labels.instance }} ({{ $labels.reason }})",
			Description: "chronyc tracking on the gateway, and on the hosts whose clocks razor status shows.",
			Fires:       one(`razor_gateway_report_refusals_total{instance="a:8055",site="west",reason="early"}`, "0+60x30"), Quiet: one(`razor_gateway_report_refusals_total{instance="a:8055",site="west",reason="overtaken"}`, "0+60x30"),
			Labels: at("reason", "early"),
		},
		{
			Name: "RazorMembershipHeld", Expr: `razor_gateway_membership_held == 1`, For: "5m", Severity: Warning, Unseen: inTheFile,
			Summary:     "{{ $labels.instance }} does not obey all that Consul says of the backends of {{ $labels.service }}",
			Description: "razor status says what is held and why. Many backends left Consul at once: were they meant to?",
			Fires:       one(`razor_gateway_membership_held{instance="a:8055",site="west",service="web"}`, "1x30"), Quiet: one(`razor_gateway_membership_held{instance="a:8055",site="west",service="web"}`, "0x30"),
			Labels: at("service", "web"),
		},
		{
			Name: "RazorMembershipNotAnswered", Expr: `rate(razor_gateway_membership_failures_total[5m]) > 0`, For: "5m", Severity: Warning, Unseen: inTheFile,
			Summary:     "Consul does not answer {{ $labels.instance }} for backends",
			Description: "consul members on its host, and the log of the gateway. The backends stay as they are.",
			Fires:       one(`razor_gateway_membership_failures_total{instance="a:8055",site="west"}`, "0+3x30"), Quiet: one(`razor_gateway_membership_failures_total{instance="a:8055",site="west"}`, "3x30"),
			Labels: map[string]string{"instance": "a:8055", "site": "west"},
		},
		{
			Name: "RazorNobodyDecides", For: "2m", Severity: Warning,
			Expr:        `sum by (site) (razor_gateway_decides unless on (instance) razor_gateway_drain_stage > 0) == 0`,
			Summary:     "No gateway of the site {{ $labels.site }} decides",
			Description: "Tables stay as they are, but for dead backends. razor status says what Consul tells: consul members on the hosts of the gateways, and the lock (consul_lock) in Consul.",
			Fires:       map[string]string{`razor_gateway_decides{instance="a:8055",site="west"}`: "1 0x30", `razor_gateway_decides{instance="b:8055",site="west"}`: "0x30", `razor_gateway_drain_stage{instance="a:8055",site="west"}`: "0x30"},
			Quiet: map[string]string{
				`razor_gateway_decides{instance="a:8055",site="west"}`: "0x30", `razor_gateway_decides{instance="b:8055",site="west"}`: "1x30",
				`razor_gateway_decides{instance="c:8055",site="east"}`: "0x30", `razor_gateway_drain_stage{instance="c:8055",site="east"}`: "2x30",
			},
			Labels: map[string]string{"site": "west"},
		},
		{
			Name: "RazorSeveralDecide", For: "1m", Severity: Critical,
			Expr:        `sum by (site) (razor_gateway_decides) > 1`,
			Summary:     "Several gateways of the site {{ $labels.site }} decide",
			Description: "Routers may move a flow to a gateway with other tables. consul_lock and gateway.consul have to be the same on all gateways of a site: razor status on each.",
			Fires:       map[string]string{`razor_gateway_decides{instance="a:8055",site="west"}`: "1x30", `razor_gateway_decides{instance="b:8055",site="west"}`: "1x30"},
			Quiet:       map[string]string{`razor_gateway_decides{instance="a:8055",site="west"}`: "1x30", `razor_gateway_decides{instance="b:8055",site="west"}`: "0x30", `razor_gateway_decides{instance="c:8055",site="east"}`: "1x30"},
			Labels:      map[string]string{"site": "west"},
		},
		{
			Name: "RazorConsulSitesRefused", Expr: `razor_gateway_consul_sites_refused + razor_gateway_consul_sites_held > 0`, For: "5m", Severity: Warning, Unseen: sitesInTheFile,
			Summary:     "{{ $labels.instance }} does not obey all keys of other sites in Consul",
			Description: "razor status says which and why: a value that cannot be used, or all keys gone at once. Those sites stay as they were.",
			Fires:       map[string]string{`razor_gateway_consul_sites_refused{instance="a:8055",site="west"}`: "0x30", `razor_gateway_consul_sites_held{instance="a:8055",site="west"}`: "2x30"},
			Quiet:       map[string]string{`razor_gateway_consul_sites_refused{instance="a:8055",site="west"}`: "0x30", `razor_gateway_consul_sites_held{instance="a:8055",site="west"}`: "0x30"},
			Labels:      map[string]string{"instance": "a:8055", "site": "west"},
		},
		{
			Name: "RazorConsulSitesNotAnswered", Expr: `rate(razor_gateway_consul_sites_failures_total[5m]) > 0`, For: "5m", Severity: Warning, Unseen: sitesInTheFile,
			Summary:     "Consul does not answer {{ $labels.instance }} for other sites",
			Description: "consul members on its host, and the log of the gateway. The other sites stay as they are.",
			Fires:       one(`razor_gateway_consul_sites_failures_total{instance="a:8055",site="west"}`, "0+3x30"), Quiet: one(`razor_gateway_consul_sites_failures_total{instance="a:8055",site="west"}`, "3x30"),
			Labels: map[string]string{"instance": "a:8055", "site": "west"},
		},
		{
			Name: "RazorSiteUnheard", Expr: `razor_gateway_site_age_seconds > 30`, For: "1m", Severity: Critical, Unseen: "no other site was heard of",
			Summary:     "{{ $labels.instance }} hears nothing of the site {{ $labels.from_site }}",
			Description: "What it decided about that site gets old (stale_after). razor status has the entries there; routes to its locators, UDP port 5205.",
			Fires:       one(`razor_gateway_site_age_seconds{instance="a:8055",site="west",from_site="east"}`, "0+60x30"), Quiet: one(`razor_gateway_site_age_seconds{instance="a:8055",site="west",from_site="east"}`, "0.2x30"),
			Labels: at("from_site", "east"),
		},
		{
			Name: "RazorSitesDisbelieved", For: "5m", Severity: Critical,
			Expr:        `sum by (instance, site, reason) (rate(razor_gateway_site_refusals_total{reason=~"unknown_key|forged|version|stale|early"}[5m])) > 0`,
			Summary:     "{{ $labels.instance }} does not believe what gateways of other sites say: {{ $labels.reason }}",
			Description: "key_file is not the same at all sites, versions differ, or clocks do (stale, early): chronyc tracking on both sides.",
			Fires:       one(`razor_gateway_site_refusals_total{instance="a:8055",site="west",reason="forged"}`, "0+60x30"), Quiet: one(`razor_gateway_site_refusals_total{instance="a:8055",site="west",reason="overtaken"}`, "0+60x30"),
			Labels: at("reason", "forged"),
		},
		{
			Name: "RazorSiteDrainForgotten", Expr: `max by (site) (razor_gateway_site_drained) == 1`, For: "1d", Severity: Info,
			Summary:     "The site {{ $labels.site }} has been drained for a day",
			Description: "razor status says why; razor undrain site gives it new flows again.",
			Fires:       one(`razor_gateway_site_drained{instance="a:8055",site="west"}`, "1x1500"), Quiet: one(`razor_gateway_site_drained{instance="a:8055",site="west"}`, "1x1000 0x500"),
			Labels: map[string]string{"site": "west"},
		},
	}
}

func agentAlerts() []Alert {
	at := map[string]string{"instance": "b:8056", "site": "west"}
	with := func(label, value string) map[string]string {
		return map[string]string{"instance": "b:8056", "site": "west", label: value}
	}
	return []Alert{
		{
			Name: "RazorAgentDrops", For: "5m", Severity: Warning,
			Expr:        `sum by (instance, site, reason) (rate(razor_agent_segment_packets_total{reason=~"dropped_(target|segments|vip|room|malformed|outsider)"}[5m])) > 1`,
			Summary:     "{{ $labels.instance }} drops packets that gateways sent it: {{ $labels.reason }}",
			Description: "The services of the gateways and agent.vips or agent.containers of this host differ, or sr_block does: razor agent status, razor check.",
			Fires:       one(`razor_agent_segment_packets_total{instance="b:8056",site="west",reason="dropped_vip"}`, "0+600x30"), Quiet: one(`razor_agent_segment_packets_total{instance="b:8056",site="west",reason="taken_syn"}`, "0+600x30"),
			Labels: with("reason", "dropped_vip"),
		},
		{
			Name: "RazorBackendCritical", Expr: `razor_agent_load_level == 3`, For: "2m", Severity: Warning,
			Summary:     "The load of {{ $labels.instance }} is critical",
			Description: "razor agent status has the measurement. New flows go on to other backends; if those are loaded too, there are too few.",
			Fires:       one(`razor_agent_load_level{instance="b:8056",site="west",target="0"}`, "3x30"), Quiet: one(`razor_agent_load_level{instance="b:8056",site="west",target="0"}`, "2x30"),
			Labels: with("target", "0"),
		},
		{
			Name: "RazorLoadNotMeasured", Expr: `rate(razor_agent_load_failures_total[5m]) > 0`, For: "5m", Severity: Warning,
			Summary:     "{{ $labels.instance }} cannot measure its load",
			Description: "The log of the agent has the error of agent.load. Three failures in a row count as level warning.",
			Fires:       one(`razor_agent_load_failures_total{instance="b:8056",site="west",target="0"}`, "0+10x30"), Quiet: one(`razor_agent_load_failures_total{instance="b:8056",site="west",target="0"}`, "10x30"),
			Labels: with("target", "0"),
		},
		{
			Name: "RazorReportsLost", Expr: `rate(razor_agent_reports_lost_total[5m]) > 0`, For: "2m", Severity: Warning,
			Summary:     "{{ $labels.instance }} cannot send reports to its gateways ({{ $labels.reason }})",
			Description: "razor agent status has the error: routes to the locators in agent.gateways. Gateways take a silent host for dead.",
			Fires:       one(`razor_agent_reports_lost_total{instance="b:8056",site="west",reason="send"}`, "0+10x30"), Quiet: one(`razor_agent_reports_lost_total{instance="b:8056",site="west",reason="send"}`, "10x30"),
			Labels: with("reason", "send"),
		},
		{
			Name: "RazorPinsLost", Expr: `rate(razor_agent_pins_lost_total[5m]) > 1`, For: "5m", Severity: Info,
			Summary:     "{{ $labels.instance }} cannot tell gateways of flows ({{ $labels.reason }})",
			Description: "The flows are found by hunting as long as rows and histories name this backend.",
			Fires:       one(`razor_agent_pins_lost_total{instance="b:8056",site="west",reason="queue"}`, "0+600x30"), Quiet: one(`razor_agent_pins_lost_total{instance="b:8056",site="west",reason="queue"}`, "600x30"),
			Labels: with("reason", "queue"),
		},
		{
			Name: "RazorAnswersTooBig", Expr: `rate(razor_agent_reply_packets_total{reason="dropped_too_big"}[5m]) > 0`, For: "5m", Severity: Warning,
			Summary:     "Answers of {{ $labels.instance }} are too big to go by a gateway",
			Description: "razor check names the mtu of the default route that keeps the kernel from making them.",
			Fires:       one(`razor_agent_reply_packets_total{instance="b:8056",site="west",reason="dropped_too_big"}`, "0+10x30"), Quiet: one(`razor_agent_reply_packets_total{instance="b:8056",site="west",reason="returned"}`, "0+10x30"),
			Labels: with("reason", "dropped_too_big"),
		},
		{
			Name: "RazorNotRegistered", Expr: `razor_agent_consul_registered == 0`, For: "5m", Severity: Warning, Unseen: inTheFile,
			Summary:     "Consul does not have {{ $labels.service }} of {{ $labels.instance }}",
			Description: "razor agent status says why; the agent of Consul on that host, its token.",
			Fires:       one(`razor_agent_consul_registered{instance="b:8056",site="west",service="web",target="0"}`, "0x30"), Quiet: one(`razor_agent_consul_registered{instance="b:8056",site="west",service="web",target="0"}`, "1x30"),
			Labels: map[string]string{"instance": "b:8056", "site": "west", "service": "web", "target": "0"},
		},
		{
			Name: "RazorAgentDrainForgotten", Expr: `razor_agent_drained == 1`, For: "1d", Severity: Info,
			Summary:     "{{ $labels.instance }} has been drained for a day",
			Description: "razor agent status says why; razor undrain agent gives it new flows again.",
			Fires:       one(`razor_agent_drained{instance="b:8056",site="west"}`, "1x1500"), Quiet: one(`razor_agent_drained{instance="b:8056",site="west"}`, "1x1000 0x500"),
			Labels: at,
		},
	}
}
