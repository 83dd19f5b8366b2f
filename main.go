// Razor steers traffic: it answers DNS from pools of addresses that operators
// keep in Redis. One binary holds all roles, a subcommand each.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/razor-steering/razor/gateway/bgp"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends cleanly, a later one at once. Some senders tell the
	// process and its group: that is one wish.
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line until it is done or ctx ends, and returns the
// exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &cli{stdout: stdout, stderr: stderr}
	root := c.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[fileError](err); ok {
		fmt.Fprintln(stderr, err) // begins with file and line, as editors like it
	} else if !errors.Is(err, errReported) {
		fmt.Fprintln(stderr, "razor:", err)
	}
	return 1
}

// errReported ends a command that has written already what is wrong.
var errReported = errors.New("problems were found")

// cli is one execution of the command line.
type cli struct {
	stdout, stderr io.Writer
	config         string // --config
}

// root is the command line: one row per subcommand.
func (c *cli) root() *cobra.Command {
	root := noun("razor", "Steer traffic: DNS from pools of addresses in Redis, anycast by BGP",
		&cobra.Command{
			Use: "dns", Short: "Answer DNS queries", Long: dnsLong, Example: dnsExample,
			Args: cobra.NoArgs, RunE: c.dns,
		},
		c.demoCommand(),
		c.checkCommand(),
		c.syncCommand(),
		c.gatewayCommand(),
		c.agentCommand(),
		stateDirFlag(jsonFlag(&cobra.Command{
			Use: "status", Short: "Show what the running gateway announces to whom, and why", Long: statusLong, Example: statusExample,
			Args: cobra.NoArgs, RunE: c.status,
		})),
		&cobra.Command{
			Use: bgp.SpeakerCommand, Short: "Be a BGP speaker of a gateway", Hidden: true,
			Args: cobra.NoArgs, RunE: c.speaker,
		},
		jsonFlag(&cobra.Command{
			Use: "edges", Short: "Show every edge, its share of its routes, and its state", Long: edgesLong, Example: edgesExample,
			Args: cobra.NoArgs, RunE: c.edges,
		}),
		c.planCommand(),
		c.whatIfCommand(),
		noun("drain", "Take something out of service by hand", c.drainEdgeCommand(), c.drainGatewayCommand(), c.drainSiteCommand(), c.drainAgentCommand()),
		noun("undrain", "Put back what was drained",
			&cobra.Command{
				Use: "edge NAME", Short: "Answer the addresses of an edge again", Long: undrainEdgeLong, Example: undrainEdgeExample,
				Args: cobra.ExactArgs(1), RunE: c.undrainEdge,
			},
			stateDirFlag(&cobra.Command{
				Use: "gateway [NAME]", Short: "Announce again", Long: undrainGatewayLong, Example: undrainGatewayExample,
				Args: cobra.MaximumNArgs(1), RunE: c.undrainGateway,
			}),
			stateDirFlag(&cobra.Command{
				Use: "site", Short: "Have this site take new flows again", Long: undrainSiteLong, Example: undrainSiteExample,
				Args: cobra.NoArgs, RunE: c.undrainSite,
			}),
			agentDirFlag(&cobra.Command{
				Use: "agent", Short: "Have gateways send new flows to this backend again", Long: undrainAgentLong, Example: undrainAgentExample,
				Args: cobra.NoArgs, RunE: c.undrainAgent,
			}),
		),
		noun("restart", "Start something again without an interruption", stateDirFlag(&cobra.Command{
			Use: "gateway", Short: "Start the gateway again, routes kept", Long: restartGatewayLong, Example: restartGatewayExample,
			Args: cobra.NoArgs, RunE: c.restartGateway,
		})),
		noun("upstreams", "Look after the lists in Redis",
			jsonFlag(&cobra.Command{
				Use: "list [NAME...]", Short: "Show the lists in Redis, or the members of some", Long: listLong, Example: listExample,
				RunE: c.upstreamsList,
			}),
			jsonFlag(&cobra.Command{
				Use: "check", Short: "Name every key and member that is left out", Long: upstreamsCheckLong, Example: upstreamsCheckExample,
				Args: cobra.NoArgs, RunE: c.upstreamsCheck,
			}),
			&cobra.Command{
				Use: "diff [SNAPSHOT]", Short: "Show what changed since a snapshot on disk", Long: diffLong, Example: diffExample,
				Args: cobra.MaximumNArgs(1), RunE: c.upstreamsDiff,
			},
			&cobra.Command{
				Use: "watch", Short: "Show changes as they come", Long: watchLong, Example: watchExample,
				Args: cobra.NoArgs, RunE: c.upstreamsWatch,
			},
			c.acceptCommand(),
		),
		&cobra.Command{
			Use: "version", Short: "Print the version", Args: cobra.NoArgs, RunE: c.version,
		},
	)
	root.Long, root.Example = rootLong, rootExample
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentFlags().StringVar(&c.config, "config", defaultConfig, "configuration `file`")
	return root
}

// noun is a command that only has others below it: it shows its help, and
// refuses a verb that it does not have.
func noun(use, short string, verbs ...*cobra.Command) *cobra.Command {
	n := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return cmd.Help()
	}}
	n.AddCommand(verbs...)
	return n
}

func (c *cli) version(*cobra.Command, []string) error {
	_, err := fmt.Fprintf(c.stdout, "razor %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
