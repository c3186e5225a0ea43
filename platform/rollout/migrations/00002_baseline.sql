-- +goose Up

-- How fast each path was when it was last seen at work, for the guard to judge by where the old path is at rest.
ALTER TABLE rollout_stages ADD COLUMN baseline jsonb NOT NULL DEFAULT '{}';

-- +goose Down
ALTER TABLE rollout_stages DROP COLUMN baseline;
