// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// table is a plain table with a head.
type table struct {
	rows [][]string
}

func newTable(head ...string) *table { return &table{rows: [][]string{head}} }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cell)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
}

// printProto writes a message as one JSON document a line.
func printProto(out io.Writer, m proto.Message) error {
	return marshal(out, m, protojson.MarshalOptions{UseProtoNames: true})
}

// printWhole is printProto with what is zero, too: for answers whose zeros say something.
func printWhole(out io.Writer, m proto.Message) error {
	return marshal(out, m, protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true})
}

func marshal(out io.Writer, m proto.Message, options protojson.MarshalOptions) error {
	b, err := options.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	if _, err := fmt.Fprintln(out, compactJSON(b)); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// checkFormat is for the commands that print tables or JSON.
func checkFormat(format string) error {
	if format == "table" || format == "json" {
		return nil
	}
	return usage("--output %q: want table or json", format)
}

func formatTime(t *timestamppb.Timestamp, zone *time.Location) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().In(zone).Format("2006-01-02 15:04:05")
}

// formatBytes writes a size with the unit that suits it.
func formatBytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, units := float64(n), "KMGTPE"
	for i := range len(units) {
		value /= unit
		if value < unit || i == len(units)-1 {
			return fmt.Sprintf("%.1f %ciB", value, units[i])
		}
	}
	return fmt.Sprintf("%d B", n)
}

// formatCounted writes a number of things.
func formatCounted(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return formatCount(n) + " " + thing + "s"
}

// formatCount writes a number with thousands apart.
func formatCount(n int64) string {
	s := fmt.Sprintf("%d", n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
