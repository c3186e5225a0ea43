-- +goose Up

-- What the relay has yet to invalidate: a row per write to a watched table, in the writer's transaction.
CREATE TABLE cache_outbox (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name     text NOT NULL, -- 'kind:key'; 'kind:*' for all of them
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- +goose StatementBegin
-- A watched table's trigger: cache_outbox_note('kind', 'key column'). It runs as its owner, so that a role that may
-- write the table needs no right to the outbox.
CREATE FUNCTION cache_outbox_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    before text;
    after  text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO cache_outbox (name) VALUES (TG_ARGV[0] || ':*');
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        before := to_jsonb(OLD) ->> TG_ARGV[1];
        INSERT INTO cache_outbox (name) VALUES (TG_ARGV[0] || ':' || before);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        after := to_jsonb(NEW) ->> TG_ARGV[1];
        IF after IS DISTINCT FROM before THEN
            INSERT INTO cache_outbox (name) VALUES (TG_ARGV[0] || ':' || after);
        END IF;
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- Who relays. A new leader takes a higher fence; what an old one still tries to write is refused by it.
CREATE TABLE cache_relay (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    fence      bigint NOT NULL,
    holder     text NOT NULL,
    expires_at timestamptz NOT NULL
);
INSERT INTO cache_relay (fence, holder, expires_at) VALUES (0, '', '-infinity');

-- The epoch in which a group of keys may have a freshness marker; empty while none may.
CREATE TABLE cache_epoch (
    grp   smallint PRIMARY KEY,
    epoch text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The processes that are up, and whether they share a cache.
CREATE TABLE cache_instance (
    id      text PRIMARY KEY,
    shared  boolean NOT NULL,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE cache_instance, cache_epoch, cache_relay;
DROP FUNCTION cache_outbox_note() CASCADE;
DROP TABLE cache_outbox;
