package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-accounts/strata/modules/auditlog"
	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// TestVerifyAudit runs the command on a log that is intact, on one that was edited, and on one that was cut off.
func TestVerifyAudit(t *testing.T) {
	ctx := t.Context()
	d := dbtest.Open(t, cache.Migrations(), auditlog.Migrations())
	s := auditSetup{DB: d, Keys: auditlog.KeyConfig{StateDir: t.TempDir()}, CheckpointFile: filepath.Join(t.TempDir(), "checkpoints")}
	verify := func(files ...string) (string, error) {
		var out bytes.Buffer
		err := verifyAudit(ctx, s, files, &out)
		return out.String(), err
	}

	if _, err := verify(); err == nil {
		t.Error("verified without any key")
	}
	keys, err := auditlog.OpenKeys(s.Keys)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := verify(); err != nil || !strings.Contains(out, "intact") {
		t.Errorf("an empty log: %v\n%s", err, out)
	}

	log := auditlog.NewLog(d, keys, 100)
	service := auditlog.New(auditlog.Deps{DB: d, Repository: auditlog.NewDirectRepository(d), Keys: keys}).Service
	_, err = service.Record(ctx, auditlog.Event{Action: "a.b", Actor: auditlog.Ref{Type: auditlog.System}})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n == 0; { // the test server's other databases may hold it up
		if n, err = log.Seal(ctx); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := log.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.CheckpointFile, []byte(kept.Note), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := verify(); err != nil || !strings.Contains(out, "events      1 in 1 batches") || !strings.Contains(out, "with 1 checkpoints") {
		t.Errorf("an intact log: %v\n%s", err, out)
	}
	if _, err := verify(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a checkpoint file that does not exist: %v", err)
	}

	for _, harm := range []struct{ statement, want string }{
		{`UPDATE audit_events SET action = 'x.y'`, "batch 1: edited: event evt_"},
		{`TRUNCATE audit_events, audit_leaves, audit_seals, audit_tiles`, "truncated"},
	} {
		if _, err := d.SQL().ExecContext(ctx, `SET session_replication_role = replica; `+harm.statement+`; RESET session_replication_role`); err != nil {
			t.Fatal(err)
		}
		if out, err := verify(); !errors.Is(err, errAuditDamaged) || !strings.Contains(out, harm.want) || strings.Contains(out, "intact") {
			t.Errorf("%s: %v\n%s", harm.statement, err, out)
		}
	}
}
