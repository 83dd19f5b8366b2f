package upstreams

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	writerPool = 32          // many lists are changed at once, on a primary that may be far
	writerWait = time.Minute // for one of its connections
)

// Writer changes lists on the primary. It looks for it when it is first needed
// and again after every failure: by Sentinel where the configuration names one,
// else at the configured address, or at the primary that the replica there
// follows. It is safe for concurrent use.
type Writer struct {
	cfg Config

	mu     sync.Mutex
	client *redis.Client // of the primary; nil while it is not known
}

// NewWriter makes a writer. Nothing is connected to before it is used.
func NewWriter(cfg Config) *Writer { return &Writer{cfg: cfg} }

// Close ends its connections.
func (w *Writer) Close() { w.forget(nil) }

// do runs fn with a client of the primary, a second time with another one if the
// first is no longer it: there nothing was done. What fn did is not known when the
// error is one of the link; the next call looks for the primary anew.
func (w *Writer) do(ctx context.Context, fn func(*redis.Client) error) error {
	err := w.try(ctx, fn)
	if notPrimary(err) {
		err = w.try(ctx, fn)
	}
	return err
}

func (w *Writer) try(ctx context.Context, fn func(*redis.Client) error) error {
	c, err := w.primary(ctx)
	if err != nil {
		setting := "redis.address"
		if w.cfg.Sentinel != nil {
			setting = "redis.sentinel"
		}
		return fmt.Errorf("no primary to write to by %s: %w", setting, err)
	}
	err = fn(c)
	if notPrimary(err) || isLink(err) && ctx.Err() == nil {
		w.forget(c)
	}
	return err
}

// isLink tells an error of the connection to Redis.
func isLink(err error) bool {
	_, fenced := errors.AsType[*FencedError](err)
	return err != nil && !isReply(err) && !fenced && !errors.Is(err, redis.TxFailedErr) && !errors.Is(err, redis.Nil) && !errors.Is(err, redis.ErrPoolTimeout)
}

// notPrimary tells the replies of a server that is not the primary, or not yet.
func notPrimary(err error) bool {
	e, ok := errors.AsType[redis.Error](err)
	return ok && slices.ContainsFunc([]string{"READONLY", "MASTERDOWN", "LOADING"}, func(code string) bool {
		return strings.HasPrefix(e.Error(), code)
	})
}

// ReplicationID is that of the primary: another one means another server, or that
// it was started again, and writes may be lost. "" where it does not tell.
func (w *Writer) ReplicationID(ctx context.Context) (string, error) {
	id := ""
	err := w.do(ctx, func(c *redis.Client) error {
		text, err := c.Info(ctx, "replication").Result()
		id = parseInfo(text).replid
		return err
	})
	return id, err
}

// SayHealth writes what the gateway of an edge says of it. The account needs +set of that
// key alone.
func (w *Writer) SayHealth(ctx context.Context, edge string, said EdgeSaid) error {
	wire, err := WireName(trimDot(edge))
	if err != nil {
		return fmt.Errorf("%s: %w", edge, err)
	}
	key := keyID{kind: kindHealth, name: wire}.spelling()
	err = w.do(ctx, func(c *redis.Client) error { return c.Set(ctx, key, said.String(), 0).Err() })
	if err != nil {
		return fmt.Errorf("%s: %w", key, settingDefect("redis.", "an account that may write "+key+" on the primary, such as one with (+set ~"+key+")", err))
	}
	return nil
}

// forget closes a client that is of no more use; nil means whichever it is.
func (w *Writer) forget(c *redis.Client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.client != nil && (c == nil || c == w.client) {
		_ = w.client.Close()
		w.client = nil
	}
}

// primary is the client of the primary.
func (w *Writer) primary(ctx context.Context) (*redis.Client, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.client != nil {
		return w.client, nil
	}
	c, err := w.locate(ctx)
	w.client = c
	return c, err
}

func (w *Writer) locate(ctx context.Context) (*redis.Client, error) {
	addr := w.cfg.Address
	if s := w.cfg.Sentinel; s != nil {
		var err error
		if addr, err = s.primary(ctx); err != nil {
			return nil, err
		}
	}
	c, info, err := w.connect(ctx, addr)
	if err != nil || info.role != "slave" {
		return c, err
	}
	_ = c.Close()
	if w.cfg.Sentinel != nil {
		return nil, fmt.Errorf("%s is still a replica: the failover is not finished", addr)
	}
	c, info, err = w.connect(ctx, info.primary)
	if err == nil && info.role == "slave" {
		_ = c.Close()
		return nil, fmt.Errorf("%s follows %s, which is a replica too: redis.address of a primary or of its replica is needed", w.cfg.Address, c.Options().Addr)
	}
	return c, err
}

// connect makes a client of one server and asks what it is. A server that does
// not tell (no INFO replication) counts as a primary.
func (w *Writer) connect(ctx context.Context, addr string) (*redis.Client, replicationInfo, error) {
	cfg := w.cfg
	cfg.Address = addr
	opt, err := options(cfg)
	if err != nil {
		return nil, replicationInfo{}, err
	}
	opt.PoolSize, opt.PoolTimeout = writerPool, writerWait
	c := redis.NewClient(opt)
	text, err := c.Info(ctx, "replication").Result()
	if err != nil && (!isReply(err) || notPrimary(err)) {
		_ = c.Close()
		return nil, replicationInfo{}, fmt.Errorf("redis primary %s: %w", addr, err)
	}
	return c, parseInfo(text), nil
}

// primary asks the sentinels, one after another, where the primary is.
func (s *SentinelConfig) primary(ctx context.Context) (string, error) {
	silenceLibrary()
	var errs []error
	for _, addr := range s.Addresses {
		tlsConfig, err := s.TLS.of(addr)
		if err != nil {
			return "", err
		}
		opt := &redis.Options{
			Addr: addr, TLSConfig: tlsConfig, Username: s.User, Password: s.Password, DialTimeout: dialTimeout, ReadTimeout: dialTimeout,
			MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		}
		c := redis.NewSentinelClient(opt)
		got, err := c.GetMasterAddrByName(ctx, s.Name).Result()
		_ = c.Close()
		switch {
		case err == nil && len(got) == 2:
			return net.JoinHostPort(got[0], got[1]), nil
		case err == nil || errors.Is(err, redis.Nil):
			err = errors.New("knows no primary of that name")
		}
		err = fmt.Errorf("sentinel %s: %q: %w", addr, s.Name, err)
		errs = append(errs, settingDefect("redis.sentinel.", "an account with +sentinel|get-master-addr-by-name +@connection", err))
	}
	return "", errors.Join(errs...)
}
