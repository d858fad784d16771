// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"io"
	"log/slog"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

func newLog(to io.Writer, c LogConfig) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, fault.New(fault.Invalid, "log.level is %q; want debug, info, warn or error", c.Level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch c.Format {
	case "json":
		return slog.New(slog.NewJSONHandler(to, options)), nil
	case "text":
		return slog.New(slog.NewTextHandler(to, options)), nil
	}
	return nil, fault.New(fault.Invalid, "log.format is %q; want json or text", c.Format)
}
