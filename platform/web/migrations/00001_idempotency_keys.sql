-- +goose Up
CREATE TABLE idempotency_keys (
    id          bytea       PRIMARY KEY, -- keyed hash of caller, method, path and the client's key
    fingerprint bytea       NOT NULL,    -- keyed hash of the request
    lease       uuid        NOT NULL,    -- of the instance that works on it
    leased_till timestamptz NOT NULL,
    status      smallint,                -- of the answer; null while in flight
    answer      bytea,                   -- headers and body, sealed with a key that only the request yields
    expires_at  timestamptz NOT NULL
);

CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);

-- +goose Down
DROP TABLE idempotency_keys;
