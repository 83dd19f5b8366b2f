package watch

// Alerts are all of them, by the name of their group.
func Alerts() map[string][]Alert {
	return map[string][]Alert{
		"processes": processAlerts(), "lists": listAlerts(), "sync": syncAlerts(), "gateway": gatewayAlerts(), "dataplane": dataplaneAlerts(), "agent": agentAlerts(),
	}
}

// one is a series and its values.
func one(series, values string) map[string]string { return map[string]string{series: values} }

func processAlerts() []Alert {
	return []Alert{
		{
			Name: "RazorDown", Expr: `up{job=~"razor.*"} == 0`, For: "1m", Severity: Critical,
			Summary:     "{{ $labels.job }} at {{ $labels.instance }} does not answer",
			Description: "systemctl status of its unit, and its log. Programs and maps of a gateway or an agent go on without the process; peers of a gateway keep its routes for graceful_restart only.",
			Fires:       one(`up{job="razor-dns",instance="a:8053"}`, "1 0x30"), Quiet: one(`up{job="razor-dns",instance="a:8053"}`, "1x30"),
			Labels: map[string]string{"job": "razor-dns", "instance": "a:8053"},
		},
		{
			Name: "RazorRestarts", Expr: `changes(process_start_time_seconds{job=~"razor.*"}[15m]) > 2`, For: "0m", Severity: Warning,
			Summary:     "{{ $labels.job }} at {{ $labels.instance }} starts again and again",
			Description: "Its log says why it ended; razor check --config F says what is wrong with its file.",
			Fires:       one(`process_start_time_seconds{job="razor-agent",instance="a:8056"}`, "1+60x30"), Quiet: one(`process_start_time_seconds{job="razor-agent",instance="a:8056"}`, "1x5 500x30"),
			Labels: map[string]string{"job": "razor-agent", "instance": "a:8056"},
		},
		{
			Name: "RazorDNSFailures", Unseen: "no query failed", For: "5m", Severity: Critical,
			Expr:        `sum by (site, instance) (rate(razor_dns_queries_total{rcode="SERVFAIL"}[5m])) / sum by (site, instance) (rate(razor_dns_queries_total[5m])) > 0.01`,
			Summary:     "{{ $labels.instance }} answers more than 1 % of the queries with SERVFAIL",
			Description: "razor upstreams check names what cannot be used; /readyz of the nameserver and its log say what it lacks.",
			Fires:       map[string]string{`razor_dns_queries_total{instance="a:8053",site="west",rcode="SERVFAIL"}`: "0+60x30", `razor_dns_queries_total{instance="a:8053",site="west",rcode="NOERROR"}`: "0+600x30"},
			Quiet:       map[string]string{`razor_dns_queries_total{instance="a:8053",site="west",rcode="SERVFAIL"}`: "0+1x30", `razor_dns_queries_total{instance="a:8053",site="west",rcode="NOERROR"}`: "0+600x30"},
			Labels:      map[string]string{"instance": "a:8053", "site": "west"},
		},
		{
			Name: "RazorDNSFault", Expr: `increase(razor_dns_panics_total[15m]) > 0`, For: "0m", Severity: Warning,
			Summary:     "{{ $labels.instance }} could not handle messages, by a fault of the program",
			Description: "The log has the place in the code. The nameserver goes on; please report it.",
			Fires:       one(`razor_dns_panics_total{instance="a:8053"}`, "0+1x30"), Quiet: one(`razor_dns_panics_total{instance="a:8053"}`, "7x30"),
			Labels: map[string]string{"instance": "a:8053"},
		},
		{
			Name: "RazorDNSSlow", For: "10m", Severity: Warning,
			Expr:        `histogram_quantile(0.99, sum by (le, site, instance) (rate(razor_dns_query_duration_seconds_bucket[5m]))) > 0.002`,
			Summary:     "{{ $labels.instance }} takes more than 2 ms for one of 100 answers",
			Description: "The CPUs of the host are the usual reason: compare the rate of queries (dashboard DNS and pools) and what else runs there.",
			Fires: map[string]string{
				`razor_dns_query_duration_seconds_bucket{instance="a:8053",site="west",le="0.001"}`: "0+50x30",
				`razor_dns_query_duration_seconds_bucket{instance="a:8053",site="west",le="0.004"}`: "0+100x30", `razor_dns_query_duration_seconds_bucket{instance="a:8053",site="west",le="+Inf"}`: "0+100x30",
			},
			Quiet: map[string]string{
				`razor_dns_query_duration_seconds_bucket{instance="a:8053",site="west",le="0.001"}`: "0+100x30", `razor_dns_query_duration_seconds_bucket{instance="a:8053",site="west",le="+Inf"}`: "0+100x30",
			},
			Labels: map[string]string{"instance": "a:8053", "site": "west"},
		},
		{
			Name: "RazorDNSConnectionsRefused", Unseen: "no connection was refused", Expr: `rate(razor_dns_tcp_refused_total[5m]) > 0`, For: "10m", Severity: Warning,
			Summary:     "{{ $labels.instance }} refuses TCP connections: too many for the limit {{ $labels.limit }}",
			Description: "An attack, or proxies that poll often: see dns.tcp in the configuration for the limits.",
			Fires:       one(`razor_dns_tcp_refused_total{instance="a:8053",limit="total"}`, "0+1x30"), Quiet: one(`razor_dns_tcp_refused_total{instance="a:8053",limit="total"}`, "3x30"),
			Labels: map[string]string{"instance": "a:8053", "limit": "total"},
		},
	}
}

