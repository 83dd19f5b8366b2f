package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/razor-steering/razor/upstreams"
)

// liveTimeout bounds one reading of all of Redis.
const liveTimeout = time.Minute

// check says everything that would be wrong about `razor dns`, without it.
func (c *cli) check(cmd *cobra.Command, _ []string) error {
	ctx := cmd.Context()
	cfg, err := loadConfig(c.config)
	if err != nil {
		return err
	}
	bad := false
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
