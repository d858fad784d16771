// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	configv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/config/v1"
)

// newConfig is `lakerunner config`.
func newConfig(client *client) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Read and change organizations, storage profiles and limits",
	}
	c.AddCommand(newConfigApply(client), newConfigGet(client))
	return onlyCommands(c)
}

func newConfigApply(client *client) *cobra.Command {
	var file string
	var dryRun bool
	c := &cobra.Command{
		Use:   "apply FILE",
		Short: "Make the stored configuration equal to a YAML document",
		Args:  atMostOneArg,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 && file != "" {
				return usage("name the document once: as an argument or with --file")
			}
			file = firstOf(append(args, file)...)
			document, err := readDocument(client.env.Stdin, file)
			if err != nil {
				return err
			}
			return client.config(c.Context(), func(ctx context.Context, service configv1.ConfigServiceClient) error {
				answer, err := service.ApplyConfig(ctx, &configv1.ApplyConfigRequest{Document: document, ValidateOnly: dryRun})
				if err != nil {
					return err
				}
				if err := printChanges(client.env.Stdout, answer.GetChanges()); err != nil {
					return err
				}
				if dryRun && len(answer.GetChanges()) > 0 {
					fmt.Fprintln(client.env.Stderr, "a dry run: nothing was changed")
				}
				return nil
			})
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "the document; - is standard input; as the argument")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check, and say what would change")
	return c
}

func readDocument(stdin io.Reader, file string) (string, error) {
	if file == "" {
		return "", usage("FILE is missing: name the YAML document, or - for standard input")
	}
	read := func() ([]byte, error) { return os.ReadFile(file) }
	if file == "-" {
		read = func() ([]byte, error) { return io.ReadAll(stdin) }
	}
	b, err := read()
	if err != nil {
		return "", usage("read the document: %w", err)
	}
	return string(b), nil
}

func printChanges(out io.Writer, changes []string) error {
	if len(changes) == 0 {
		changes = []string{"no change"}
	}
	return printWords(out, changes, nil)
}

func newConfigGet(client *client) *cobra.Command {
	return &cobra.Command{
		Use:   "get",
		Short: "Print the configuration in force, secrets redacted",
		Args:  exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			return client.config(c.Context(), func(ctx context.Context, service configv1.ConfigServiceClient) error {
				answer, err := service.GetConfig(ctx, &configv1.GetConfigRequest{})
				if err != nil {
					return err
				}
				_, err = io.WriteString(client.env.Stdout, answer.GetDocument())
				return err
			})
		},
	}
}

// newAPIKey is `lakerunner apikey`.
func newAPIKey(client *client) *cobra.Command {
	c := &cobra.Command{
		Use:   "apikey",
		Short: "Make, list and revoke API keys",
	}
	c.AddCommand(newAPIKeyCreate(client), newAPIKeyList(client), newAPIKeyDelete(client))
	return onlyCommands(c)
}

func newAPIKeyCreate(client *client) *cobra.Command {
	var organization, description string
	var words []string
	c := &cobra.Command{
		Use:   "create",
		Short: "Make a key; its secret is shown once",
		Args:  exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			scopes, err := parseScopes(words)
			if err != nil {
				return err
			}
			return client.config(c.Context(), func(ctx context.Context, service configv1.ConfigServiceClient) error {
				answer, err := service.CreateAPIKey(ctx, &configv1.CreateAPIKeyRequest{Organization: organization, Scopes: scopes, Description: description})
				if err != nil {
					return err
				}
				fmt.Fprintf(client.env.Stderr, "key %s; the secret is shown this once:\n", answer.GetKey().GetKeyId())
				_, err = fmt.Fprintln(client.env.Stdout, answer.GetSecret())
				return err
			})
		},
	}
	flags := c.Flags()
	flags.StringVar(&organization, "organization", "", "organization of the key; empty only for admin keys")
	flags.StringSliceVar(&words, "scope", []string{"query"}, "what the key may do: query, ingest, admin")
	flags.StringVar(&description, "description", "", "what it is for")
	completeWords(c, "scope", "query", "ingest", "admin")
	return c
}

func parseScopes(words []string) ([]configv1.Scope, error) {
	var scopes []configv1.Scope
	for _, w := range words {
		n, ok := configv1.Scope_value["SCOPE_"+strings.ToUpper(w)]
		if !ok || n == 0 {
			return nil, usage("--scope %q: want query, ingest or admin", w)
		}
		scopes = append(scopes, configv1.Scope(n))
	}
	return scopes, nil
}

func scopeNames(scopes []configv1.Scope) string {
	var names []string
	for _, s := range scopes {
		names = append(names, strings.ToLower(strings.TrimPrefix(s.String(), "SCOPE_")))
	}
	return strings.Join(names, ",")
}

func newAPIKeyList(client *client) *cobra.Command {
	var organization, output string
	c := &cobra.Command{
		Use:   "list",
		Short: "List keys, without their secrets",
		Args:  exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			return client.config(c.Context(), func(ctx context.Context, service configv1.ConfigServiceClient) error {
				answer, err := service.ListAPIKeys(ctx, &configv1.ListAPIKeysRequest{Organization: organization})
				if err != nil {
					return err
				}
				return printKeys(client.env, output, answer.GetKeys())
			})
		},
	}
	c.Flags().StringVar(&organization, "organization", "", "only of this organization")
	addFormat(c, &output)
	return c
}

func printKeys(env Environment, format string, keys []*configv1.APIKey) error {
	t := newTable("ID", "ORGANIZATION", "SCOPES", "CREATED", "DESCRIPTION")
	for _, k := range keys {
		if format == "json" {
			if err := printProto(env.Stdout, k); err != nil {
				return err
			}
			continue
		}
		t.add(k.GetKeyId(), firstOf(k.GetOrganization(), "-"), scopeNames(k.GetScopes()), formatTime(k.GetCreatedAt(), env.Now().Location()), k.GetDescription())
	}
	if format == "table" {
		t.write(env.Stdout)
	}
	return nil
}

func newAPIKeyDelete(client *client) *cobra.Command {
	return &cobra.Command{
		Use:   "delete ID",
		Short: "Revoke a key",
		Args:  exactArgs("the key's id"),
		RunE: func(c *cobra.Command, args []string) error {
			return client.config(c.Context(), func(ctx context.Context, service configv1.ConfigServiceClient) error {
				if _, err := service.DeleteAPIKey(ctx, &configv1.DeleteAPIKeyRequest{KeyId: args[0]}); err != nil {
					return err
				}
				_, err := fmt.Fprintf(client.env.Stdout, "key %s is revoked\n", args[0])
				return err
			})
		},
	}
}