func listAlerts() []Alert {
	of := map[string]string{"job": "razor-dns", "instance": "a:8053"}
	return []Alert{
		{
			Name: "RazorListsHold", Expr: `razor_upstreams_hold == 1`, For: "1m", Severity: Critical,
			Summary:     "{{ $labels.job }} at {{ $labels.instance }} does not obey a mass loss in Redis",
			Description: "razor upstreams diff shows what is gone. Put it back (redis-cli --pipe < snapshot.resp), or say with razor upstreams accept that it is right.",
			Fires:       one(`razor_upstreams_hold{job="razor-dns",instance="a:8053"}`, "1x30"), Quiet: one(`razor_upstreams_hold{job="razor-dns",instance="a:8053"}`, "0x30"), Labels: of,
		},
		{
			Name: "RazorListsStale", Expr: `razor_upstreams_stale == 1 unless on (job, instance) razor_upstreams_hold == 1`, For: "2m", Severity: Critical,
			Summary:     "{{ $labels.job }} at {{ $labels.instance }} answers from old lists",
			Description: "Edits do not arrive: the local Redis does not answer, or does not hear its primary (INFO replication). /readyz says since when.",
			Fires:       one(`razor_upstreams_stale{job="razor-dns",instance="a:8053"}`, "1x30"),
			Quiet:       map[string]string{`razor_upstreams_stale{job="razor-dns",instance="a:8053"}`: "1x30", `razor_upstreams_hold{job="razor-dns",instance="a:8053"}`: "1x30"}, Labels: of,
		},
		{
			Name: "RazorRedisAway", Expr: `sum by (job, instance, site) (razor_upstreams_link_up) == 0`, For: "2m", Severity: Warning,
			Summary:     "{{ $labels.job }} at {{ $labels.instance }} has no Redis",
			Description: "redis-cli ping at redis.address; the log has the error. The last good lists are served.",
			Fires:       map[string]string{`razor_upstreams_link_up{job="razor-dns",instance="a:8053",link="tracking"}`: "0x30", `razor_upstreams_link_up{job="razor-dns",instance="a:8053",link="polling"}`: "0x30"},
			Quiet:       map[string]string{`razor_upstreams_link_up{job="razor-dns",instance="a:8053",link="tracking"}`: "1x30", `razor_upstreams_link_up{job="razor-dns",instance="a:8053",link="polling"}`: "0x30"}, Labels: of,
		},
		{
			Name: "RazorMembersRejected", Expr: `max by (site) (razor_upstreams_rejected) > 0`, For: "15m", Severity: Warning,
			Summary:     "Keys or members in Redis cannot be used and are left out, at site {{ $labels.site }}",
			Description: "razor upstreams check names each, and why.",
			Fires:       one(`razor_upstreams_rejected{site="west"}`, "2x40"), Quiet: one(`razor_upstreams_rejected{site="west"}`, "0x40"), Labels: map[string]string{"site": "west"},
		},
		{
			Name: "RazorPoolsEmptied", Expr: `max by (site) (razor_upstreams_pools_emptied) > 0`, For: "5m", Severity: Critical,
			Summary:     "Skip list and blackholes leave nothing of a pool, at site {{ $labels.site }}",
			Description: "razor upstreams list names the routes with what is left of them; take members off the skip list, or add others to the pool.",
			Fires:       one(`razor_upstreams_pools_emptied{site="west"}`, "1x30"), Quiet: one(`razor_upstreams_pools_emptied{site="west"}`, "0x30"), Labels: map[string]string{"site": "west"},
		},
		{
			Name: "RazorRoutesDrained", Expr: `max by (site) (razor_upstreams_routes_drained) > 0`, For: "5m", Severity: Critical,
			Summary:     "Every edge of a route is drained, at site {{ $labels.site }}",
			Description: "razor edges shows the edges and their states; razor undrain edge NAME puts one back.",
			Fires:       one(`razor_upstreams_routes_drained{site="west"}`, "1x30"), Quiet: one(`razor_upstreams_routes_drained{site="west"}`, "0x30"), Labels: map[string]string{"site": "west"},
		},
		{
			Name: "RazorRoutesBelowFloor", Expr: `max by (site) (razor_upstreams_routes_below_floor) > 0`, For: "1m", Severity: Critical,
			Summary:     "Less of a route is healthy than its FLOOR, at site {{ $labels.site }}",
			Description: "What is down is answered too, or with ON_EMPTY closed little or nothing. The log of razor dns names the routes, razor edges the edges and what their gateways say.",
			Fires:       one(`razor_upstreams_routes_below_floor{site="west"}`, "1x30"), Quiet: one(`razor_upstreams_routes_below_floor{site="west"}`, "0x30"), Labels: map[string]string{"site": "west"},
		},
		{
			Name: "RazorEdgesDown", Expr: `max by (site) (razor_upstreams_edges{health="down"}) > 0`, For: "5m", Severity: Warning,
			Summary:     "Edges are down, by what site {{ $labels.site }} hears of them",
			Description: "razor edges says of each what its gateway said last, and whether it is silent; razor status there says why.",
			Fires:       one(`razor_upstreams_edges{site="west",health="down"}`, "1x30"), Quiet: one(`razor_upstreams_edges{site="west",health="down"}`, "0x30"), Labels: map[string]string{"site": "west"},
		},
		{
			Name: "RazorListsNotSaved", Expr: `increase(razor_upstreams_save_errors_total[15m]) > 0`, For: "0m", Severity: Warning,
			Summary:     "{{ $labels.job }} at {{ $labels.instance }} cannot write its lists to disk",
			Description: "The state_dir is full or read-only (df, the log). A restart without Redis would begin with older lists.",
			Fires:       one(`razor_upstreams_save_errors_total{job="razor-dns",instance="a:8053"}`, "0+1x30"), Quiet: one(`razor_upstreams_save_errors_total{job="razor-dns",instance="a:8053"}`, "4x30"), Labels: of,
		},
	}
}

