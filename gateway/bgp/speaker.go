package bgp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/log"
	"github.com/osrg/gobgp/v3/pkg/server"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// SpeakerCommand is the subcommand of razor that is the child process.
const SpeakerCommand = "speaker"

// setup is the first line that a speaker reads: the one session that it is for.
type setup struct {
	AS        uint32     `json:"as"`
	RouterID  netip.Addr `json:"router_id"`
	Hold      int        `json:"hold"`      // seconds
	Keepalive int        `json:"keepalive"` // seconds
	Restart   int        `json:"restart"`   // seconds that the peer keeps our routes; 0 is not
	Peer      netip.Addr `json:"peer"`      // where the parent calls from
	Key       string     `json:"key"`       // of TCP MD5, so that nobody else calls
	NextHop   netip.Addr `json:"next_hop"`
	Routes    []Route    `json:"routes"`
}

// listening is the line that a speaker writes when its session can begin.
type listening struct {
	Address netip.AddrPort `json:"address"`
}

// Speak is the child process: it reads a setup and then changes from in, one JSON
// line each, writes where it listens to out, and speaks BGP to the one connection
// that comes. It returns when in ends.
func Speak(ctx context.Context, in io.Reader, out, logs io.Writer) error {
	lines := json.NewDecoder(in)
	var s setup
	if err := lines.Decode(&s); err != nil {
		return ended(err)
	}
	sp, err := startSpeaker(ctx, s, logs)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(listening{sp.address}); err != nil {
		return err
	}
	for {
		var c change
		if err := lines.Decode(&c); err != nil {
			return ended(err)
		}
		if err := sp.change(ctx, c); err != nil {
			return err
		}
	}
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// speaker is one GoBGP server with one peer.
type speaker struct {
	setup
	server  *server.BgpServer
	address netip.AddrPort // where it listens
}

func startSpeaker(ctx context.Context, s setup, logs io.Writer) (*speaker, error) {
	sp := &speaker{setup: s, server: server.NewBgpServer(server.LoggerOption(engineLog{logs}))}
	go sp.server.Serve()
	if err := sp.listen(ctx); err != nil {
		return nil, err
	}
	if err := sp.change(ctx, change{Announce: s.Routes}); err != nil {
		return nil, err
	}
	return sp, sp.addPeer(ctx)
}

// listen starts the server on a free port of loopback.
func (sp *speaker) listen(ctx context.Context) error {
	var err error
	for range 10 {
		if sp.address, err = freePort(ctx); err != nil {
			return err
		}
		err = sp.server.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
			Asn: sp.AS, RouterId: sp.RouterID.String(),
			ListenPort: int32(sp.address.Port()), ListenAddresses: []string{sp.address.Addr().String()},
		}})
		if err == nil {
			return nil
		}
	}
	return err
}

func freePort(ctx context.Context) (netip.AddrPort, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}

