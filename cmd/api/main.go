// Command api is Strata: the server, its migrations, and tools for its operators.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/telemetry"
	"github.com/strata-accounts/strata/platform/web"
)

// apiVersion is the version of the HTTP API, in the OpenAPI document.
const apiVersion = "1.0.0"

// version is the release's: go build -ldflags "-X main.version=1.2.3" sets it.
var version = "dev"

// logOutput is where every command logs to.
var logOutput = telemetry.NewBuffer(os.Stderr)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := command().ExecuteContext(ctx)
	stop()
	logOutput.Flush()
	if err != nil {
		fmt.Fprintln(os.Stderr, "strata:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "strata",
		Short:         "Strata, an accounts API server",
		Long:          "Strata serves users, sessions, an audit log and preferences over HTTP. Without a command it serves.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          runServe,
	}
	root.AddCommand(
		&cobra.Command{Use: "serve", Short: "Serve the API (the default)", Args: cobra.NoArgs, RunE: runServe},
		&cobra.Command{Use: "migrate", Short: "Bring the database's tables up to date", Args: cobra.NoArgs, RunE: runMigrate},
		&cobra.Command{Use: "openapi", Short: "Print the OpenAPI document", Args: cobra.NoArgs, RunE: runOpenAPI},
		&cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, Run: runVersion},
		hashingCommand(),
		configCommand(),
		auditCommand(setUpAudit),
		modulesCommand(setUpModules),
	)
	return root
}

func configCommand() *cobra.Command {
	parent := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	parent.AddCommand(&cobra.Command{
		Use: "print", Short: "Print the configuration in force, without secrets", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(os.Environ())
			if err != nil {
				return err
			}
			return cfg.print(cmd.OutOrStdout())
		},
	})
	return parent
}

func runServe(cmd *cobra.Command, _ []string) error {
	cfg, log, err := start()
	if err != nil {
		return err
	}
	cfg.hashing = hashingProcesses(cfg.Modules.HashNiceness)
	return serve(cmd.Context(), cfg, log, cmd.OutOrStdout())
}

// start reads the configuration and opens the log.
func start() (*config, *slog.Logger, error) {
	cfg, err := loadConfig(os.Environ())
	if err != nil {
		return nil, nil, err
	}
	log, err := telemetry.NewLogger(cfg.LogFormat, cfg.LogLevel, logOutput, web.LogAttrs)
	return cfg, log, err
}

func runMigrate(cmd *cobra.Command, _ []string) error {
	cfg, log, err := start()
	if err != nil {
		return err
	}
	d, release, err := openDatabase(cmd.Context(), cfg, log)
	if err != nil {
		return err
	}
	defer release()
	return db.Migrate(cmd.Context(), d, log, migrations()...)
}

func setUpAudit(ctx context.Context) (auditSetup, func(), error) {
	cfg, log, err := start()
	if err != nil {
		return auditSetup{}, nil, err
	}
	d, release, err := openDatabase(ctx, cfg, log)
	return auditSetup{DB: d, Keys: cfg.Modules.Keys, CheckpointFile: cfg.Modules.Auditlog.CheckpointFile}, release, err
}

func runOpenAPI(cmd *cobra.Command, _ []string) error {
	document, err := openAPI()
	if err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(document)
	return err
}

func runVersion(cmd *cobra.Command, _ []string) {
	goVersion, revision := "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = " " + s.Value
			}
		}
	}
	fmt.Fprintf(cmd.OutOrStdout(), "strata %s%s, API %s, %s\n", version, revision, apiVersion, goVersion)
}
