package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/razor"
	"github.com/razor-steering/razor/upstreams"
)

// dns serves until the context of the command ends.
func (c *cli) dns(cmd *cobra.Command, _ []string) error {
	cfg, err := loadConfig(c.config)
	if err != nil {
		return err
	}
	log := cfg.Log.logger(c.stderr)
	log.Info("starting", "version", version, "config", c.config)
	return cfg.file.explain(serve(cmd.Context(), cfg.HTTP.dns(), log, func(ctx context.Context, p process) error {
		return razor.Run(ctx, cfg.DNS, cfg.Redis, p.log, p.registry, p.ready.set)
	}))
}

// demoCommand is `razor demo`.
func (c *cli) demoCommand() *cobra.Command {
	var cfg razor.DemoConfig
	cmd := &cobra.Command{
		Use: "demo", Short: "Try razor: a sample zone and a Redis of its own", Long: demoLong, Example: demoExample,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return c.demo(cmd.Context(), cfg) },
	}
	cmd.Flags().IntVar(&cfg.DNSPort, "dns-port", 5300, "`port` for DNS, on 127.0.0.1 and [::1]")
	cmd.Flags().IntVar(&cfg.RedisPort, "redis-port", 6390, "`port` for redis-cli, on 127.0.0.1")
	cmd.Flags().IntVar(&cfg.HTTPPort, "http-port", 8053, "`port` for metrics, on 127.0.0.1")
	return cmd
}

func (c *cli) demo(ctx context.Context, cfg razor.DemoConfig) error {
	logs := logConfig{Level: "info", Format: "text"}
	web := endpoint{"--http-port", net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.HTTPPort))} // there is no file to point into
	return serve(ctx, web, logs.logger(c.stderr), func(ctx context.Context, p process) error {
		return razor.Demo(ctx, cfg, p.log, p.registry, p.ready.set, c.stdout)
	})
}

// A process is what a role shares with whoever watches it.
type process struct {
	log      *slog.Logger
	registry *prometheus.Registry
	ready    *readiness
	pages    *http.ServeMux // what the HTTP server answers; a role may have pages of its own
}

// serve runs one role, with the HTTP server and systemd's notices beside it,
// until ctx ends or one of them fails. What is registered also is answered from the first
// moment on.
func serve(ctx context.Context, e endpoint, log *slog.Logger, role func(context.Context, process) error, also ...func(*http.ServeMux)) error {
	p := process{log: log, registry: newRegistry(), ready: newReadiness(), pages: http.NewServeMux()}
	for _, register := range also {
		register(p.pages)
	}
	web, err := listenHTTP(ctx, e, p)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	// Those who watch see the role to its end, which may take it a while.
	watch, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	g.Go(func() error { return web.serve(watch) })
	g.Go(func() error { notifySystemd(watch, p.ready, log); return nil })
	g.Go(func() error {
		err := role(ctx, p)
		stop(err)
		return err
	})
	return g.Wait()
}

// jsonFlag makes cmd take --json.
func jsonFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("json", false, "write JSON")
	return cmd
}

// live runs a verb on the lists in Redis, within liveTimeout.
func (c *cli) live(cmd *cobra.Command, verb func(ctx context.Context, cfg *config) error) error {
	cfg, err := loadConfig(c.config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), liveTimeout)
	defer cancel()
	return cfg.file.explain(upstreams.SettingDefect(verb(ctx, cfg)))
}

func (c *cli) upstreamsList(cmd *cobra.Command, routes []string) error {
	asJSON, _ := cmd.Flags().GetBool("json")
	return c.live(cmd, func(ctx context.Context, cfg *config) error {
		return upstreams.ListLive(ctx, cfg.Redis, cfg.DNS.RedisZones(), routes, asJSON, c.stdout)
	})
}

func (c *cli) upstreamsCheck(cmd *cobra.Command, _ []string) error {
	asJSON, _ := cmd.Flags().GetBool("json")
	return c.live(cmd, func(ctx context.Context, cfg *config) error {
		defects, err := upstreams.CheckLive(ctx, cfg.Redis, cfg.DNS.RedisZones())
		if err != nil {
			return err
		}
		if asJSON {
			err = writeJSON(c.stdout, append([]upstreams.Defect{}, defects...)) // none is [], not null
		} else {
			for _, d := range defects {
				fmt.Fprintln(c.stdout, d)
			}
		}
		if err == nil && len(defects) > 0 {
			return errReported
		}
		return err
	})
}

// writeJSON writes a value so that people can read it too.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (c *cli) upstreamsDiff(cmd *cobra.Command, args []string) error {
	return c.live(cmd, func(ctx context.Context, cfg *config) error {
		file := cfg.DNS.StateDir
		if len(args) > 0 {
			file = args[0]
		}
		differs, err := upstreams.DiffLive(ctx, cfg.Redis, cfg.DNS.RedisZones(), file, c.stdout)
		if err == nil && differs {
			return errReported
		}
		return err
	})
}

func (c *cli) upstreamsWatch(cmd *cobra.Command, _ []string) error {
	cfg, err := loadConfig(c.config)
	if err != nil {
		return err
	}
	return upstreams.WatchLive(cmd.Context(), cfg.Redis, cfg.DNS.RedisZones(), cfg.Log.logger(c.stderr), c.stdout)
}

// acceptCommand is `razor upstreams accept`.
func (c *cli) acceptCommand() *cobra.Command {
	var stateDir string
	cmd := &cobra.Command{
		Use: "accept", Short: "End a hold: what Redis has now is right", Long: acceptLong, Example: acceptExample,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return c.accept(cmd.Context(), stateDir) },
	}
	cmd.Flags().StringVar(&stateDir, "state-dir", "", "state `directory` of the server, instead of the configuration's")
	return cmd
}

func (c *cli) accept(ctx context.Context, stateDir string) error {
	dirs := []string{stateDir}
	if stateDir == "" {
		cfg, err := loadConfig(c.config)
		if err != nil {
			return err
		}
		dirs = []string{cfg.DNS.StateDir}
		// A gateway follows the lists on its own.
		if dir := cfg.Gateway.StateDir; cfg.Gateway.Lists && upstreams.ControlAnswers(ctx, dir) {
			if dirs = append(dirs, dir); !upstreams.ControlAnswers(ctx, dirs[0]) {
				dirs = dirs[1:]
			}
		}
	}
	var errs []error
	for _, dir := range dirs {
		said, err := upstreams.AcceptLive(ctx, dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(c.stdout, said)
	}
	if len(errs) < len(dirs) {
		return nil // what one holds the other may not
	}
	return errors.Join(errs...)
}
