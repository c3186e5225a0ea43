-- +goose Up

-- What happened. The rows are final: the triggers below refuse every change, also to the tables' owner.
CREATE TABLE audit_events (
    id          uuid        NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    txid        xid8        NOT NULL DEFAULT pg_current_xact_id(), -- the final order, for sealing
    action      text        NOT NULL CONSTRAINT audit_events_action_length CHECK (char_length(action) BETWEEN 3 AND 100),
    actor_type  text        NOT NULL,
    actor_id    text        NOT NULL DEFAULT '',
    target_type text        NOT NULL DEFAULT '',
    target_id   text        NOT NULL DEFAULT '',
    origin      bytea       CONSTRAINT audit_events_origin_length CHECK (octet_length(origin) = 32),
    request_id  text        NOT NULL DEFAULT '',
    recorded_by text        NOT NULL DEFAULT '',   -- the API key of an application's event; empty for our own
    metadata    json        NOT NULL DEFAULT '{}', -- json, not jsonb: the text stays as it was hashed
    PRIMARY KEY (id, occurred_at)
) PARTITION BY RANGE (occurred_at);

-- Pages run along these, newest first; a page's cost does not depend on how far down it is.
CREATE INDEX audit_events_occurred_at ON audit_events (occurred_at, id);
CREATE INDEX audit_events_actor ON audit_events (actor_id, occurred_at, id);
CREATE INDEX audit_events_target ON audit_events (target_id, occurred_at, id);
CREATE INDEX audit_events_action ON audit_events (action, occurred_at, id);
-- The sealer and the verifier run along this one.
CREATE INDEX audit_events_txid ON audit_events (txid, id);

-- Where requests came from: personal data of their subject, who may be erased. The key is a commitment to the row,
-- SHA-256(salt || ip || '\n' || user_agent); an event holds the key alone.
CREATE TABLE audit_origins (
    hash        bytea       NOT NULL CONSTRAINT audit_origins_hash_length CHECK (octet_length(hash) = 32),
    occurred_at timestamptz NOT NULL DEFAULT now(),
    subject_id  text        NOT NULL, -- the actor or, where that is anonymous, the target
    salt        bytea       NOT NULL,
    ip          text        NOT NULL,
    user_agent  text        NOT NULL,
    PRIMARY KEY (hash, occurred_at)
) PARTITION BY RANGE (occurred_at);
CREATE INDEX audit_origins_subject ON audit_origins (subject_id);

-- +goose StatementBegin
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on %: %', TG_OP, TG_TABLE_NAME, TG_ARGV[0] USING ERRCODE = 'object_not_in_prerequisite_state';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION audit_refuse('the audit log is append-only');
CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse('the audit log is append-only');
-- An event is recorded when it happens. The condition is evaluated without a function call: it costs writers nothing.
CREATE TRIGGER audit_events_in_present BEFORE INSERT ON audit_events
    FOR EACH ROW WHEN (NEW.occurred_at <> now() OR NEW.txid <> pg_current_xact_id())
    EXECUTE FUNCTION audit_refuse('an event is dated by the database');
CREATE TRIGGER audit_origins_no_update BEFORE UPDATE ON audit_origins
    FOR EACH ROW EXECUTE FUNCTION audit_refuse('an origin is kept or erased, never changed');

-- Catches what no month's partition takes, so that an insert never fails for want of one.
CREATE TABLE audit_events_default PARTITION OF audit_events DEFAULT;
CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events_default
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse('the audit log is append-only');
CREATE TABLE audit_origins_default PARTITION OF audit_origins DEFAULT;

-- audit_add_partition gives parent a partition for the month (UTC) that day lies in, moves there what the default
-- partition has caught of it, and reports whether it was missing; one transaction at a time may. ATTACH, unlike
-- PARTITION OF, does not stop writers.
-- +goose StatementBegin
CREATE FUNCTION audit_add_partition(parent text, day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    first  timestamptz := date_trunc('month', day::timestamp) AT TIME ZONE 'UTC';
    next   timestamptz := (date_trunc('month', day::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
    part   text := parent || to_char(day, '_YYYY_MM');
    spare  text := parent || '_default';
    caught boolean;
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part, parent);
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', spare);
    EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE occurred_at >= $1 AND occurred_at < $2)', spare)
        INTO caught USING first, next;
    IF caught THEN
        EXECUTE format('ALTER TABLE %I DISABLE TRIGGER USER', spare);
        EXECUTE format('WITH moved AS (DELETE FROM %I WHERE occurred_at >= $1 AND occurred_at < $2 RETURNING *)
            INSERT INTO %I SELECT * FROM moved', spare, part) USING first, next;
        EXECUTE format('ALTER TABLE %I ENABLE TRIGGER USER', spare);
    END IF;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, part, first, next);
    IF parent = 'audit_events' THEN -- row triggers are inherited, this kind is not
        EXECUTE format('CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse(%L)', part, 'the audit log is append-only');
    END IF;
    RETURN true;
END
$$;
-- +goose StatementEnd

-- audit_add_partitions sees to this month, the next ahead months, and those that the default partitions have caught. It
-- returns how many partitions were missing.
-- +goose StatementBegin
CREATE FUNCTION audit_add_partitions(ahead int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    this  timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    days  date[];
    day   date;
    added int := 0;
BEGIN
    -- Before anything reads the default partitions: who waits for this lock must hold none that its holder needs next.
    PERFORM pg_advisory_xact_lock(hashtextextended('strata.auditlog.partitions', 0));
    days := ARRAY(
        SELECT (this + n * interval '1 month')::date FROM generate_series(0, ahead) AS n
        UNION SELECT date_trunc('month', occurred_at AT TIME ZONE 'UTC')::date FROM audit_events_default
        UNION SELECT date_trunc('month', occurred_at AT TIME ZONE 'UTC')::date FROM audit_origins_default);
    FOREACH day IN ARRAY days LOOP
        added := added + audit_add_partition('audit_events', day)::int + audit_add_partition('audit_origins', day)::int;
    END LOOP;
    RETURN added;
END
$$;
-- +goose StatementEnd
SELECT audit_add_partitions(3);

-- +goose Down
DROP TABLE audit_events;
DROP TABLE audit_origins;
DROP FUNCTION audit_add_partitions;
DROP FUNCTION audit_add_partition;
DROP FUNCTION audit_refuse;
