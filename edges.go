package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/razor-steering/razor/upstreams"
)

func (c *cli) edges(cmd *cobra.Command, _ []string) error {
	asJSON, _ := cmd.Flags().GetBool("json")
	return c.live(cmd, func(ctx context.Context, cfg *config) error {
		return upstreams.EdgesLive(ctx, cfg.Redis, cfg.DNS.RedisZones(), asJSON, c.stdout)
	})
}

// drainEdgeCommand is `razor drain edge`.
func (c *cli) drainEdgeCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "edge NAME", Short: "Answer the addresses of an edge no longer", Long: drainEdgeLong, Example: drainEdgeExample,
		Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return c.write(cmd, func(ctx context.Context, w *upstreams.Writer, cfg *config) (string, error) {
				return w.DrainEdge(ctx, cfg.DNS.RedisZones(), args[0], force)
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also the last active edge of a route")
	return cmd
}

func (c *cli) undrainEdge(cmd *cobra.Command, args []string) error {
	return c.write(cmd, func(ctx context.Context, w *upstreams.Writer, cfg *config) (string, error) {
		return w.UndrainEdge(ctx, cfg.DNS.RedisZones(), args[0])
	})
}

// write runs a verb that changes lists on the primary, and prints what it says.
func (c *cli) write(cmd *cobra.Command, verb func(context.Context, *upstreams.Writer, *config) (string, error)) error {
	return c.live(cmd, func(ctx context.Context, cfg *config) error {
		w := upstreams.NewWriter(cfg.Redis)
		defer w.Close()
		said, err := verb(ctx, w, cfg)
		if err == nil {
			_, err = fmt.Fprintln(c.stdout, said)
		}
		return err
	})
}
