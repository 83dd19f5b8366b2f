package watch

func dataplane() *Dashboard {
	return &Dashboard{
		Name: "dataplane", Title: "Dataplane", Description: "Packets of VIPs: at the gateways, and at the backends. razor gateway trace shows single ones.",
		Rows: []Row{
			{"Gateways", []Panel{
				lines("Packets", "Packets that were the balancer's, by what became of them.", "pps",
					Query{`sum by (result) (rate(razor_gateway_packets_total{dropped="false"}[$__rate_interval]))`, "{{result}}"}),
				lines("Drops", "Packets dropped, by reason: razor gateway trace --reason shows them.", "pps",
					Query{`sum by (result) (rate(razor_gateway_packets_total{dropped="true"}[$__rate_interval]))`, "{{result}}"}),
				lines("Gateways", "Packets of VIPs at each gateway.", "pps", Query{`sum by (instance) (rate(razor_gateway_vip_packets_total[$__rate_interval]))`, "{{instance}}"}),
				lines("VIPs, packets", "Packets to each VIP.", "pps", Query{`sum by (service, vip) (rate(razor_gateway_vip_packets_total[$__rate_interval]))`, "{{service}} {{vip}}"}),
				lines("VIPs, bits", "Bits to each VIP, as they came in.", "bps", Query{`8 * sum by (service, vip) (rate(razor_gateway_vip_bytes_total[$__rate_interval]))`, "{{service}} {{vip}}"}),
				lines("Backends", "Packets for which a backend, or the entry of another site, was the first choice.", "pps",
					Query{`sum by (backend) (rate(razor_gateway_backend_packets_total[$__rate_interval]))`, "{{backend}}"}),
				lines("New flows", "Flows of TCP that began, by the backend, or the entry of another site, that was the first choice: SYNs, those sent again too.", "cps",
					Query{`sum by (backend) (rate(razor_gateway_backend_new_flows_total[$__rate_interval]))`, "{{backend}}"}),
				lines("Old flows", "Flows with another packet than a SYN in a second, by the backend, or the entry of another site, that was the first choice.", "short",
					Query{`sum by (backend) (rate(razor_gateway_backend_old_flows_total[$__rate_interval]))`, "{{backend}}"}),
				lines("Pins", "Flows that are pinned to another backend than their row's.", "short", Query{`razor_gateway_pins`, "{{instance}}"}),
				lines("Pins made and ended", "Flows that agents told of, and pins that ended.", "short",
					Query{`sum by (result) (rate(razor_gateway_pins_told_total[$__rate_interval]))`, "{{result}}"},
					Query{`sum by (reason) (rate(razor_gateway_pins_ended_total[$__rate_interval]))`, "{{reason}}"}),
				lines("Not believed", "Datagrams and reports of agents that were refused, by reason.", "short",
					Query{`sum by (reason) (rate(razor_gateway_pin_refusals_total[$__rate_interval]))`, "pins {{reason}}"},
					Query{`sum by (reason) (rate(razor_gateway_report_refusals_total[$__rate_interval]))`, "reports {{reason}}"}),
				lines("Path MTU", "Of the way to each backend, for encapsulated packets: 1,644 is enough for all packets of 1,500.", "bytes",
					Query{`min by (backend) (razor_gateway_backend_path_mtu_bytes)`, "{{backend}}"}),
				lines("Smaller paths", "Packets Too Big of routers on the way to backends.", "short",
					Query{`sum by (result) (rate(razor_gateway_smaller_paths_total[$__rate_interval]))`, "{{result}}"}),
				lines("Reachable", "Backends and entries that the kernel has a way to, and whose gateways answer.", "short", Query{`min by (backend) (razor_gateway_backend_reachable)`, "{{backend}}"}).states(),
			}},
			{"Backends", []Panel{
				lines("Taken", "Packets with a SID of the host that were taken, by what said so.", "pps",
					Query{`sum by (reason) (rate(razor_agent_segment_packets_total{reason=~"taken_.*"}[$__rate_interval]))`, "{{reason}}"}),
				lines("Handed on and bounced", "Packets of flows that the host does not have.", "pps",
					Query{`sum by (instance, reason) (rate(razor_agent_segment_packets_total{reason=~"handed_on|bounced"}[$__rate_interval]))`, "{{instance}} {{reason}}"}),
				lines("Dropped", "Packets that were dropped, by reason.", "pps",
					Query{`sum by (reason) (rate(razor_agent_segment_packets_total{reason=~"dropped_.*"}[$__rate_interval]))`, "{{reason}}"}),
				lines("Targets", "Packets taken into each host and container; 0 is the host.", "pps",
					Query{`sum by (instance, target) (rate(razor_agent_segment_target_packets_total{result="taken"}[$__rate_interval]))`, "{{instance}} {{target}}"}),
				lines("Answers", "Packets from VIPs that something was done to on their way out.", "pps",
					Query{`sum by (reason) (rate(razor_agent_reply_packets_total[$__rate_interval]))`, "{{reason}}"}),
				lines("Answers by gateways", "Gateways that answers go by; 0 where they go straight to clients.", "short", Query{`razor_agent_reply_gateways`, "{{instance}}"}),
				lines("Load", "Share of the capacity that is used.", "percentunit", Query{`razor_agent_load_ratio`, "{{instance}} {{target}}"}).
					mayBeEmpty("agents that measure no load"),
				lines("Level", "1 normal, 2 warning, 3 critical.", "short", Query{`razor_agent_load_level`, "{{instance}} {{target}}"}).
					mayBeEmpty("agents that measure no load"),
				lines("Told and not told", "Flows and reports that gateways were told of, and those that were lost.", "short",
					Query{`sum(rate(razor_agent_pins_told_total[$__rate_interval]))`, "pins"}, Query{`sum(rate(razor_agent_reports_told_total[$__rate_interval]))`, "reports"},
					Query{`sum by (reason) (rate(razor_agent_pins_lost_total[$__rate_interval]))`, "pins lost: {{reason}}"},
					Query{`sum by (reason) (rate(razor_agent_reports_lost_total[$__rate_interval]))`, "reports lost: {{reason}}"}),
			}},
		},
	}
}

