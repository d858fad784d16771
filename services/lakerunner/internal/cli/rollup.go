// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	rollupv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/rollup/v1"
)

// rollupCommand is what the subcommands of `lakerunner rollup` have in common.
type rollupCommand struct {
	client       *client
	organization string
	signal       string
	resolution   time.Duration
	output       string
}

func newRollup(client *client) *cobra.Command {
	c := &cobra.Command{
		Use:   "rollup",
		Short: "Say which rollups are due, make one now, or see how far behind they are",
		Long: `Rollups are what the points of metrics came to in buckets of 10s, 1m, 5m, 20m or 1h, and how many log lines there were. The rollup service makes them by
itself, by each organization's policy.`,
		Example: `  lakerunner rollup status
  lakerunner rollup plan --from now-1d
  lakerunner rollup run --at 2026-11-22T15:00:00Z --resolution 1m`,
	}
	c.AddCommand(newRollupPlan(client), newRollupRun(client), newRollupStatus(client))
	return onlyCommands(c)
}

func (k *rollupCommand) flags(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&k.organization, "organization", "", "another organization than the key's own (needs the admin scope)")
	flags.StringVar(&k.signal, "signal", "metrics", "metrics or logs")
	flags.DurationVar(&k.resolution, "resolution", 0, "10s, 1m, 5m, 20m or 1h")
	addFormat(c, &k.output)
}

func (k *rollupCommand) check() error {
	if k.signal != "metrics" && k.signal != "logs" {
		return usage("--signal %s: want metrics or logs", k.signal)
	}
	return checkFormat(k.output)
}

func (k *rollupCommand) signalProto() lakev1.Signal {
	if k.signal == "logs" {
		return lakev1.Signal_SIGNAL_LOGS
	}
	return lakev1.Signal_SIGNAL_METRICS
}

func (k *rollupCommand) seconds() int64 { return int64(k.resolution / time.Second) }

func (k *rollupCommand) ask(ctx context.Context, f func(context.Context, rollupv1.RollupServiceClient) error) error {
	return k.client.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, rollupv1.NewRollupServiceClient(conn))
	})
}

func newRollupPlan(client *client) *cobra.Command {
	k := &rollupCommand{client: client}
	var from, to string
	c := &cobra.Command{
		Use:   "plan",
		Short: "Say which rollups would be made now, of what, and why",
		Args:  exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := k.check(); err != nil {
				return err
			}
			return k.plan(c.Context(), from, to)
		},
	}
	k.flags(c)
	c.Flags().StringVar(&from, "from", "now-1d", "any time in the first window")
	c.Flags().StringVar(&to, "to", "now", "end, exclusive; at most 31 days later")
	return c
}

func (k *rollupCommand) plan(ctx context.Context, from, to string) error {
	start, err := parseTime(from, k.client.env.Now())
	if err != nil {
		return err
	}
	end, err := parseTime(to, k.client.env.Now())
	if err != nil {
		return err
	}
	return k.ask(ctx, func(ctx context.Context, service rollupv1.RollupServiceClient) error {
		answer, err := service.PlanRollup(ctx, &rollupv1.PlanRollupRequest{
			Organization: k.organization, Signal: k.signalProto(), Start: timestamppb.New(start), End: timestamppb.New(end), ResolutionSeconds: k.seconds(),
		})
		if err != nil {
			return err
		}
		if k.output == "json" {
			return printProto(k.client.env.Stdout, answer)
		}
		t := newTable("RESOLUTION", "WINDOW", "LENGTH", "ACTION", "OF", "REASON")
		for _, p := range answer.GetWindows() {
			t.add(formatSeconds(p.GetResolutionSeconds()), formatTime(p.GetStart(), k.client.env.Now().Location()), formatSeconds(p.GetLengthSeconds()),
				rollupAction(p.GetAction()), rollupSources(p), p.GetReason())
		}
		t.write(k.client.env.Stdout)
		return nil
	})
}

func newRollupRun(client *client) *cobra.Command {
	k := &rollupCommand{client: client}
	var at string
	var dryRun bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Make one rollup now, whether or not it is due",
		Args:  exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := k.check(); err != nil {
				return err
			}
			if k.resolution == 0 {
				return usage("--resolution is missing: 10s, 1m, 5m, 20m or 1h")
			}
			return k.run(c.Context(), at, dryRun)
		},
	}
	k.flags(c)
	c.Flags().StringVar(&at, "at", "now", "any time in the window")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "plan only")
	return c
}

