package consul

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/razor-steering/razor/upstreams"
)

const (
	dialTimeout    = 2 * time.Second
	requestTimeout = 5 * time.Second // of what does not wait for a change
	answerTimeout  = time.Minute     // of an answer for a large service, from a Consul that is busy
)

// newClient is a client of the agent, whose section has a key, and the way to ask it for
// health. Every list
// has a query waiting: none of their connections is to be closed and opened again
// between two answers.
func newClient(cfg AgentConfig, key string) (*api.Client, *agent, error) {
	u, err := url.Parse(cfg.Address)
	if err != nil {
		return nil, nil, err
	}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	transport := &http.Transport{
		DisableCompression: true, // the agent is near, and packing a long list takes longer than sending it
		DialContext:        dialer.DialContext, TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 1 << 16, IdleConnTimeout: 30 * time.Second,
	}
	out := &api.Config{Scheme: u.Scheme, Address: hostPort(u), HttpClient: &http.Client{Transport: transport}}
	switch u.Scheme {
	case "unix":
		out.Scheme, out.Address = "http", "localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", u.Path)
		}
	case "https":
		if cfg.TLS != nil {
			if transport.TLSClientConfig, err = cfg.TLS.Config(u.Hostname()); err != nil {
				return nil, nil, err
			}
		}
	}
	if out.Token = cfg.Token; cfg.TokenFile != "" {
		data, err := os.ReadFile(cfg.TokenFile)
		if err != nil {
			return nil, nil, unreadable(key+".token_file", cfg.TokenFile, err)
		}
		out.Token = strings.TrimSpace(string(data))
	}
	client, err := api.NewClient(out)
	return client, &agent{http: out.HttpClient, base: out.Scheme + "://" + out.Address, token: out.Token}, err
}

// unreadable is the defect of a setting that names a file.
func unreadable(key, file string, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return upstreams.Defect{Key: key, Member: file, Reason: err.Error(), Want: "a file that can be read"}
}
