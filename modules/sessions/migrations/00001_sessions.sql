-- +goose Up
CREATE TABLE sessions (
    id              uuid        PRIMARY KEY,
    user_id         uuid        NOT NULL,
    token_hash      bytea       NOT NULL CONSTRAINT sessions_token_hash_length CHECK (octet_length(token_hash) = 32),
    created_at      timestamptz NOT NULL DEFAULT now(),
    last_seen_at    timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    idle_expires_at timestamptz NOT NULL,
    ip              text        NOT NULL DEFAULT '',
    user_agent      text        NOT NULL DEFAULT '',
    version         bigint      NOT NULL DEFAULT 1,
    -- So that one comparison tells whether a session is alive.
    CONSTRAINT sessions_idle_before_absolute CHECK (idle_expires_at <= expires_at)
);

CREATE UNIQUE INDEX sessions_token_hash_key ON sessions (token_hash);
CREATE INDEX sessions_user_id_id ON sessions (user_id, id); -- ids are ordered by time: a user's devices, newest first
CREATE INDEX sessions_idle_expires_at ON sessions (idle_expires_at);

-- Failed sign-ins per account, or per account and client. The keys are hashes: no e-mail address is kept here. A crash
-- may empty the table, and then only forgets failures of the last minutes: it needs no write-ahead log.
CREATE UNLOGGED TABLE sign_in_failures (
    key        bytea       PRIMARY KEY,
    failures   integer     NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sign_in_failures_expires_at ON sign_in_failures (expires_at);

-- Clients from which an account has been signed in to. They are limited apart from the rest of the world, so that
-- nobody can lock an account's owner out by guessing at its password.
CREATE TABLE sign_in_clients (
    key     bytea       PRIMARY KEY,
    user_id uuid        NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sign_in_clients_user_id ON sign_in_clients (user_id);
CREATE INDEX sign_in_clients_seen_at ON sign_in_clients (seen_at);

-- +goose Down
DROP TABLE sign_in_clients;
DROP TABLE sign_in_failures;
DROP TABLE sessions;