// inTheFile is why there may be no metrics of backends in Consul.
const inTheFile = "backends that the configuration names itself"

// sitesInTheFile is why there may be no metrics of sites in Consul.
const sitesInTheFile = "other sites that the configuration names itself"

func sites() *Dashboard {
	return &Dashboard{
		Name: "sites", Title: "Sites", Description: "Which site carries what. The label site comes from the scrape configuration.",
		Rows: []Row{
			{"Traffic", []Panel{
				lines("VIPs of each site", "Packets of VIPs that came in at a site.", "pps",
					Query{`sum by (site, service) (rate(razor_gateway_vip_packets_total[$__rate_interval]))`, "{{site}} {{service}}"}).stacked(),
				lines("New flows of each site", "Flows of TCP that began at a site: SYNs, those sent again and those from other sites too.", "cps",
					Query{`sum by (site, service) (rate(razor_gateway_vip_new_flows_total[$__rate_interval]))`, "{{site}} {{service}}"}).stacked(),
				lines("Old flows of each site", "Flows with another packet than a SYN in a second that came in at a site.", "short",
					Query{`sum by (site, service) (rate(razor_gateway_vip_old_flows_total[$__rate_interval]))`, "{{site}} {{service}}"}).stacked(),
				lines("New flows to other sites", "Packets of slots that spill, and packets that no gateway of the site has a backend for.", "pps",
					Query{`sum by (site) (rate(razor_gateway_packets_total{result="spilled"}[$__rate_interval]))`, "from {{site}}"}),
				lines("From other sites", "Packets that came in at the entry of a site, and those that it gave back.", "pps",
					Query{`sum by (site) (rate(razor_gateway_packets_total{result="entered"}[$__rate_interval]))`, "to {{site}}"},
					Query{`sum by (site) (rate(razor_gateway_packets_total{result="given_back"}[$__rate_interval]))`, "given back by {{site}}"}),
				lines("Misses", "Packets whose flow the first choice did not have: asked for here, and at other sites.", "pps",
					Query{`sum by (site) (rate(razor_gateway_packets_total{result="miss"}[$__rate_interval]))`, "{{site}}"},
					Query{`sum by (site) (rate(razor_gateway_packets_total{result="away"}[$__rate_interval]))`, "{{site}}, at others"}),
				lines("Over the budget of misses", "Packets that no other site was asked about, as too many were.", "pps",
					Query{`sum by (site) (rate(razor_gateway_packets_total{result="budget"}[$__rate_interval]))`, "{{site}}"}),
				lines("DNS", "Queries answered at each site.", "reqps", Query{`sum by (site) (rate(razor_dns_queries_total[$__rate_interval]))`, "{{site}}"}).stacked(),
			}},
			{"Decisions", []Panel{
				lines("Shares", "Share of the new flows of a site's clients that each site gets, as its gateways decided: razor status says why.", "percentunit",
					Query{`max by (site, service, to_site) (razor_gateway_site_share)`, "{{site}} {{service}}: to {{to_site}}"}),
				lines("Room", "Share of the new flows of a site's clients that each site has room for.", "percentunit",
					Query{`max by (site, service, to_site) (razor_gateway_site_room)`, "{{site}} {{service}}: at {{to_site}}"}),
				lines("Who decides", "Gateways of a site that decide, by the lock in Consul: 1 is right. Below it those that Consul does not tell who does.", "short",
					Query{`sum by (site) (razor_gateway_decides)`, "{{site}} decide"},
					Query{`sum by (site) (razor_gateway_decider_known == bool 0)`, "{{site}} not told"}),
				lines("Plans", "Plans that were made.", "short", Query{`sum by (instance) (rate(razor_gateway_decisions_total[$__rate_interval]))`, "{{instance}}"}),
				lines("Heard of other sites", "For how long nothing was heard of another site.", "s",
					Query{`max by (instance, from_site) (razor_gateway_site_age_seconds)`, "{{instance}} of {{from_site}}"}).mayBeEmpty("no other site was heard of yet"),
				lines("Told other sites", "Datagrams with summaries sent, those that could not be, and those of others that were not believed.", "short",
					Query{`sum by (instance) (rate(razor_gateway_sites_told_total[$__rate_interval]))`, "{{instance}} told"},
					Query{`sum by (instance) (rate(razor_gateway_sites_lost_total[$__rate_interval]))`, "{{instance}} lost"},
					Query{`sum by (instance, reason) (rate(razor_gateway_site_refusals_total[$__rate_interval])) > 0`, "{{instance}} refused: {{reason}}"}).
					mayBeEmpty("nothing is refused while all is well"),
				lines("Drained sites", "Sites that an operator drained: razor undrain site.", "short", Query{`max by (site) (razor_gateway_site_drained)`, "{{site}}"}),
			}},
			{"Other sites in Consul", []Panel{
				lines("Other sites", "Those that gateways have from keys in Consul, keys that cannot be used, and sites that stay though all keys were lost: razor status says why.", "short",
					Query{`razor_gateway_consul_sites`, "{{instance}}"},
					Query{`razor_gateway_consul_sites_refused`, "{{instance}} refused"},
					Query{`razor_gateway_consul_sites_held`, "{{instance}} held"}).mayBeEmpty(sitesInTheFile),
				lines("Last answer for sites", "Time since Consul answered a gateway for other sites: a minute where nothing changes.", "s",
					Query{`razor_gateway_consul_sites_age_seconds`, "{{instance}}"}).mayBeEmpty(sitesInTheFile),
			}},
			{"Backends in Consul", []Panel{
				lines("Members", "Backends of a service that Consul has, instances that cannot be used, and backends that it has no longer and that are kept.", "short",
					Query{`max by (site, service) (razor_gateway_membership_backends)`, "{{site}} {{service}}"},
					Query{`max by (site, service) (razor_gateway_membership_left_out)`, "{{site}} {{service}} left out"},
					Query{`max by (site, service) (razor_gateway_membership_gone)`, "{{site}} {{service}} gone"}).mayBeEmpty(inTheFile),
				lines("Last answer of Consul", "Time since Consul answered a gateway for a service.", "s",
					Query{`razor_gateway_membership_age_seconds`, "{{instance}} {{service}}"}).mayBeEmpty(inTheFile),
				lines("Registered", "Backends that agents have registered in Consul; 0 is the host.", "short",
					Query{`razor_agent_consul_registered`, "{{instance}} {{service}} {{target}}"}).states().mayBeEmpty(inTheFile),
			}},
			{"Backends", []Panel{
				lines("With new flows", "Share of the backends of a service at a site that are to have new flows.", "percentunit",
					Query{`sum by (site, service) (razor_gateway_backend_active) / count by (site, service) (razor_gateway_backend_active)`, "{{site}} {{service}}"}),
				lines("Down, silent, drained", "Backends by what their agents say, as a gateway of the site has it.", "short",
					Query{`count by (site) (max by (site, backend) (razor_gateway_backend_health == bool 0) == 1) or 0 * count by (site) (razor_gateway_backend_health)`, "{{site}} down"},
					Query{`sum by (site) (max by (site, backend) (razor_gateway_backend_silent))`, "{{site}} silent"},
					Query{`sum by (site) (min by (site, backend) (razor_gateway_backend_gone))`, "{{site}} gone"},
					Query{`sum by (site) (max by (site, backend) (razor_gateway_backend_drained))`, "{{site}} drained"}),
				lines("Echoes", "Echo requests to the hosts of backends, by which they are found to be gone when their agents are silent, and answers.", "pps",
					Query{`sum by (site, result) (rate(razor_gateway_echoes_total[$__rate_interval]))`, "{{site}} {{result}}"}),
				lines("Agents not believed", "Services at a site of which so few backends would be left that agents are not believed.", "short",
					Query{`sum by (site) (max by (site, service) (razor_gateway_service_agents_disbelieved))`, "{{site}}"}),
				lines("Load", "Load of the backends of a site, as a share of what they can take together.", "percentunit",
					Query{`sum by (site) (max by (site, backend) (razor_gateway_backend_load)) / sum by (site) (max by (site, backend) (razor_gateway_backend_capacity))`, "{{site}}"}).
					mayBeEmpty("agents that measure no load"),
				lines("Loaded backends", "Backends of a site whose level is warning or critical.", "short",
					Query{`sum by (site) (max by (site, backend) (razor_gateway_backend_load_level) >= bool 2)`, "{{site}}"}),
				lines("Gateways in service", "Gateways of a site that are not draining or drained.", "short",
					Query{`count by (site) (razor_gateway_drain_stage) - sum by (site) (razor_gateway_drain_stage > bool 0)`, "{{site}}"}),
			}},
		},
	}
}
