// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/verify"
)

// verifyCommand is `lakerunner verify`.
type verifyCommand struct {
	direct
	organization string
	sample       string
	from, to     string
	repair       string
	seed         uint64
	parallel     int
	output       string
}

func newVerify(client *client) *cobra.Command {
	k := &verifyCommand{direct: direct{client: client}}
	c := &cobra.Command{
		Use:   "verify",
		Short: "Compare segments with themselves and with the index",
		Long: `Read live segments and compare: rows with the footer's counts, hashes, order, row groups, window, sources and attributes; the token filter
with the bodies; and all of it with the index. It may run beside the services. What does not fit is printed, and makes the exit code 1.

Nothing is changed, except that --repair mark notes in the index which files are missing (see ` + "`lakerunner janitor missing`" + `).`,
		Example: `  lakerunner verify --sample 5%
  lakerunner verify --organization acme --from now-7d`,
		Args: exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error { return k.verify(c.Context()) },
	}
	k.addFlags(c)
	flags := c.Flags()
	flags.StringVar(&k.organization, "organization", "", "only this one")
	flags.StringVar(&k.sample, "sample", "100%", "share of the segments to read")
	flags.Uint64Var(&k.seed, "seed", 0, "which segments a sample takes; 0: others each time")
	flags.StringVar(&k.from, "from", "", "first event time, inclusive; default the beginning")
	flags.StringVar(&k.to, "to", "", "end, exclusive; default everything")
	flags.StringVar(&k.repair, "repair", "no", "no: change nothing; mark: note missing files in the index")
	flags.IntVar(&k.parallel, "parallel", 2, "segments to read at once")
	addFormat(c, &k.output)
	completeWords(c, "repair", "no", "mark")
	return c
}

func (k *verifyCommand) verify(ctx context.Context) error {
	o, err := k.options()
	if err != nil {
		return err
	}
	return k.run(ctx, func(ctx context.Context, p *host.Process) error {
		idx, err := p.Index()
		if err != nil {
			return err
		}
		o.Index, o.Objects = idx, p.Objects()
		if k.repair == "mark" {
			o.Mark = idx.MarkMissing
		}
		result, err := verify.Run(ctx, o)
		k.show(result, o)
		switch {
		case err != nil:
			return err
		case result.Bad > 0:
			return fmt.Errorf("segments that do not fit: %d of %d", result.Bad, result.Verified)
		}
		return nil
	})
}

func (k *verifyCommand) options() (verify.Options, error) {
	o := verify.Options{
		Organization: lake.Organization(k.organization), Seed: k.seed, Parallel: k.parallel,
		Found: k.found, Say: func(format string, args ...any) { fmt.Fprintf(k.client.env.Stderr, format+"\n", args...) },
	}
	if err := checkFormat(k.output); err != nil {
		return o, err
	}
	if k.repair != "no" && k.repair != "mark" {
		return o, usage("--repair %q: want no or mark", k.repair)
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	percent, err := strconv.ParseFloat(strings.TrimSuffix(k.sample, "%"), 64)
	if err != nil || percent <= 0 || percent > 100 {
		return o, usage("--sample %q: want a share such as 5%%", k.sample)
	}
	o.Sample = percent / 100
	now := k.client.env.Now()
	if k.from != "" {
		if o.Start, err = parseTime(k.from, now); err != nil {
			return o, usage("--from: %w", err)
		}
	}
	if k.to != "" {
		if o.End, err = parseTime(k.to, now); err != nil {
			return o, usage("--to: %w", err)
		}
	}
	return o, nil
}

func (k *verifyCommand) found(p verify.Problem) {
	if k.output == "json" {
		printJSON(k.client.env.Stdout, p)
		return
	}
	fmt.Fprintf(k.client.env.Stdout, "segment %d of %s, s3://%s/%s: %s\n", p.Segment, p.Organization, p.Bucket, p.Key, p.Says)
}

func (k *verifyCommand) show(r verify.Result, o verify.Options) {
	if k.output == "json" {
		printJSON(k.client.env.Stdout, r)
		return
	}
	fmt.Fprintf(k.client.env.Stdout, "verified %s of %s: %s, %s; problems: %s\n", formatCounted(r.Verified, "segment"), formatCount(r.Live),
		formatCounted(r.Rows, "row"), formatBytes(r.Bytes), formatCount(r.Problems))
	if o.Sample < 1 {
		fmt.Fprintf(k.client.env.Stderr, "a sample of %s, drawn with --seed %d\n", k.sample, o.Seed)
	}
}
