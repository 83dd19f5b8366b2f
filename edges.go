package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/razor-steering/razor/upstreams"
)

func (c *cli) edges(cmd *cobra.Command, _ []string) error {
	cfg, err := loadConfig(c.config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), liveTimeout)
	defer cancel()
	asJSON, _ := cmd.Flags().GetBool("json")
	err = upstreams.EdgesLive(ctx, cfg.Redis, cfg.DNS.RedisZones(), asJSON, c.stdout)
	return cfg.file.explain(upstreams.SettingDefect(err))
}

// drainEdgeCommand is `razor drain edge`.
func (c *cli) drainEdgeCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "edge NAME", Short: "Answer the addresses of an edge no longer", Long: drainEdgeLong, Example: drainEdgeExample,
		Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return c.write(cmd.Context(), func(ctx context.Context, w *upstreams.Writer, cfg *config) (string, error) {
				return w.DrainEdge(ctx, cfg.DNS.RedisZones(), args[0], force)
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also the last active edge of a route")
	return cmd
}

func (c *cli) undrainEdge(cmd *cobra.Command, args []string) error {
	return c.write(cmd.Context(), func(ctx context.Context, w *upstreams.Writer, cfg *config) (string, error) {
		return w.UndrainEdge(ctx, cfg.DNS.RedisZones(), args[0])
	})
}

// write runs a verb that changes lists on the primary, and prints what it says.
func (c *cli) write(ctx context.Context, verb func(context.Context, *upstreams.Writer, *config) (string, error)) error {
	cfg, err := loadConfig(c.config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	w := upstreams.NewWriter(cfg.Redis)
	defer w.Close()
	said, err := verb(ctx, w, cfg)
	if err != nil {
		return cfg.file.explain(err)
	}
	_, err = fmt.Fprintln(c.stdout, said)
	return err
}
