// SPDX-License-Identifier: AGPL-3.0-only

package up

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/lakerunner/lakerunner/pkg/objects"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// running is a started `up`.
type running struct {
	options    Options
	settings   settings
	foundation foundation
	access     Access
	bucket     objects.Bucket
	conn       *grpc.ClientConn
	notifier   notifierv1.NotifierServiceClient
	query      queryv1.QueryServiceClient
}

// Run starts everything, says how to use it, and runs until ctx ends. Then it stops everything in order.
func Run(ctx context.Context, o Options) (err error) {
	if o, err = o.withDefaults(); err != nil {
		return err
	}
	release, err := lock(o.Data)
	if err != nil {
		return err
	}
	defer release()
	u := &running{options: o}
	defer func() { err = errors.Join(err, u.foundation.stop(context.WithoutCancel(ctx))) }()
	if err := u.prepare(ctx); err != nil {
		return interrupted(ctx, err)
	}
	services, err := u.startServices(ctx)
	if err != nil {
		return interrupted(ctx, err)
	}
	err = u.serve(ctx, services)
	return errors.Join(interrupted(ctx, err), services.Stop(context.WithoutCancel(ctx)), u.conn.Close())
}

// interrupted drops the errors that come of the user's own wish to stop.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // see above
	}
	return err
}

// prepare makes database, bucket and configuration.
func (u *running) prepare(ctx context.Context) (err error) {
	o := u.options
	if u.settings, err = loadSettings(o.Data); err != nil {
		return err
	}
	if err := checkPort("--http", "the HTTP server", o.HTTP); err != nil {
		return err
	}
	if err := checkPort("--grpc", "the gRPC server", o.GRPC); err != nil {
		return err
	}
	if err := u.foundation.startDatabase(ctx, o); err != nil {
		return err
	}
	return u.foundation.startBucket(ctx, o, u.settings)
}

func (u *running) startServices(ctx context.Context) (*stack.Stack, error) {
	o := u.options
	document, err := writeConfig(o.Data, u.settings, u.foundation.bucket)
	if err != nil {
		return nil, err
	}
	o.say("starting the services")
	services, err := stack.Start(ctx, stack.Options{
		Database:     u.foundation.database,
		ConfigDB:     u.foundation.database,
		ConfigFiles:  []string{document},
		Environ:      o.Environ,
		Dir:          filepath.Join(o.Data, "work"),
		HTTP:         o.HTTP,
		GRPC:         o.GRPC,
		WebhookToken: u.settings.WebhookToken,
		Log:          o.Log,
	})
	if err != nil {
		return nil, err
	}
	u.access = Access{Address: services.GRPC, HTTP: "http://" + services.HTTP, APIKey: u.settings.APIKey, Database: u.foundation.database}
	if err := u.connect(ctx, services); err != nil {
		return nil, errors.Join(err, services.Stop(context.WithoutCancel(ctx)))
	}
	return services, writeAccess(o.Data, u.access)
}

// connect makes the clients through which the sample goes in and the first query is asked: those of any other user.
func (u *running) connect(ctx context.Context, services *stack.Stack) (err error) {
	if u.bucket, err = services.Objects.Bucket(ctx, u.foundation.bucket.Name); err != nil {
		return err
	}
	u.conn, err = grpc.NewClient(services.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", services.GRPC, err)
	}
	u.notifier = notifierv1.NewNotifierServiceClient(u.conn)
	u.query = queryv1.NewQueryServiceClient(u.conn)
	return nil
}

// serve loads the sample, greets the user and waits for the end.
func (u *running) serve(ctx context.Context, services *stack.Stack) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-services.Done():
			return services.Err()
		}
	})
	group.Go(func() error {
		if err := u.greet(u.authorized(ctx)); err != nil {
			return err
		}
		if u.options.Trickle {
			return u.trickle(u.authorized(ctx))
		}
		return nil
	})
	return group.Wait()
}

func (u *running) authorized(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+u.settings.APIKey)
}

func (u *running) greet(ctx context.Context) error {
	if !u.options.NoSample && !u.settings.SampleLoaded {
		if err := u.loadSample(ctx); err != nil {
			return err
		}
	}
	w := welcome{
		Command: u.command("'" + firstQuery + "'"), Chart: u.command("--promql '" + firstMetricQuery + "'"), Access: u.access, Data: u.options.Data,
		Bucket: u.foundation.bucket.Name, Database: withoutPassword(u.foundation.database),
	}
	if u.foundation.bucket.embedded {
		w.S3 = u.foundation.bucket.Endpoint
	}
	if u.settings.SampleLoaded {
		if err := errors.Join(u.answerFirst(ctx, &w), u.answerMetrics(ctx, &w)); err != nil {
			return err
		}
	}
	if err := w.print(u.options.Out); err != nil {
		return err
	}
	u.options.Ready(u.access)
	return nil
}

// command is the command line that asks a query, which is quoted: of this data directory, and of the sample's time once that is not the last
// hour any more.
func (u *running) command(query string) string {
	command := fmt.Sprintf("%s query %s", u.options.Program, query)
	start, end := u.sampleRange()
	if u.options.Now().Sub(start) > time.Hour {
		command += fmt.Sprintf(" --from %s --to %s", start.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339))
	}
	if u.options.named {
		command += " --data " + quoted(u.options.Data)
	}
	return command
}

// quoted makes a word safe for a shell.
func quoted(word string) string {
	if !strings.ContainsAny(word, " \t\"'$`\\*?;&|<>()") {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

func webhookURL(o Options, s settings) string {
	return fmt.Sprintf("http://%s%s", o.HTTP, stack.WebhookPath(s.WebhookToken))
}

// sampleRange is the time of the sample's rows.
func (u *running) sampleRange() (start, end time.Time) {
	return u.settings.SampleEnd.Add(-10 * time.Minute), u.settings.SampleEnd.Add(time.Second)
}
