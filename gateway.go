package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/upstreams"
)

// gatewayCommand is `razor gateway`, with what is below it.
func (c *cli) gatewayCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "gateway", Short: "Announce prefixes to routers by BGP", Long: gatewayLong, Example: gatewayExample,
		Args: cobra.NoArgs, RunE: c.gateway,
	}
	cmd.AddCommand(c.traceCommand())
	return cmd
}

// gateway announces until the context of the command ends.
func (c *cli) gateway(cmd *cobra.Command, _ []string) error {
	cfg, err := c.loadGateway()
	if err != nil {
		return err
	}
	log := cfg.Log.logger(c.stderr)
	log.Info("starting", "version", version, "config", c.config)
	hangups := make(chan os.Signal, 4)
	signal.Notify(hangups, syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(hangups)
	opt := gateway.Options{
		Redis: cfg.Redis, Zones: cfg.DNS.RedisZones(), Speaker: []string{"/proc/self/exe", bgp.SpeakerCommand},
		Signals: hangups, Read: readYAML,
		Reload: func() (gateway.Config, bool, error) {
			next, err := c.loadGateway()
			if err != nil {
				return gateway.Config{}, false, err
			}
			return next.Gateway, !cfg.sameBeside(next), nil
		},
	}
	err = cfg.file.explain(serve(cmd.Context(), cfg.HTTP.gateway(), log, func(ctx context.Context, p process) error {
		opt.Handle = p.pages.Handle
		return gateway.Run(ctx, cfg.Gateway, opt, p.log, p.registry, p.ready.set)
	}))
	if errors.Is(err, gateway.ErrRestart) {
		return again(cmd.Context())
	}
	return err
}

// loadGateway is the configuration of a gateway.
func (c *cli) loadGateway() (*config, error) {
	cfg, err := loadConfig(c.config)
	if err == nil && !cfg.Gateway.Used() {
		err = fileError(c.config + ": no gateway: section; want peers and sets to announce, see gateway: in the reference configuration")
	}
	return cfg, err
}

// sameBeside tells whether two files are the same for a gateway but for its section.
func (c *config) sameBeside(next *config) bool {
	return reflect.DeepEqual(c.Redis, next.Redis) && slices.Equal(c.DNS.RedisZones(), next.DNS.RedisZones()) &&
		c.HTTP.Gateway == next.HTTP.Gateway && c.Log == next.Log
}

// again makes this process one of the binary that is there now, with the same
// command line. Whoever told it to end meanwhile is obeyed: a signal that was taken
// is not seen by the next one.
func again(ctx context.Context) error {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	signal.Reset(os.Interrupt, syscall.SIGTERM) // from here on they end the process
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(10 * time.Millisecond): // for one that is on its way to ctx
	}
	return fmt.Errorf("start %s again: %w", path, syscall.Exec(path, os.Args, os.Environ()))
}

func (c *cli) status(cmd *cobra.Command, _ []string) error {
	asJSON, _ := cmd.Flags().GetBool("json")
	return c.onGateway(cmd, func(ctx context.Context, dir string) error {
		s, err := gateway.StatusLive(ctx, dir)
		switch {
		case err != nil:
			return err
		case asJSON:
			return writeJSON(c.stdout, s)
		}
		return s.Write(c.stdout, time.Now())
	})
}

// drainGatewayCommand is `razor drain gateway`.
func (c *cli) drainGatewayCommand() *cobra.Command {
	var force bool
	var reason string
	cmd := &cobra.Command{
		Use: "gateway [NAME]", Short: "Withdraw what a gateway announces, in an orderly way", Long: drainGatewayLong, Example: drainGatewayExample,
		Args: cobra.MaximumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && force:
				return errors.New("--force is for the edge of a NAME")
			case len(args) > 0 && reason != "":
				return errors.New("--reason is for the gateway on this host, a STATE in Redis has none")
			case len(args) > 0:
				return c.write(cmd, func(ctx context.Context, w *upstreams.Writer, cfg *config) (string, error) {
					return w.DrainEdge(ctx, cfg.DNS.RedisZones(), args[0], force)
				})
			}
			return c.say(cmd, func(ctx context.Context, dir string) (string, error) { return gateway.DrainLive(ctx, dir, reason) })
		},
	}
	stateDirFlag(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "with NAME: also the last active edge of a route")
	cmd.Flags().StringVar(&reason, "reason", "", "`text` for the status, the log and the peers (RFC 9003)")
	return cmd
}

