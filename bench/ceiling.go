//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/strata-accounts/strata/platform/ids"
)

// The ceilings: what a handler on the same router costs that does nothing but the one thing. They check no credential,
// log nothing, count nothing, and send no header but Date, Content-Type and Content-Length. Each runs in a process of its
// own, this program started again with a ceilingConfig in its environment.

// ceilingVariable makes this program a ceiling.
const ceilingVariable = "STRATA_BENCH_CEILING"

type ceilingConfig struct {
	Addr, Admin string
	Body        string // file with what GET /memory answers
	Database    string // URL; empty: the two that need one are not there
}

func runCeiling(encoded string) error {
	var cfg ceilingConfig
	if err := json.Unmarshal([]byte(encoded), &cfg); err != nil {
		return err
	}
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	body, err := os.ReadFile(cfg.Body)
	if err != nil {
		return err
	}
	e.GET("/memory", func(c *gin.Context) { c.Data(http.StatusOK, "application/json", body) })
	if cfg.Database != "" {
		pool, err := pgxpool.New(context.Background(), cfg.Database+"&pool_max_conns=10") // with which they were fastest
		if err != nil {
			return err
		}
		defer pool.Close()
		h := bareHandlers{pool}
		e.GET("/v1/users/:id", h.get)
		e.PATCH("/v1/users/:id", h.patch)
	}
	admin := gin.New()
	admin.GET("/metrics", gin.WrapH(promhttp.Handler()))
	failed := make(chan error, 2)
	go func() { failed <- listen(cfg.Admin, admin) }()
	go func() { failed <- listen(cfg.Addr, e) }()
	return <-failed
}

func listen(addr string, h http.Handler) error {
	server := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 5 * time.Second}
	return server.ListenAndServe()
}

// bareUser is a user as Strata shows one.
type bareUser struct {
	ID            string          `json:"id"`
	Email         string          `json:"email"`
	EmailVerified bool            `json:"email_verified"`
	Name          string          `json:"name"`
	Status        string          `json:"status"`
	Metadata      json.RawMessage `json:"metadata"`
	Version       int64           `json:"version"`
	CreatedAt     time.Time       `json:"created_at"`
	UpdatedAt     time.Time       `json:"updated_at"`
	LastSignInAt  *time.Time      `json:"last_sign_in_at"`

	uuid uuid.UUID
}

const bareColumns = `id, email, email_verified, name, status, metadata, version, created_at, updated_at, last_sign_in_at`

func scanBare(row pgx.Row) (bareUser, error) {
	var u bareUser
	err := row.Scan(&u.uuid, &u.Email, &u.EmailVerified, &u.Name, &u.Status, &u.Metadata, &u.Version,
		&u.CreatedAt, &u.UpdatedAt, &u.LastSignInAt)
	u.ID = ids.Format("user", u.uuid)
	return u, err
}

type bareHandlers struct{ pool *pgxpool.Pool }

func (h bareHandlers) get(c *gin.Context) {
	u, err := func() (u bareUser, err error) {
		id, err := ids.Parse("user", c.Param("id"))
		if err != nil {
			return u, err
		}
		return scanBare(h.pool.QueryRow(c.Request.Context(), `SELECT `+bareColumns+` FROM users WHERE id = $1`, id))
	}()
	answer(c, u, err)
}

func (h bareHandlers) patch(c *gin.Context) {
	var in struct{ Name string }
	err := c.BindJSON(&in)
	id, iderr := ids.Parse("user", c.Param("id"))
	if err = errors.Join(err, iderr); err != nil {
		answer(c, bareUser{}, err)
		return
	}
	var u bareUser
	err = pgx.BeginFunc(c.Request.Context(), h.pool, func(tx pgx.Tx) error {
		u, err = rename(c.Request.Context(), tx, id, in.Name)
		return err
	})
	answer(c, u, err)
}

// rename runs the statements that Strata runs for such a change.
func rename(ctx context.Context, tx pgx.Tx, id uuid.UUID, name string) (bareUser, error) {
	u, err := scanBare(tx.QueryRow(ctx, `SELECT `+bareColumns+` FROM users WHERE id = $1 FOR UPDATE`, id))
	if err != nil {
		return u, err
	}
	u, err = scanBare(tx.QueryRow(ctx, `UPDATE users SET email = $2, email_verified = $3, name = $4, status = $5, metadata = $6,
		version = version + 1, updated_at = clock_timestamp() WHERE id = $1 RETURNING `+bareColumns,
		id, u.Email, u.EmailVerified, name, u.Status, u.Metadata))
	if err != nil {
		return u, err
	}
	event, origin := ids.New(), make([]byte, 32)
	copy(origin, event[:])
	if _, err = tx.Exec(ctx, `INSERT INTO audit_origins (hash, subject_id, salt, ip, user_agent) VALUES ($1, $2, $3, $4, $5)`,
		origin, u.ID, origin[:16], "127.0.0.1", "bench"); err != nil {
		return u, err
	}
	_, err = tx.Exec(ctx, `INSERT INTO audit_events
		(id, action, actor_type, actor_id, target_type, target_id, origin, request_id, recorded_by, metadata)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		event, "user.updated", "key", "root", "user", u.ID, origin, event.String(), "", `{"changed":["name"]}`)
	return u, err
}

func answer(c *gin.Context, u bareUser, err error) {
	if err != nil {
		c.String(http.StatusInternalServerError, "%s", err)
		return
	}
	c.JSON(http.StatusOK, u)
}