func syncAlerts() []Alert {
	return []Alert{
		{
			Name: "RazorSyncInactive", Expr: `sum by (job) (razor_sync_active) == 0`, For: "1m", Severity: Critical,
			Summary:     "No sync of {{ $labels.job }} holds the lock: the lists do not follow Consul",
			Description: "The logs of the syncs say what keeps them from it; consul kv get of sync.lock shows whose it is.",
			Fires:       map[string]string{`razor_sync_active{job="razor-sync",instance="a"}`: "0x30", `razor_sync_active{job="razor-sync",instance="b"}`: "0x30"},
			Quiet:       map[string]string{`razor_sync_active{job="razor-sync",instance="a"}`: "0x30", `razor_sync_active{job="razor-sync",instance="b"}`: "1x30"},
			Labels:      map[string]string{"job": "razor-sync"},
		},
		{
			Name: "RazorSyncHeld", Unseen: "nothing is held", Expr: `razor_sync_held == 1`, For: "5m", Severity: Warning,
			Summary:     "The list {{ $labels.app }} is held, as Consul takes out more than its guard lets through ({{ $labels.reason }})",
			Description: "razor sync --dry-run shows what would go. If Consul is right: razor sync --accept {{ $labels.app }}.",
			Fires:       one(`razor_sync_held{app="web",reason="floor"}`, "1x30"), Quiet: one(`razor_sync_held{app="web",reason="floor"}`, "1x2 _x30"),
			Labels: map[string]string{"app": "web", "reason": "floor"},
		},
		{
			Name: "RazorSyncListNotKept", Expr: `razor_sync_list_kept == 0`, For: "5m", Severity: Warning,
			Summary:     "The list {{ $labels.app }} does not follow Consul",
			Description: "HGETALL {{ $labels.app }}:UPSTREAMS:META says whose it is; else Redis or Consul is away, as the log of the sync says.",
			Fires:       one(`razor_sync_list_kept{app="web"}`, "0x30"), Quiet: one(`razor_sync_list_kept{app="web"}`, "1x30"), Labels: map[string]string{"app": "web"},
		},
		{
			Name: "RazorConsulErrors", Expr: `rate(razor_sync_consul_errors_total[5m]) > 0`, For: "5m", Severity: Warning,
			Summary:     "Consul does not answer the sync at {{ $labels.instance }}",
			Description: "consul members and consul operator raft list-peers; the log of the sync has the error. The lists stay as they are.",
			Fires:       one(`razor_sync_consul_errors_total{instance="a:8054"}`, "0+3x30"), Quiet: one(`razor_sync_consul_errors_total{instance="a:8054"}`, "3x30"),
			Labels: map[string]string{"instance": "a:8054"},
		},
		{
			Name: "RazorSyncCannotWrite", Expr: `rate(razor_sync_redis_errors_total[5m]) > 0`, For: "5m", Severity: Critical,
			Summary:     "The sync at {{ $labels.instance }} cannot write lists to the Redis primary",
			Description: "The log has the error; redis-cli to the primary, by redis.sentinel or the one that the replica follows.",
			Fires:       one(`razor_sync_redis_errors_total{instance="a:8054"}`, "0+3x30"), Quiet: one(`razor_sync_redis_errors_total{instance="a:8054"}`, "3x30"),
			Labels: map[string]string{"instance": "a:8054"},
		},
	}
}
