package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/steering"
)

// planCommand is `razor plan`.
func (c *cli) planCommand() *cobra.Command {
	var file string
	cmd := jsonFlag(&cobra.Command{
		Use: "plan", Short: "Show who gets new flows, and why", Long: planLong, Example: planExample,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			s, of, err := c.snapshot(cmd, file)
			if err != nil {
				return err
			}
			p := steering.Decide(s)
			if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
				enc := json.NewEncoder(c.stdout)
				enc.SetIndent("", "  ")
				err = enc.Encode(p)
			} else {
				err = writePlan(c.stdout, p)
			}
			return errors.Join(err, c.leftOut(of, p))
		},
	})
	snapshotFlag(cmd, &file)
	return cmd
}

func snapshotFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "snapshot", "", "`file` with a snapshot as JSON, instead of that of the gateway on this host")
	stateDirFlag(cmd)
}

// snapshot is that of a file, or without one of the gateway on this host, and what it is of.
func (c *cli) snapshot(cmd *cobra.Command, file string) (s steering.Snapshot, of string, err error) {
	if file != "" {
		s, err = readSnapshot(file)
		return s, file, err
	}
	err = c.onGateway(cmd, func(ctx context.Context, dir string) (err error) {
		s, err = gateway.SnapshotLive(ctx, dir)
		return err
	})
	return s, "gateway", err
}

// leftOut says what of a snapshot no plan could be made of.
func (c *cli) leftOut(of string, p steering.Plan) error {
	for _, why := range p.LeftOut {
		fmt.Fprintf(c.stderr, "%s: %s\n", of, why)
	}
	if len(p.LeftOut) > 0 {
		return errReported
	}
	return nil
}

// readSnapshot reads a snapshot, in which no key may be that is none.
func readSnapshot(file string) (steering.Snapshot, error) {
	var s steering.Snapshot
	data, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, fileError(fmt.Sprintf("%s:%d: %v", file, jsonLine(data, dec, err), err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return s, fileError(fmt.Sprintf("%s:%d: something is behind the snapshot", file, jsonLine(data, dec, err)))
	}
	if s.Site == "" {
		return s, fileError(file + ": site: missing, want the name of the site that decides")
	}
	return s, nil
}

// jsonLine is the line of what was wrong with some JSON.
func jsonLine(data []byte, dec *json.Decoder, err error) int {
	at := dec.InputOffset()
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = e.Offset
	} else if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		at = e.Offset
	}
	return 1 + bytes.Count(data[:min(at, int64(len(data)))], []byte("\n"))
}

// getter is who gets a share of the new flows of a service.
type getter struct {
	what, name string // site or backend
	share      float64
	why        string
}

// getters are all who may get new flows of a service: sites, with this one first and
// nowhere last, and its backends, whose shares are parts of its share.
func getters(v steering.ServicePlan) []getter {
	out := []getter{{"site", v.Here.Site, v.Here.Share, v.Here.Reason}}
	for _, s := range v.Sites {
		out = append(out, getter{"site", s.Site, s.Share, s.Reason})
	}
	if v.Nowhere > 0 {
		out = append(out, getter{"", "nowhere", v.Nowhere, "no site has room"})
	}
	var sum float64
	for _, b := range v.Backends {
		sum += float64(b.Weight)
	}
	for _, b := range v.Backends {
		out = append(out, getter{"backend", b.Name, v.Here.Share * float64(b.Weight) / max(sum, 1), b.Reason})
	}
	return out
}

// writePlan writes a table for each service.
func writePlan(w io.Writer, p steering.Plan) error {
	fmt.Fprintf(w, "plan %v of site %s, %s\n", p.Number, p.Site, p.At.Format(time.RFC3339))
	if len(p.Services) == 0 {
		fmt.Fprintln(w, "no service")
	}
	for _, v := range p.Services {
		fmt.Fprintf(w, "\n%s: %s\n", v.Name, v.Reason)
		table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(table, "\tNAME\tNEW FLOWS\tREASON")
		for _, g := range getters(v) {
			fmt.Fprintf(table, "%s\t%s\t%.1f%%\t%s\n", g.what, g.name, 100*g.share, g.why)
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return nil
}
