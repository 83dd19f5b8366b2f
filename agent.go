package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

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
	opt := agent.Options{Signals: hangups, Levels: new(agent.Levels), Check: func() error {
		_, err := c.loadAgent()
		return err
	}}
	err = cfg.file.explain(serve(cmd.Context(), cfg.HTTP.agent(), log, func(ctx context.Context, p process) error {
		return agent.Run(ctx, cfg.Agent, opt, p.log, p.registry, p.ready.set)
	}, opt.Levels.Register))
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

// drainAgentCommand is `razor drain agent`.
func (c *cli) drainAgentCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "agent", Short: "Have gateways send no new flows to this backend", Long: drainAgentLong, Example: drainAgentExample,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return c.onAgent(cmd, func(ctx context.Context, dir string) (string, error) { return agent.DrainLive(ctx, dir, reason) })
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`text` for the status and the log")
	return agentDirFlag(cmd)
}

// agentDirFlag makes cmd take --state-dir.
func agentDirFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("state-dir", "", "state `directory` of the agent, instead of the configuration's")
	return cmd
}

// agentDir is the state directory of the agent of this host.
func (c *cli) agentDir(cmd *cobra.Command) (string, error) {
	if dir, _ := cmd.Flags().GetString("state-dir"); dir != "" {
		return dir, nil
	}
	cfg, err := c.loadAgent()
	if err != nil {
		return "", err
	}
	return cfg.Agent.StateDir, nil
}

// onAgent runs a verb on the agent of this host, and prints what it says.
func (c *cli) onAgent(cmd *cobra.Command, verb func(ctx context.Context, stateDir string) (string, error)) error {
	dir, err := c.agentDir(cmd)
	if err != nil {
		return err
	}
	said, err := verb(cmd.Context(), dir)
	if err == nil {
		_, err = fmt.Fprintln(c.stdout, said)
	}
	return err
}

func (c *cli) undrainAgent(cmd *cobra.Command, _ []string) error {
	return c.onAgent(cmd, agent.UndrainLive)
}

func (c *cli) agentStatus(cmd *cobra.Command, _ []string) error {
	dir, err := c.agentDir(cmd)
	if err != nil {
		return err
	}
	s, err := agent.StatusLive(cmd.Context(), dir)
	if err != nil {
		return err
	}
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		return writeJSON(c.stdout, s)
	}
	return s.Write(c.stdout, time.Now())
}

// agentCommand is `razor agent`.
func (c *cli) agentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "agent", Short: "Take the packets that gateways send to this backend", Long: agentLong, Example: agentExample,
		Args: cobra.NoArgs, RunE: c.agent,
	}
	cmd.AddCommand(agentDirFlag(jsonFlag(&cobra.Command{
		Use: "status", Short: "Show what the running agent tells gateways, and why", Long: agentStatusLong, Example: agentStatusExample,
		Args: cobra.NoArgs, RunE: c.agentStatus,
	})))
	return cmd
}
