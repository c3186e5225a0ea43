-- +goose Up
-- What may be preferred. Schemas, defaults and values are json, not jsonb: jsonb writes 1e300 out in full.
CREATE TABLE preference_definitions (
    key           text        PRIMARY KEY CONSTRAINT preference_definitions_key CHECK (key ~ '^[a-z][a-z0-9_.-]{0,63}$'),
    schema        json        NOT NULL,
    default_value json        NOT NULL,
    description   text        NOT NULL DEFAULT '' CONSTRAINT preference_definitions_description_length CHECK (char_length(description) <= 1000),
    version       bigint      NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- One row per user who ever set a preference: the lock for changes to that user's values, and their common version.
CREATE TABLE user_preferences (
    user_id    uuid        PRIMARY KEY,
    version    bigint      NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- A row per value, so that a change of a definition finds those it concerns.
CREATE TABLE user_preference_values (
    user_id uuid NOT NULL REFERENCES user_preferences (user_id) ON DELETE CASCADE,
    key     text NOT NULL REFERENCES preference_definitions (key),
    value   json NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX user_preference_values_key ON user_preference_values (key);

-- +goose Down
DROP TABLE user_preference_values;
DROP TABLE user_preferences;
DROP TABLE preference_definitions;
