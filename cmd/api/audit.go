package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/strata-accounts/strata/modules/auditlog"
	"github.com/strata-accounts/strata/platform/db"
)

// errAuditDamaged ends the command with a failure after the report has said what is wrong.
var errAuditDamaged = errors.New("the audit log is not what was sealed")

// auditSetup is what the audit commands work on.
type auditSetup struct {
	DB             *db.DB
	Keys           auditlog.KeyConfig
	CheckpointFile string // auditlog.checkpoint_file; empty where none is kept
}

// auditCommand returns the command audit. It calls setup when it runs, and release when it has.
func auditCommand(setup func(ctx context.Context) (s auditSetup, release func(), err error)) *cobra.Command {
	audit := &cobra.Command{Use: "audit", Short: "Work with the audit log"}
	var files []string
	verify := &cobra.Command{
		Use:   "verify",
		Short: "Audit the whole log again and name what was tampered with",
		Long: "Computes every hash of the audit log again from its events and holds it against the signed checkpoints.\n" +
			"A log whose end was cut off is noticed only through a checkpoint that was kept elsewhere: give it with --checkpoint.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, release, err := setup(cmd.Context())
			if err != nil {
				return err
			}
			defer release()
			return verifyAudit(cmd.Context(), s, files, cmd.OutOrStdout())
		},
	}
	verify.Flags().StringArrayVar(&files, "checkpoint", nil,
		"file with checkpoints from earlier: notes, or an answer of /v1/audit-log/checkpoint (default: auditlog.checkpoint_file)")
	audit.AddCommand(verify)
	return audit
}

func verifyAudit(ctx context.Context, s auditSetup, files []string, out io.Writer) error {
	keys, err := auditlog.ReadKeys(s.Keys)
	if err != nil {
		return err
	}
	checkpoints, err := readCheckpoints(files, s.CheckpointFile)
	if err != nil {
		return err
	}
	started := time.Now()
	report, err := auditlog.NewLog(s.DB, keys, 0).Verify(ctx, auditlog.VerifyOptions{
		Checkpoints: checkpoints, Progress: progress(os.Stderr),
	})
	if err != nil {
		return err
	}
	printReport(out, report, len(checkpoints), time.Since(started))
	if !report.Intact() {
		return errAuditDamaged
	}
	return nil
}

// readCheckpoints reads the files named, or else the one that the server keeps, which may not exist yet.
func readCheckpoints(files []string, kept string) ([]string, error) {
	if len(files) == 0 && kept != "" {
		if _, err := os.Stat(kept); err == nil {
			files = []string{kept}
		}
	}
	var all []string
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		notes, err := auditlog.ParseCheckpoints(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, notes...)
	}
	return all, nil
}

// progress returns what shows a bar with rate and time left on a terminal, and nothing elsewhere.
func progress(f *os.File) func(done, total int64) {
	if !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	bar := progressbar.NewOptions64(1, progressbar.OptionSetWriter(f), progressbar.OptionSetDescription("verifying"),
		progressbar.OptionShowIts(), progressbar.OptionSetItsString("events"), progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())
	return func(done, total int64) {
		bar.ChangeMax64(total)
		_ = bar.Set64(done) // fails only where the terminal does
	}
}

func printReport(out io.Writer, r auditlog.Report, kept int, took time.Duration) {
	c := r.Checkpoint
	fmt.Fprintf(out, "events      %d in %d batches, verified in %s\n", c.Size, r.Batches, took.Round(time.Millisecond))
	if c.Size > 0 {
		fmt.Fprintf(out, "log         %s\nroot hash   %s\n", c.Origin, c.Root)
	}
	fmt.Fprintf(out, "compared    with %d checkpoints that were kept\nnot sealed  %d events\n", kept, r.Pending)
	if r.Expired > 0 {
		fmt.Fprintf(out, "expired     %d events, dropped by retention; their hashes were verified\n", r.Expired)
	}
	if r.Erased > 0 {
		fmt.Fprintf(out, "erased      the ip and user agent of %d events\n", r.Erased)
	}
	for _, p := range r.Problems {
		fmt.Fprintln(out, "TAMPERED   ", p)
	}
	if r.Omitted > 0 {
		fmt.Fprintf(out, "TAMPERED    %d more\n", r.Omitted)
	}
	if r.Intact() {
		fmt.Fprintln(out, "intact")
	}
	if kept == 0 {
		fmt.Fprintln(out, "note: without a checkpoint kept elsewhere (--checkpoint) a log whose end was cut off looks intact")
	}
}
