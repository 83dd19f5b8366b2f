package main

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/razor-steering/razor/upstreams"
	"github.com/razor-steering/razor/upstreams/consul"
)

// syncFlags are the ways to run `razor sync`; without any it keeps running.
type syncFlags struct {
	dryRun, once bool
	accept       []string
}

// syncCommand is `razor sync`.
func (c *cli) syncCommand() *cobra.Command {
	var flags syncFlags
	cmd := &cobra.Command{
		Use: "sync", Short: "Keep upstream lists as services in Consul are", Long: syncLong, Example: syncExample,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return c.sync(cmd.Context(), flags) },
	}
	cmd.Flags().BoolVar(&flags.dryRun, "dry-run", false, "print what would change and its blast radius; exit 1 if not all could")
	cmd.Flags().BoolVar(&flags.once, "once", false, "change the lists once and end; exit 1 if not all could be")
	cmd.Flags().StringSliceVar(&flags.accept, "accept", nil, "tell the active sync to let go what it holds of `APP`; may be repeated")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "once", "accept")
	return cmd
}

func (c *cli) sync(ctx context.Context, flags syncFlags) error {
	cfg, err := loadConfig(c.config)
	if err != nil {
		return err
	}
	log := cfg.Log.logger(c.stderr)
	open := func(reg prometheus.Registerer) (*consul.Sync, error) {
		s, err := consul.New(cfg.Sync, cfg.Redis, log, reg)
		return s, cfg.file.explain(err)
	}
	switch {
	case flags.dryRun || flags.once:
		s, err := open(nil)
		if err != nil {
			return err
		}
		complete, err := s.Once(ctx, flags.dryRun, c.stdout)
		if err == nil && !complete {
			return errReported
		}
		return err
	case len(flags.accept) > 0:
		s, err := open(nil)
		if err != nil {
			return err
		}
		return s.Accept(ctx, flags.accept, func(app string, h upstreams.Held) {
			fmt.Fprintf(c.stdout, "%s: accepted, consul has %d endpoints (held for %s since %s)\n", app, h.Wanted, h.Reason, h.Since.Format("2006-01-02 15:04:05 MST"))
		})
	}
	log.Info("starting", "version", version, "config", c.config)
	return cfg.file.explain(serve(ctx, cfg.HTTP.sync(), log, func(ctx context.Context, p process) error {
		s, err := open(p.registry)
		if err != nil {
			return err
		}
		return s.Run(ctx, p.ready.set)
	}))
}