func (c *cli) undrainGateway(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return c.undrainEdge(cmd, args)
	}
	return c.say(cmd, gateway.UndrainLive)
}

// drainSiteCommand is `razor drain site`.
func (c *cli) drainSiteCommand() *cobra.Command {
	var reason string
	var force bool
	cmd := &cobra.Command{
		Use: "site", Short: "Send the new flows of this site to others", Long: drainSiteLong, Example: drainSiteExample,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return c.say(cmd, func(ctx context.Context, dir string) (string, error) {
				return gateway.DrainSiteLive(ctx, dir, reason, force)
			})
		},
	}
	stateDirFlag(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "`text` for the status and the log")
	cmd.Flags().BoolVar(&force, "force", false, "also where new flows would have nowhere to go")
	return cmd
}

func (c *cli) undrainSite(cmd *cobra.Command, _ []string) error {
	return c.say(cmd, gateway.UndrainSiteLive)
}

func (c *cli) restartGateway(cmd *cobra.Command, _ []string) error {
	return c.say(cmd, gateway.RestartLive)
}

// say runs a verb on the gateway of this host, and prints what it says.
func (c *cli) say(cmd *cobra.Command, verb func(ctx context.Context, stateDir string) (string, error)) error {
	return c.onGateway(cmd, func(ctx context.Context, dir string) error {
		said, err := verb(ctx, dir)
		if err == nil {
			_, err = fmt.Fprintln(c.stdout, said)
		}
		return err
	})
}

// stateDirFlag makes cmd take --state-dir.
func stateDirFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("state-dir", "", "state `directory` of the gateway, instead of the configuration's")
	return cmd
}

func (c *cli) onGateway(cmd *cobra.Command, do func(ctx context.Context, stateDir string) error) error {
	// A file that is being edited is no reason not to find the gateway.
	if dir, _ := cmd.Flags().GetString("state-dir"); dir != "" {
		return do(cmd.Context(), dir)
	}
	cfg, err := c.loadGateway()
	if err != nil {
		return err
	}
	return do(cmd.Context(), cfg.Gateway.StateDir)
}

// traceCommand is `razor gateway trace`.
func (c *cli) traceCommand() *cobra.Command {
	var o gateway.TraceOptions
	cmd := &cobra.Command{
		Use: "trace", Short: "Show what the balancer does with packets, and why", Long: traceLong, Example: traceExample,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.loadGateway()
			if err != nil {
				return err
			}
			if len(cfg.Gateway.Dataplane.Interfaces) == 0 {
				return fileError(c.config + ": gateway.dataplane.interfaces: missing: without a dataplane there is nothing to trace")
			}
			return gateway.Trace(cmd.Context(), &cfg.Gateway, o, c.stdout, c.stderr)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.VIP, "vip", "", "only packets to this `VIP` or part of one, such as 198.51.100.1:443/tcp")
	f.StringVar(&o.Client, "client", "", "only flows from this address or `prefix`")
	f.StringSliceVar(&o.Reasons, "reason", nil, "only packets of which any of these `words` became so")
	f.Uint32Var(&o.Every, "every", 1, "look at one of `N` packets")
	f.IntVar(&o.Count, "count", 0, "end after `N` packets")
	f.StringVarP(&o.File, "write", "w", "", "also write frames to this `file` in pcapng; - is the output, then without lines")
	return cmd
}

// speaker is the child process of a gateway. It ends when its parent closes its
// input: signals for the whole group are the parent's.
func (c *cli) speaker(cmd *cobra.Command, _ []string) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGQUIT)
	return bgp.Speak(context.WithoutCancel(cmd.Context()), os.Stdin, c.stdout, c.stderr)
}
