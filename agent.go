package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/razor-steering/razor/agent"
)

// agent takes packets until the context of the command ends.
func (c *cli) agent(cmd *cobra.Command, _ []string) error {
	cfg, err := c.loadAgent()
	if err != nil {
		return err
	}
	log := cfg.Log.logger(c.stderr)
	log.Info("starting", "version", version, "config", c.config)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(hangups)
	opt := agent.Options{Signals: hangups, Check: func() error {
		_, err := c.loadAgent()
		return err
	}}
	err = cfg.file.explain(serve(cmd.Context(), cfg.HTTP.agent(), log, func(ctx context.Context, p process) error {
		return agent.Run(ctx, cfg.Agent, opt, p.log, p.registry, p.ready.set)
	}))
	if errors.Is(err, agent.ErrRestart) {
		return again(cmd.Context())
	}
	return err
}

// loadAgent is the configuration of an agent.
func (c *cli) loadAgent() (*config, error) {
	cfg, err := loadConfig(c.config)
	if err == nil && !cfg.Agent.Used() {
		err = fileError(c.config + ": no agent: section; want interfaces, sr_block and vips, see agent: in the reference configuration")
	}
	return cfg, err
}

// checkAgent says what is wrong about this host for the agent.
func (c *cli) checkAgent(cfg *config) (bad bool) {
	if !cfg.Agent.Used() {
		return false
	}
	for _, d := range cfg.Agent.CheckHost() {
		bad = true
		fmt.Fprintln(c.stderr, cfg.file.explain(d))
	}
	return bad
}
