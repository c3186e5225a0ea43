-- +goose Up

-- The stage of each module, as the next poll of every instance takes it over.
CREATE TABLE rollout_stages (
    module     text PRIMARY KEY,
    stage      text NOT NULL CHECK (stage IN ('direct', 'shadow', 'repository', 'cached')),
    reach      integer NOT NULL CHECK (reach BETWEEN 0 AND 10000), -- basis points of the keys
    version    bigint NOT NULL DEFAULT 1,
    wanted     text NOT NULL DEFAULT '',        -- what a flag said last, where the stages follow flags
    held       boolean NOT NULL DEFAULT false,  -- the guard made the last move, and the flag has not changed since
    changed_at timestamptz NOT NULL DEFAULT now()
);

-- Every move, with who made it and why.
CREATE TABLE rollout_history (
    module     text NOT NULL,
    version    bigint NOT NULL,
    stage      text NOT NULL,
    reach      integer NOT NULL,
    actor      text NOT NULL, -- an API key's name, or what moved by itself: 'configuration', 'guard', 'openfeature'
    reason     text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (module, version)
);

-- +goose StatementBegin
CREATE FUNCTION rollout_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on %: the history is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'object_not_in_prerequisite_state';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER rollout_history_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rollout_history
    FOR EACH STATEMENT EXECUTE FUNCTION rollout_refuse();

-- What each instance has taken over, and what it has counted since. Rows outlive their instance for a while, because
-- what it has counted does.
CREATE TABLE rollout_instances (
    instance text NOT NULL,
    module   text NOT NULL,
    version  bigint NOT NULL,
    tally    jsonb NOT NULL,
    seen_at  timestamptz NOT NULL,
    PRIMARY KEY (instance, module)
) WITH (fillfactor = 50);

-- Where the paths differed: a sample, without values.
CREATE TABLE rollout_mismatches (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    module   text NOT NULL,
    version  bigint NOT NULL,
    method   text NOT NULL,
    key_hash text NOT NULL,
    report   jsonb NOT NULL,
    seen_at  timestamptz NOT NULL
);

CREATE INDEX rollout_mismatches_module ON rollout_mismatches (module, id);

-- +goose Down
DROP TABLE rollout_mismatches, rollout_instances, rollout_history, rollout_stages;
DROP FUNCTION rollout_refuse();
