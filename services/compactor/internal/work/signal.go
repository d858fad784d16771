// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"context"
	"io"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
)

// merger does what differs from signal to signal, by the rules of one organization.
type merger interface {
	// policy is how windows of the signal are compacted.
	policy() plan.Policy
	// readsSidecars reports whether inputs are merged with the help of their sidecars.
	readsSidecars() bool
	// merge merges inputs. What it returns accounts for every row of them, and has been checked against itself.
	merge(ctx context.Context, inputs []input, o mergeOptions) (merged, error)
	// finds reports whether deletes or rules that are due may find something in the segment with this sidecar.
	finds(sidecar []byte, s *lake.Segment, state plan.State) (bool, error)
}

// Signals are those that are compacted.
func Signals() []lake.Signal { return []lake.Signal{lake.SignalLogs, lake.SignalMetrics} }

// mergerOf is the one place where signals are told apart.
func mergerOf(snapshot *config.Snapshot, org lake.Organization, signal lake.Signal, policy plan.Policy) merger {
	organization, known := snapshot.Organization(org)
	if !known {
		organization = &config.Organization{} // whose rules are not known: none are applied
	}
	if signal == lake.SignalMetrics {
		return newMetricMerger(organization, policy)
	}
	return newLogMerger(organization, signal, policy)
}

// PolicyOf returns the rules and the format that the segments of an organization's signal are to have.
func PolicyOf(snapshot *config.Snapshot, org lake.Organization, signal lake.Signal) plan.Policy {
	return mergerOf(snapshot, org, signal, plan.Policy{}).policy()
}

func (w *Worker) merger(org lake.Organization, signal lake.Signal) merger {
	return mergerOf(w.deps.Config.Current(), org, signal, w.config.Policy)
}

// mergeOptions say what a merge makes.
type mergeOptions struct {
	organization lake.Organization
	lease        lake.LeaseID
	merge        *plan.Merge
	state        plan.State
	memory       int64
	// create begins the output of a number, which the merge chooses.
	create func(number int) (parquet, sidecar io.Writer, done func() error, err error)
}

// keys are those of the inputs.
func keysOf(inputs []input) []string {
	keys := make([]string, len(inputs))
	for i := range inputs {
		keys[i] = inputs[i].segment.Key
	}
	return keys
}

// merged is what became of the rows of a merge's inputs.
type merged struct {
	outputs []made
	account Account
	// hashIn is the sum of the hashes of all rows as they were read.
	hashIn uint64
	// changed says that what answers are made of changed, other than by deletes and retention.
	changed bool
	deleted []lake.DeletedRows
}

// made is one segment that a merge made.
type made struct {
	number              int // that it was created by
	bytes, sidecarBytes int64
	rows                int64
	first, last         time.Time
	formatVersion       int
	rowHash             uint64
	identified          bool
	shard               lake.Shard
	sources             []lake.ReceiptID
}
