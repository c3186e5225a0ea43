-- +goose Up
CREATE TABLE users (
    id              uuid        PRIMARY KEY,
    email           text        NOT NULL CONSTRAINT users_email_length CHECK (char_length(email) BETWEEN 3 AND 254),
    email_verified  boolean     NOT NULL DEFAULT false,
    name            text        NOT NULL DEFAULT '' CONSTRAINT users_name_length CHECK (char_length(name) <= 200),
    status          text        NOT NULL DEFAULT 'active' CONSTRAINT users_status CHECK (status IN ('active', 'suspended', 'deleted')),
    -- json, not jsonb: it keeps numbers as they were written, where jsonb would expand 1e300 to 301 digits.
    metadata        json        NOT NULL DEFAULT '{}' CONSTRAINT users_metadata_object CHECK (json_typeof(metadata) = 'object'),
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    last_sign_in_at timestamptz
);

-- The e-mail as it was given is kept; two that differ in case alone are the same.
CREATE UNIQUE INDEX users_email_key ON users (lower(email));

-- Pages run along these two, newest first; a page's cost does not depend on how far down it is.
CREATE INDEX users_created_at_id ON users (created_at, id);
CREATE INDEX users_status_created_at_id ON users (status, created_at, id);

-- Prefix search: LIKE 'x%' uses a btree only with pattern_ops, whatever the database's collation.
CREATE INDEX users_email_prefix ON users (lower(email) text_pattern_ops);
CREATE INDEX users_name_prefix ON users (lower(name) text_pattern_ops);

-- Hashes live apart from what is read, cached and exported.
CREATE TABLE user_credentials (
    user_id    uuid        PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    hash       text        NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Single-use tokens that the application mails: e-mail verification and password reset.
CREATE TABLE user_tokens (
    hash       bytea       PRIMARY KEY,
    user_id    uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose    text        NOT NULL CONSTRAINT user_tokens_purpose CHECK (purpose IN ('email_verification', 'password_reset')),
    email      text        NOT NULL, -- the address it was made for: a token for a former address is void
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX user_tokens_user_id ON user_tokens (user_id);
CREATE INDEX user_tokens_expires_at ON user_tokens (expires_at);

-- +goose Down
DROP TABLE user_tokens;
DROP TABLE user_credentials;
DROP TABLE users;
