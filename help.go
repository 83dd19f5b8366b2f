package main

// Help texts of the commands. They are data of the command table in main.go.

const (
	rootLong = `Razor answers the names that customers' domains are CNAMEs of, with addresses
drawn at random from pools that operators edit in Redis.`

	rootExample = `  razor demo                                    try it, nothing else is needed
  razor check --config /etc/razor/razor.yaml    find mistakes before they are live
  razor dns --config /etc/razor/razor.yaml      serve`

	dnsLong = `Serve DNS over UDP and TCP until SIGINT or SIGTERM.

The lists are followed in Redis: an edit is in the answers within milliseconds.
While Redis is away the last good snapshot answers, also over a restart.
Metrics are at /metrics of http.listen, beside /healthz and /readyz.`

	dnsExample = `  razor dns
  razor dns --config ./razor.yaml`

	demoLong = `Serve a sample zone of 4 edges with 512 IPv4 and 512 IPv6 addresses each, from a
Redis that is built in and that redis-cli can edit. Needs no configuration, no
privilege and no network. The lines to try are printed. Ctrl-C ends it, and
nothing of it is kept.`

	demoExample = `  razor demo
  razor demo --dns-port 5301 --redis-port 6391 --http-port 8054`

	checkLong = `Say what the roles would refuse, without starting them: mistakes in the
configuration, ports of razor dns, razor gateway and razor agent that are taken
(those of a running razor with the same state_dir or pins are not), a gateway
that cannot tell who it is, a host that keeps the agent from its work. A network
whose MTU is too small for what the gateway sends to backends is a warning, as
clients are told of it. If Consul answers, name every key of another site there
(gateway.consul_sites) that cannot be used. Then, if Redis answers, name every
key and member there that is left out, and, where the gateway follows the lists,
every member of its edge's pool that it would not announce.

With --diff nothing of that, but what the gateway of the configuration would
announce, withdraw and change compared with the one of another file, if all its
probes are up.

One line per problem. The exit status is 1 if there is any but warnings, else 0.`

	checkExample = `  razor check --config /etc/razor/razor.yaml
  razor check --config new.yaml --diff /etc/razor/razor.yaml`

	syncLong = `Keep the upstream lists of the configuration (sync.lists) as the health of
services in Consul is, until SIGINT or SIGTERM. Changes are in Redis within
milliseconds, and in the log, a line each: who, what, why.

Consul is not believed everything: an empty answer, an error or a lost leader
changes nothing; a list does not fall below its floor, nor lose more within a
minute than its churn limit. What is held shows in the log, in the metrics, in
/readyz and in the META of the list.

Any number of syncs may run: one is active, by a lock in Consul, and another one
takes over at once.`

	syncExample = `  razor sync --dry-run                    what would change, and how much that is
  razor sync --once                       make it so, and end
  razor sync                              keep it so
  razor sync --accept web.example.org     let go what is held of this list`

	gatewayLong = `Announce the prefixes of the configuration (gateway.announce) to BGP peers, as
long as what they depend on is well, until SIGINT or SIGTERM. Then the gateway
drains: it tells the peers that it leaves (RFC 8326), waits until traffic is
elsewhere, withdraws, and closes the sessions. A second signal ends the waiting,
a third one the process.

SIGHUP reloads the configuration: sets, probes and times change in place. Where
anything else differs the gateway starts again, and SIGUSR2 or razor restart
gateway do the same for a new binary: the peers keep the routes meanwhile
(RFC 4724). A configuration with a mistake changes nothing.`

	gatewayExample = `  razor check --config /etc/razor/razor.yaml
  razor gateway --config /etc/razor/razor.yaml`

	traceLong = `Show what the balancer on this host does with packets, a line for each, until
SIGINT, SIGTERM or --count. The balancer is found by gateway.dataplane.pins of
the configuration; the gateway's process need not run. One trace at a time.

A line has the time, client and VIP, protocol and flags, the length of the IP
packet, the VIP that was matched and its service, the slot with its row (the
backends that are current and previous, and the second), the owner by a pin, the
backend that a connection ID of QUIC names (id=), another site that is asked or
spilled to, the segments that were chosen, and what became of it: sent,
answered, passed to the kernel, heard or dropped, with the reason. A site is
shown by its name, or by its number while there is no way to it. Of an error,
and of what other gateways and backends send, the flow is shown, and in from=
who sent it; round= is how many rounds a miss had before. What has no ports is
shown for all VIPs of an address.

Reasons are those of razor_gateway_packets_total: sent, icmp_error, miss, away
(a miss, to another site), spilled, entered (from another site), given_back,
returned, echo, too_big, smaller_path; and of what is dropped: outsider,
malformed, flags, fragment, hop_limit, no_backend, no_neighbour, too_big_untold,
no_headroom, stray, budget, smaller_path_unheard, echo_limit, relay, congested.
The word dropped is all of these.

In the file each packet is as it came, dropped or not, with its line as the
comment, and then as it left, up to 256 octets of each.

A trace costs little: on each CPU at most 50,000 packets a second that --vip and
--client may be of are looked at, and at most 1,000 get a line. At the end it is
said how many did not. When this process is killed, the trace ends within 2 s.`

	traceExample = `  razor gateway trace --vip 198.51.100.1:443/tcp --client 203.0.113.0/24
  razor gateway trace --reason dropped --count 10
  razor gateway trace -w - | tshark -r - -Y frame.comment`

	agentLong = `Take the packets that gateways encapsulate for this host, and hand on those of
flows that other backends own, until SIGINT or SIGTERM: by an XDP program on
agent.interfaces. The VIPs are on loopback meanwhile.

An agent that is killed changes nothing: the program goes on, and the next one
takes it over. SIGHUP and SIGUSR2 start it again in that way, with the
configuration and the binary that are there then. What is wrong about the host
is said in the log, with what mends it, and by razor check. Metrics are at
/metrics of http.agent, beside /healthz and /readyz.`

	agentExample = `  razor check --config /etc/razor/razor.yaml
  razor agent --config /etc/razor/razor.yaml`

	agentStatusLong = `Show what the agent on this host tells the gateways of its site: whether it is
drained, the load and level of the host and of each container, and the health of
what is probed, with its reason. The agent is found by agent.state_dir of the
configuration. The exit status is 1 if none answers.`

	agentStatusExample = `  razor agent status
  razor agent status --json | jq '.probes[] | select(.health != "up")'`

	drainAgentLong = `Have the agent on this host tell the gateways of its site (agent.gateways) to
send no new flows to the host and its containers. Flows that are there go on. It
stays drained over restarts until it is undrained. The last backend of a service
gets new flows all the same: razor status at a gateway shows it.`

	drainAgentExample = `  razor drain agent
  razor drain agent --reason "new kernel"`

	undrainAgentLong = `Have the gateways send new flows to this backend again, if it is up.`

	undrainAgentExample = `  razor undrain agent`

	statusLong = `Show what the gateway on this host does: its peers with the number of prefixes
that each was told, every prefix with what becomes of it and why, blackholes,
probes, and what is wrong beside. The gateway is found by gateway.state_dir of
the configuration. The exit status is 1 if none answers.`

	statusExample = `  razor status
  razor status --json | jq '.peers[] | select(.state != "established")'`

	drainGatewayLong = `Take a gateway out of service: its peers hear that it leaves (RFC 8326), and,
when traffic is elsewhere, that nothing is announced; then the sessions are
closed. Returns when that is done: with gateway.health.report some time longer
than the largest TTL, as nameservers hear of it first and the pool is announced
until resolvers have forgotten it. It stays drained over restarts until it is
undrained. On a gateway that is drained already the reason changes.

Without NAME it is the gateway on this host. With NAME, the edge of that name is
drained by its STATE in Redis: its addresses leave the answers, and its gateway,
where that follows the lists, drains.`

	drainGatewayExample = `  razor drain gateway
  razor drain gateway --reason "new cables"
  razor drain gateway east`

	undrainGatewayLong = `Have a drained gateway announce again: that on this host, or, with NAME, the
edge of that name by its STATE in Redis.`

	undrainGatewayExample = `  razor undrain gateway
  razor undrain gateway east`

	drainSiteLong = `Have the gateway on this host, which decides for its site (gateway.site), send
the new flows of the site's clients to other sites, by the policy of each
service. Flows that are here stay, and other sites send no more. The site stays
drained over restarts of the gateway until it is undrained.

Refused, with exit status 1, is without --force what no other site has room for.`

	drainSiteExample = `  razor drain site
  razor drain site --reason "power"`

	undrainSiteLong = `Have the site of the gateway on this host take new flows again.`

	undrainSiteExample = `  razor undrain site`

	restartGatewayLong = `Have the gateway on this host start again, with the binary and the
configuration that are there now. The peers keep the routes meanwhile (RFC
4724), BFD goes on. Returns when it answers again. Refused while the
configuration has a mistake.`

	restartGatewayExample = `  razor restart gateway`

	edgesLong = `Show every edge in Redis, a row for each route that it is in: how many members
it has in each family, and which share that is of what the route is answered
from now; its admin state, since when, and its health, by what its gateway says
and how long it is silent (what razor dns goes by is damped: dns.health). A
route with a pool of its own is an edge of itself. Below, the routes of which
every edge is drained.`

	edgesExample = `  razor edges
  razor edges --json | jq '.[] | select(.state != "active")'`

	drainEdgeLong = `Write to the primary Redis that an edge is draining: no route is answered with
its addresses any more. Says from when on resolvers have forgotten them, where
lists are not stale. Of an edge that is draining or drained already nothing
changes.

Refused, with exit status 1, is a name that is no edge, and without --force the
last active edge of a route, without which its queries would get no data.`

	drainEdgeExample = `  razor drain edge east
  razor drain edge east --force`

	undrainEdgeLong = `Write to the primary Redis that an edge is active: its routes are answered with
its addresses again.`

	undrainEdgeExample = `  razor undrain edge east`

	listLong = `Show the lists in Redis, of routes, edges and applications, and how many members
each has, or, of those that are named, every member. With --json, always every
member.`

	listExample = `  razor upstreams list
  razor upstreams list node1.route.example.net
  razor upstreams list --json | jq .`

	upstreamsCheckLong = `Name every key and member in Redis that is left out of the answers, with the
reason and what would be right. The exit status is 1 if there is any.`

	upstreamsCheckExample = `  razor upstreams check --config /etc/razor/razor.yaml`

	diffLong = `Show what makes the lists in Redis out of those in a snapshot file, a line for
each member or field: "- key member" for what is gone, "+ key member" for what
is new. Without a file, of the last good snapshot in dns.state_dir. The exit
status is 1 if there is any difference.`

	diffExample = `  razor upstreams diff
  razor upstreams diff /var/backups/snapshot.resp`

	watchLong = `Show the changes of the lists in Redis as they come, in the lines of diff, until
a signal ends it.`

	watchExample = `  razor upstreams watch --config /etc/razor/razor.yaml`

	acceptLong = `Tell the running razor that what Redis has now is right, also what is missing.

After a wholesale loss in Redis (a flush, a resync with an empty primary) razor
keeps answering from what it had. This ends that hold. Edits never need it.`

	acceptExample = `  razor upstreams accept --config /etc/razor/razor.yaml`

	planLong = `Show who gets the new flows of a site's clients: a line for every site and
backend, with the reason. Flows that are open already stay where they are. It is
the plan in force of the gateway on this host, found by gateway.state_dir of the
configuration; with --snapshot it is what would be decided by a snapshot, which
is what one site has measured and heard.

A service keeps its new flows while the load of its backends is not above the
limit (settings.limit, 90 % of the capacity). Above it the excess goes to other
sites, nearest first or as settings.policy says: local-first, weighted,
failover-only, or these inside of each other. A snapshot is such as:

  {"site": "here", "now": "2026-03-01T12:00:00Z", "services": [{
    "name": "web", "arriving": 8,
    "backends": [{"name": "b1", "weight": 10, "capacity": 400, "load": 480,
                  "health": "up", "state": "active"}],
    "sites": [{"name": "near", "distance": 1, "capacity": 1000, "load": 400,
               "healthy": true, "age": 2}]}]}

Loads and capacities are in one unit, arriving is the load that new flows bring
per second, ages are in seconds. With --json the plan is written as JSON: as
"previous" of the next snapshot it makes shares move in steps.

What cannot be is left out and named, and the exit status is 1 then.`

	planExample = `  razor plan
  razor plan --snapshot site.json
  razor plan --snapshot site.json --json | jq .services[].here`

	whatIfLong = `Show what would change in the plan (razor plan) of the gateway on this host, or
of a snapshot, if something failed, was drained, or had another capacity or
load. A name is that of a site, or SITE/BACKEND for a backend of the site whose
snapshot it is. All flags may be repeated.

It is the next plan: by load, shares move at most 25 points of 100 in it, and go
on moving in the plans behind it. What fails or is drained counts at once.`

	whatIfExample = `  razor what-if --fail near
  razor what-if --snapshot site.json --fail near
  razor what-if --snapshot site.json --fail here/b1 --fail here/b2
  razor what-if --snapshot site.json --drain here
  razor what-if --snapshot site.json --capacity here/b1=200 --load near=950`
)
