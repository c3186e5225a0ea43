-- +goose Up
ALTER TABLE idempotency_keys ADD COLUMN done boolean NOT NULL DEFAULT false; -- set in the transactions of the request

-- +goose Down
ALTER TABLE idempotency_keys DROP COLUMN done;
