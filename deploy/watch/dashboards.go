package watch

// Dashboards are all of them.
func Dashboards() []*Dashboard {
	return []*Dashboard{overview(), dnsAndPools(), gatewaysAndBGP(), dataplane(), sites()}
}

// lines is a panel of lines, a third wide.
func lines(title, description, unit string, queries ...Query) Panel {
	return Panel{Title: title, Description: description, Kind: Lines, Unit: unit, Width: 8, Queries: queries}
}

// figure is a panel with a number.
func figure(title, description, unit string, bad float64, expr string) Panel {
	return Panel{Title: title, Description: description, Kind: Figure, Unit: unit, Width: 4, Bad: bad, Queries: []Query{{Expr: expr}}}
}

func (p Panel) half() Panel                 { p.Width = 12; return p }
func (p Panel) stacked() Panel              { p.Stack = true; return p }
func (p Panel) states() Panel               { p.Kind = States; return p }
func (p Panel) mayBeEmpty(why string) Panel { p.Empty = why; return p }

func overview() *Dashboard {
	return &Dashboard{
		Name: "overview", Title: "Overview", Description: "Whether all is well, and how much there is to do.",
		Rows: []Row{
			{"Now", []Panel{
				figure("Processes away", "Processes of razor that Prometheus cannot reach: see the role's log.", "short", 1, `count(up) - sum(up)`),
				figure("BGP sessions away", "Sessions that are not established: razor status on the gateway.", "short", 1, `count(razor_gateway_peer_up) - sum(razor_gateway_peer_up)`),
				figure("Services without backends", "Services at a gateway to whose backends no new flows may go: they go to other sites, if there are any.", "short", 1,
					`count(sum by (instance, service) (razor_gateway_backend_active) == 0) or vector(0)`),
				figure("Lists stale or on hold", "Processes that answer from old lists: razor upstreams check, razor upstreams accept.", "short", 1,
					`sum(razor_upstreams_stale) + sum(razor_upstreams_hold)`),
				figure("Lists of Consul held", "Lists whose guards let no change through: razor sync --dry-run.", "short", 1, `count(razor_sync_held) or vector(0)`),
				figure("Queries", "DNS queries answered per second.", "reqps", 0, `sum(rate(razor_dns_queries_total[$__rate_interval]))`),
			}},
			{"Traffic", []Panel{
				lines("DNS answers", "Queries answered, by response code.", "reqps", Query{`sum by (rcode) (rate(razor_dns_queries_total[$__rate_interval]))`, "{{rcode}}"}).stacked(),
				lines("VIPs", "Bits to the VIPs of each service, as they came in.", "bps", Query{`8 * sum by (service) (rate(razor_gateway_vip_bytes_total[$__rate_interval]))`, "{{service}}"}).stacked(),
				lines("Dataplane drops", "Packets that gateways dropped, by reason.", "pps",
					Query{`sum by (result) (rate(razor_gateway_packets_total{dropped="true"}[$__rate_interval])) > 0`, "{{result}}"}).
					mayBeEmpty("nothing is dropped while all is well"),
			}},
			{"Processes", []Panel{
				{
					Title: "Versions", Description: "What runs where.", Kind: Table, Width: 8,
					Queries: []Query{{Expr: `count by (job, site, version, go_version) (razor_build_info)`}},
				},
				{
					Title: "Alerts", Description: "Alerts that fire; their descriptions say what to look at.", Kind: Table, Width: 8,
					Queries: []Query{{Expr: `ALERTS{alertstate="firing",alertname=~"Razor.*"}`}}, Empty: "none fires while all is well",
				},
				lines("Memory", "Resident memory of each process.", "bytes", Query{`process_resident_memory_bytes`, "{{job}} {{instance}}"}),
			}},
		},
	}
}