func (k *rollupCommand) run(ctx context.Context, at string, dryRun bool) error {
	start, err := parseTime(at, k.client.env.Now())
	if err != nil {
		return err
	}
	return k.ask(ctx, func(ctx context.Context, service rollupv1.RollupServiceClient) error {
		answer, err := service.RollupWindow(ctx, &rollupv1.RollupWindowRequest{
			Organization: k.organization, Signal: k.signalProto(), Start: timestamppb.New(start), ResolutionSeconds: k.seconds(), ValidateOnly: dryRun,
		})
		if err != nil {
			return err
		}
		if k.output == "json" {
			return printProto(k.client.env.Stdout, answer)
		}
		printRolled(k.client.env.Stdout, answer, k.client.env.Now().Location())
		return nil
	})
}

func printRolled(out io.Writer, answer *rollupv1.RollupWindowResponse, zone *time.Location) {
	p := answer.GetPlan()
	fmt.Fprintf(out, "%s of %s from %s: %s, %s\n", formatSeconds(p.GetResolutionSeconds()), formatSeconds(p.GetLengthSeconds()), formatTime(p.GetStart(), zone),
		rollupAction(p.GetAction()), p.GetReason())
	if sources := rollupSources(p); sources != "" {
		fmt.Fprintf(out, "  of %s\n", sources)
	}
	if a := answer.GetAccount(); a != nil {
		fmt.Fprintf(out, "done: %s in = %s counted + %s stale + %s doubles + %s masked + %s deleted; now %s of %s in %s, %s\n",
			formatCounted(a.GetPointsIn(), "point"), formatCount(a.GetCounted()), formatCount(a.GetStale()), formatCount(a.GetDeduplicated()), formatCount(a.GetMasked()),
			formatCount(a.GetDeleted()), formatCounted(a.GetBuckets(), "bucket"), formatCount(a.GetSeries())+" series",
			formatCounted(int64(len(answer.GetSegmentKeys())), "segment"), formatBytes(answer.GetBytes()))
	}
}

func newRollupStatus(client *client) *cobra.Command {
	k := &rollupCommand{client: client}
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how far rollups are behind",
		Args:  exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(k.output); err != nil {
				return err
			}
			return k.status(c.Context())
		},
	}
	c.Flags().StringVar(&k.organization, "organization", "", "only this one (another than the key's own needs the admin scope)")
	addFormat(c, &k.output)
	return c
}

func (k *rollupCommand) status(ctx context.Context) error {
	return k.ask(ctx, func(ctx context.Context, service rollupv1.RollupServiceClient) error {
		answer, err := service.GetRollupStatus(ctx, &rollupv1.GetRollupStatusRequest{Organization: k.organization})
		if err != nil {
			return err
		}
		if k.output == "json" {
			return printWhole(k.client.env.Stdout, answer)
		}
		t := newTable("ORGANIZATION", "SIGNAL", "RESOLUTION", "DUE", "OLDEST", "LAG", "TASKS", "BURIED")
		for _, s := range answer.GetStatuses() {
			oldest := ""
			if s.GetOldestDebt() != nil {
				oldest = formatTime(s.GetOldestDebt(), k.client.env.Now().Location())
			}
			t.add(s.GetOrganization(), strings.ToLower(strings.TrimPrefix(s.GetSignal().String(), "SIGNAL_")), formatSeconds(s.GetResolutionSeconds()),
				formatCount(s.GetDebtWindows()), oldest, (time.Duration(s.GetLagSeconds()) * time.Second).String(), formatCount(s.GetTasks()), formatCount(s.GetBuried()))
		}
		t.write(k.client.env.Stdout)
		return nil
	})
}

func rollupAction(a rollupv1.RollupAction) string {
	return strings.ToLower(strings.TrimPrefix(a.String(), "ROLLUP_ACTION_"))
}

// rollupSources words what a rollup is made of: rows, or finer rollups.
func rollupSources(p *rollupv1.RollupPlan) string {
	var names []string
	segments := map[string]int64{}
	for _, s := range p.GetSources() {
		name := "rows"
		if s.GetResolutionSeconds() > 0 {
			name = formatSeconds(s.GetResolutionSeconds())
		}
		if _, known := segments[name]; !known {
			names = append(names, name)
		}
		segments[name] += s.GetSegments()
	}
	for i, name := range names {
		names[i] = fmt.Sprintf("%s in %s", name, formatCounted(segments[name], "segment"))
	}
	return strings.Join(names, ", ")
}

// formatSeconds writes 1m where Go writes 1m0s.
func formatSeconds(n int64) string {
	text := (time.Duration(n) * time.Second).String()
	if n%60 == 0 && n > 0 {
		text = strings.TrimSuffix(text, "0s")
	}
	if n%3600 == 0 && n > 0 {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
