package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/upstreams"
)

// liveTimeout bounds one reading of all of Redis.
const liveTimeout = time.Minute

// checkCommand is `razor check`.
func (c *cli) checkCommand() *cobra.Command {
	var old string
	cmd := &cobra.Command{
		Use: "check", Short: "Say what is wrong with the configuration and the lists in Redis", Long: checkLong, Example: checkExample,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return c.check(cmd, old) },
	}
	cmd.Flags().StringVar(&old, "diff", "", "print what the configuration would announce and withdraw that `file` does not")
	return cmd
}

// check says everything that would be wrong about the roles, without them; old is
// the configuration to compare the announcements with, if any.
func (c *cli) check(cmd *cobra.Command, old string) error {
	ctx := cmd.Context()
	cfg, err := loadConfig(c.config)
	if err != nil {
		return err
	}
	if old != "" {
		return c.diff(old, cfg)
	}
	bad := c.checkGateway(ctx, cfg)
	bad = c.checkAgent(cfg) || bad
	for _, d := range c.tryPorts(ctx, cfg) {
		bad = true
		fmt.Fprintln(c.stderr, cfg.file.explain(d))
	}
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	defects, err := upstreams.CheckLive(ctx, cfg.Redis, cfg.DNS.RedisZones())
	err = upstreams.SettingDefect(err)
	if d, ok := errors.AsType[upstreams.Defect](err); ok {
		bad = true
		fmt.Fprintln(c.stderr, cfg.file.explain(d))
	} else if err != nil {
		fmt.Fprintf(c.stderr, "razor: lists not checked, no answer from redis at %s: %v\n", cfg.Redis.Address, err)
	}
	if err == nil && cfg.Gateway.Lists {
		pool, err := upstreams.PoolLive(ctx, cfg.Redis, cfg.DNS.RedisZones(), cfg.Gateway.Name)
		if err != nil {
			return err
		}
		defects = append(defects, cfg.Gateway.Unannounced(pool)...)
	}
	for _, d := range defects {
		bad = true
		fmt.Fprintln(c.stderr, "redis:", d)
	}
	if bad {
		return errReported
	}
	_, err = fmt.Fprintf(c.stdout, "%s: good\n", c.config)
	return err
}

// checkGateway says who the gateway would be on this host, or why it cannot be.
func (c *cli) checkGateway(ctx context.Context, cfg *config) (bad bool) {
	if !cfg.Gateway.Used() {
		return false
	}
	for _, d := range cfg.Gateway.CheckFiles() {
		bad = true
		fmt.Fprintln(c.stderr, cfg.file.explain(d))
	}
	whole, wrong, err := cfg.Gateway.InConsul(ctx, readYAML)
	if d, ok := errors.AsType[upstreams.Defect](err); ok {
		bad = true
		fmt.Fprintln(c.stderr, cfg.file.explain(d))
	} else if err != nil {
		fmt.Fprintf(c.stderr, "razor: other sites not checked, no answer from consul at %s: %v\n", cfg.Gateway.Consul.Address, err)
	}
	for _, d := range wrong {
		bad = true
		fmt.Fprintln(c.stderr, "consul:", d)
	}
	for _, d := range whole.CheckFabric() {
		fmt.Fprintln(c.stderr, "warning:", cfg.file.explain(d))
	}
	id, err := cfg.Gateway.Identity()
	if err != nil {
		fmt.Fprintln(c.stderr, cfg.file.explain(err))
		return true
	}
	fmt.Fprintln(c.stdout, "gateway:", id)
	return bad
}

// diff prints what a new configuration would announce and withdraw.
func (c *cli) diff(old string, next *config) error {
	was, err := loadConfig(old)
	if err != nil {
		return err
	}
	host, err := gateway.ReadHost()
	if err != nil {
		return err
	}
	return gateway.Diff(&was.Gateway, &next.Gateway, host, c.stdout)
}