func dnsAndPools() *Dashboard {
	return &Dashboard{
		Name: "dns-and-pools", Title: "DNS and pools", Description: "What is answered, how fast, and from which lists.",
		Rows: []Row{
			{"Answers", []Panel{
				lines("Queries by zone", "Queries answered; * is all zones where the configuration names none.", "reqps",
					Query{`sum by (zone) (rate(razor_dns_queries_total[$__rate_interval]))`, "{{zone}}"}),
				lines("Queries by type", "Queries answered, by query type and transport.", "reqps",
					Query{`sum by (type, transport) (rate(razor_dns_queries_total[$__rate_interval]))`, "{{type}} {{transport}}"}),
				lines("Other than NOERROR", "Share of the answers with another response code.", "percentunit",
					Query{`sum by (rcode) (rate(razor_dns_queries_total{rcode!="NOERROR"}[$__rate_interval])) / ignoring (rcode) group_left () sum(rate(razor_dns_queries_total[$__rate_interval]))`, "{{rcode}}"}),
				lines("Time of an answer", "From a query read to its answer ready to be sent.", "s",
					Query{`histogram_quantile(0.5, sum by (le, transport) (rate(razor_dns_query_duration_seconds_bucket[$__rate_interval])))`, "{{transport}} median"},
					Query{`histogram_quantile(0.99, sum by (le, transport) (rate(razor_dns_query_duration_seconds_bucket[$__rate_interval])))`, "{{transport}} 99 %"}),
				lines("TCP connections", "Connections that are open.", "short", Query{`razor_dns_tcp_connections`, "{{instance}}"}),
				lines("Trouble", "Messages without an answer, answers cut off, faults of the program.", "short",
					Query{`sum(rate(razor_dns_dropped_total[$__rate_interval]))`, "dropped"},
					Query{`sum(rate(razor_dns_truncated_total[$__rate_interval]))`, "truncated"},
					Query{`sum(rate(razor_dns_export_cut_total[$__rate_interval]))`, "export cut"},
					Query{`sum(rate(razor_dns_panics_total[$__rate_interval]))`, "faults"}),
			}},
			{"Lists", []Panel{
				lines("Age", "Time since the lists were last known to be what Redis says.", "s", Query{`razor_upstreams_snapshot_age_seconds`, "{{job}} {{instance}}"}),
				lines("What there is", "In the lists that are served. Instances that differ do not see the same Redis.", "short",
					Query{`razor_upstreams_names`, "names {{job}} {{instance}}"}, Query{`razor_upstreams_members`, "members {{job}} {{instance}}"},
					Query{`razor_upstreams_endpoints`, "endpoints {{job}} {{instance}}"}),
				lines("Left out", "Keys and members that cannot be used (razor upstreams check), pools that are emptied, routes of which every edge is drained.", "short",
					Query{`max(razor_upstreams_rejected)`, "rejected"}, Query{`max(razor_upstreams_pools_emptied)`, "pools emptied"},
					Query{`max(razor_upstreams_routes_drained)`, "routes drained"}),
				lines("Edges", "By health, as answers go by it, and routes of which less than FLOOR is healthy.", "short",
					Query{`max by (health) (razor_upstreams_edges)`, "{{health}}"}, Query{`max(razor_upstreams_routes_below_floor)`, "routes below FLOOR"}),
				lines("From an edit to the answer", "From a change that Redis named to the snapshot that has it, 99 of 100.", "s",
					Query{`histogram_quantile(0.99, sum by (le, instance) (rate(razor_upstreams_edit_duration_seconds_bucket[$__rate_interval])))`, "{{instance}}"}).
					mayBeEmpty("lists that nobody edits"),
				lines("Redis", "Whether Redis answers, whether its replica hears the primary.", "short",
					Query{`sum by (instance) (razor_upstreams_link_up)`, "answers {{instance}}"}, Query{`razor_upstreams_replica_link_up`, "primary {{instance}}"}).
					mayBeEmpty("a Redis that is no replica"),
				lines("Reading and saving", "Longest of reading all keys and of writing the snapshot, mean.", "s",
					Query{`max by (instance) (razor_upstreams_rescan_duration_seconds_sum / razor_upstreams_rescan_duration_seconds_count)`, "read {{instance}}"},
					Query{`max by (instance) (razor_upstreams_save_duration_seconds_sum / razor_upstreams_save_duration_seconds_count)`, "save {{instance}}"}),
			}},
			{"Lists from Consul", []Panel{
				lines("Endpoints", "Of the lists as they are, and as Consul would have them.", "short",
					Query{`razor_sync_endpoints`, "{{app}}"}, Query{`razor_sync_wanted_endpoints`, "{{app}} wanted"}),
				lines("Changes", "Endpoints added, removed and changed in Redis.", "short", Query{`sum by (action) (rate(razor_sync_changes_total[$__rate_interval]))`, "{{action}}"}),
				lines("Last answer of Consul", "Time since Consul answered for a list, the oldest of its datacenters.", "s", Query{`max by (app) (razor_sync_consul_age_seconds)`, "{{app}}"}),
				lines("Active", "Which sync keeps the lists: one for each lock.", "short", Query{`razor_sync_active`, "{{instance}}"}).states(),
				lines("Kept", "Lists that can be kept: owned by the sync, Redis and Consul there.", "short", Query{`razor_sync_list_kept`, "{{app}}"}).states(),
				lines("Errors", "Queries that Consul did not answer, lists that Redis did not take.", "short",
					Query{`sum(rate(razor_sync_consul_errors_total[$__rate_interval]))`, "Consul"}, Query{`sum(rate(razor_sync_redis_errors_total[$__rate_interval]))`, "Redis"}),
			}},
		},
	}
}

