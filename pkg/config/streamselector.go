// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

var (
	labelName   = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*`)
	matcherSign = regexp.MustCompile(`^(=~|!~|!=|=)`)
)

// checkStreamSelector reports what is wrong with a LogQL stream selector: {name="value", ...}, without a pipeline. LogQL's own parser
// belongs to those who evaluate selectors; every process reads the configuration.
func checkStreamSelector(text string) error {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), "{")
	if !ok {
		return errors.New(`want a stream selector such as {service_name="shop"}`)
	}
	selective := false
	for {
		var narrows bool
		var err error
		if rest, narrows, err = checkMatcher(rest); err != nil {
			return err
		}
		selective = selective || narrows
		rest = strings.TrimSpace(rest)
		if after, ok := strings.CutPrefix(rest, ","); ok {
			rest = after
			continue
		}
		if rest != "}" {
			return fmt.Errorf("want , or } and nothing behind it, found %q", rest)
		}
		if !selective {
			return errors.New("at least one matcher must not match the empty value; leave the selector out to mean all rows")
		}
		return nil
	}
}

// checkMatcher checks one matcher and returns what follows it, and whether it refuses streams without the label.
func checkMatcher(text string) (rest string, narrows bool, err error) {
	text = strings.TrimSpace(text)
	name := labelName.FindString(text)
	if name == "" {
		return "", false, fmt.Errorf("want the name of a label, found %q", text)
	}
	text = strings.TrimSpace(text[len(name):])
	sign := matcherSign.FindString(text)
	if sign == "" {
		return "", false, fmt.Errorf("want =, !=, =~ or !~ behind %s", name)
	}
	text = strings.TrimSpace(text[len(sign):])
	quoted, err := strconv.QuotedPrefix(text)
	if err != nil || quoted[0] == '\'' {
		return "", false, fmt.Errorf("want a quoted value behind %s%s", name, sign)
	}
	value, err := strconv.Unquote(quoted)
	if err != nil {
		return "", false, fmt.Errorf("the value of %s is not quoted well", name)
	}
	narrows, err = refusesEmpty(sign, value)
	return text[len(quoted):], narrows, err
}

func refusesEmpty(sign, value string) (bool, error) {
	switch sign {
	case "=":
		return value != "", nil
	case "!=":
		return value == "", nil
	}
	pattern, err := regexp.Compile("^(?:" + value + ")$")
	if err != nil {
		return false, fmt.Errorf("%q is no regular expression: %w", value, err)
	}
	return pattern.MatchString("") == (sign == "!~"), nil
}