// addPeer adds the peer and waits until its connection would be taken.
func (sp *speaker) addPeer(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	active := make(chan struct{}, 1)
	err := sp.server.WatchEvent(ctx, &api.WatchEventRequest{Peer: &api.WatchEventRequest_Peer{}}, func(r *api.WatchEventResponse) {
		if p := r.GetPeer(); p != nil && p.GetPeer().GetState().GetSessionState() == api.PeerState_ACTIVE {
			select {
			case active <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		return err
	}
	p := &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: sp.Peer.String(), AuthPassword: sp.Key},
		Transport: &api.Transport{PassiveMode: true},
		Timers:    &api.Timers{Config: &api.TimersConfig{HoldTime: uint64(sp.Hold), KeepaliveInterval: uint64(sp.Keepalive)}},
		AfiSafis:  []*api.AfiSafi{sp.family(api.Family_AFI_IP), sp.family(api.Family_AFI_IP6)},
	}
	if sp.NextHop.Is4() { // over IPv4 no IPv6 next hop is to be had
		p.AfiSafis = p.AfiSafis[:1]
	}
	if sp.Restart > 0 {
		p.GracefulRestart = &api.GracefulRestart{Enabled: true, RestartTime: uint32(sp.Restart)}
	}
	if err := sp.server.AddPeer(ctx, &api.AddPeerRequest{Peer: p}); err != nil {
		return err
	}
	select {
	case <-active:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (sp *speaker) family(afi api.Family_Afi) *api.AfiSafi {
	return &api.AfiSafi{
		Config:            &api.AfiSafiConfig{Family: &api.Family{Afi: afi, Safi: api.Family_SAFI_UNICAST}, Enabled: true},
		MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: sp.Restart > 0}},
	}
}

// change announces and withdraws.
func (sp *speaker) change(ctx context.Context, c change) error {
	for _, r := range c.Announce {
		if sp.NextHop.Is4() && r.Prefix.Addr().Is6() {
			continue
		}
		path, err := sp.path(r)
		if err == nil {
			_, err = sp.server.AddPath(ctx, &api.AddPathRequest{Path: path})
		}
		if err != nil {
			return fmt.Errorf("announce %s: %w", r.Prefix, err)
		}
	}
	for _, p := range c.Withdraw {
		path, err := sp.path(Route{Prefix: p})
		if err == nil {
			err = sp.server.DeletePath(ctx, &api.DeletePathRequest{Path: path})
		}
		if err != nil {
			return fmt.Errorf("withdraw %s: %w", p, err)
		}
	}
	return nil
}

// path is a route as GoBGP takes it. IPv4 with an IPv6 next hop goes into
// MP_REACH_NLRI (RFC 8950).
func (sp *speaker) path(r Route) (*api.Path, error) {
	family := &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
	if r.Prefix.Addr().Is4() {
		family.Afi = api.Family_AFI_IP
	}
	var err error
	pack := func(m proto.Message) *anypb.Any {
		a, e := anypb.New(m)
		err = errors.Join(err, e)
		return a
	}
	nlri := pack(&api.IPAddressPrefix{Prefix: r.Prefix.Addr().String(), PrefixLen: uint32(r.Prefix.Bits())})
	next := sp.NextHop.WithZone("").String()
	attributes := []*anypb.Any{pack(&api.OriginAttribute{Origin: 0})}
	if sp.NextHop.Is4() {
		attributes = append(attributes, pack(&api.NextHopAttribute{NextHop: next}))
	} else {
		attributes = append(attributes, pack(&api.MpReachNLRIAttribute{Family: family, NextHops: []string{next}, Nlris: []*anypb.Any{nlri}}))
	}
	if r.Prepend > 0 {
		numbers := make([]uint32, r.Prepend)
		for i := range numbers {
			numbers[i] = sp.AS
		}
		attributes = append(attributes, pack(&api.AsPathAttribute{Segments: []*api.AsSegment{{Type: api.AsSegment_AS_SEQUENCE, Numbers: numbers}}}))
	}
	if r.MED != nil {
		attributes = append(attributes, pack(&api.MultiExitDiscAttribute{Med: *r.MED}))
	}
	if r.LocalPref != nil {
		attributes = append(attributes, pack(&api.LocalPrefAttribute{LocalPref: *r.LocalPref}))
	}
	if len(r.Communities) > 0 {
		c := &api.CommunitiesAttribute{}
		for _, v := range r.Communities {
			c.Communities = append(c.Communities, uint32(v))
		}
		attributes = append(attributes, pack(c))
	}
	if len(r.Large) > 0 {
		c := &api.LargeCommunitiesAttribute{}
		for _, v := range r.Large {
			c.Communities = append(c.Communities, &api.LargeCommunity{GlobalAdmin: v[0], LocalData1: v[1], LocalData2: v[2]})
		}
		attributes = append(attributes, pack(c))
	}
	return &api.Path{Family: family, Nlri: nlri, Pattrs: attributes}, err
}

// engineLog is GoBGP's logger: a line each, which the parent keeps for the case
// that the speaker dies.
type engineLog struct{ to io.Writer }

func (l engineLog) say(level, m string, f log.Fields) {
	var line strings.Builder
	line.WriteString(level + " " + m)
	for k, v := range f {
		fmt.Fprintf(&line, " %s=%q", k, fmt.Sprint(v))
	}
	fmt.Fprintln(l.to, line.String())
}

// Panic ends the process: GoBGP calls it where it does not know how to go on.
func (l engineLog) Panic(m string, f log.Fields) { l.say("panic", m, f); panic(m) }

// Fatal is called from goroutines that can go on.
func (l engineLog) Fatal(m string, f log.Fields) { l.say("fatal", m, f) }
func (l engineLog) Error(m string, f log.Fields) { l.say("error", m, f) }
func (l engineLog) Warn(m string, f log.Fields)  { l.say("warn", m, f) }
func (l engineLog) Info(string, log.Fields)      {}
func (l engineLog) Debug(string, log.Fields)     {}
func (l engineLog) SetLevel(log.LogLevel)        {}
func (l engineLog) GetLevel() log.LogLevel       { return log.WarnLevel }