func gatewaysAndBGP() *Dashboard {
	return &Dashboard{
		Name: "gateways-and-bgp", Title: "Gateways and BGP", Description: "What is announced to whom. razor status on a gateway says why.",
		Rows: []Row{
			{"Announcements", []Panel{
				lines("Announced", "Prefixes of each set that are announced, of all gateways.", "short",
					Query{`sum by (set) (razor_gateway_prefixes{state="announced"})`, "{{set}}"}),
				lines("Not announced", "Prefixes that are lowered or withdrawn.", "short",
					Query{`sum by (set, state) (razor_gateway_prefixes{state!="announced"})`, "{{set}} {{state}}"}),
				lines("Told to peers", "Prefixes that each peer was told, as the wire has it.", "short",
					Query{`razor_gateway_announced_routes`, "{{instance}} {{peer}} {{family}}"}),
				lines("Withdrawals", "Prefixes withdrawn in five minutes, by reason.", "short",
					Query{`sum by (reason) (increase(razor_gateway_withdrawals_total[5m]))`, "{{reason}}"}).mayBeEmpty("nothing was withdrawn yet"),
				lines("Drain", "0 in service, 1 leaving, 2 drained.", "short", Query{`razor_gateway_drain_stage`, "{{instance}}"}),
				lines("Health of edges", "What gateways tell nameservers: 1 up, 0 down, draining or not told.", "short",
					Query{`razor_gateway_edge_health{health="up"}`, "{{instance}}"}).states().mayBeEmpty("gateways that tell nothing"),
				lines("Blackholes", "Attacked prefixes announced, those beyond the limit, and members that must not be announced.", "short",
					Query{`sum by (instance) (razor_gateway_blackholes)`, "{{instance}}"}, Query{`sum by (instance) (razor_gateway_blackholes_refused)`, "{{instance}} beyond the limit"},
					Query{`sum by (instance) (razor_gateway_members_refused)`, "{{instance}} refused"}),
			}},
			{"Sessions", []Panel{
				lines("Established", "Sessions with peers.", "short", Query{`razor_gateway_peer_up`, "{{instance}} {{peer}}"}).states().half(),
				lines("BFD", "Paths to the peers.", "short", Query{`razor_gateway_bfd_session_up`, "{{instance}} {{peer}}"}).states().half(),
				lines("Ends", "Sessions that ended and connections that did not come about, in five minutes.", "short",
					Query{`sum by (peer, reason) (increase(razor_gateway_peer_errors_total[5m]))`, "{{peer}} {{reason}}"}).mayBeEmpty("no session ended yet"),
				lines("Messages", "BGP messages by type and direction.", "short",
					Query{`sum by (type, direction) (rate(razor_gateway_peer_messages_total[$__rate_interval]))`, "{{type}} {{direction}}"}),
				lines("Faults of peers", "Updates that were ignored, speakers that died, in five minutes; peers that have to wait.", "short",
					Query{`sum by (peer) (increase(razor_gateway_peer_malformed_updates_total[5m]))`, "ignored {{peer}}"},
					Query{`sum by (peer) (increase(razor_gateway_speaker_crashes_total[5m]))`, "died {{peer}}"},
					Query{`sum by (peer) (razor_gateway_peer_held_off)`, "waits {{peer}}"}).mayBeEmpty("counters of faults that never were"),
				lines("BFD: silence until down", "Time of silence after which a peer is taken for gone.", "s", Query{`razor_gateway_bfd_detection_seconds`, "{{instance}} {{peer}}"}),
				lines("BFD: changes", "Changes of sessions to a state, in five minutes.", "short",
					Query{`sum by (peer, state) (increase(razor_gateway_bfd_transitions_total[5m]))`, "{{peer}} {{state}}"}),
				lines("BFD: packets lost here", "Packets of no use, and those that the kernel did not take.", "pps",
					Query{`sum by (reason) (rate(razor_gateway_bfd_dropped_packets_total[$__rate_interval]))`, "{{reason}}"},
					Query{`sum(rate(razor_gateway_bfd_send_errors_total[$__rate_interval]))`, "not sent"}),
			}},
			{"Probes", []Panel{
				lines("Up", "Damped health of what is probed, by gateways and agents.", "short", Query{`razor_probe_up`, "{{instance}} {{probe}}"}).states().half(),
				lines("Time of a measurement", "99 of 100, also of those that failed.", "s",
					Query{`histogram_quantile(0.99, sum by (le, probe) (rate(razor_probe_duration_seconds_bucket[$__rate_interval])))`, "{{probe}}"}).half(),
			}},
		},
	}
}
