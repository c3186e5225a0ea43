-- +goose Up

-- A batch of events that one signed checkpoint sealed: leaves first to size-1 of the Merkle tree, which are the events
-- after the batch before, up to (last_txid, last_id).
CREATE TABLE audit_seals (
    batch      bigint      PRIMARY KEY,
    first      bigint      NOT NULL,
    size       bigint      NOT NULL UNIQUE,
    last_txid  xid8        NOT NULL,
    last_id    uuid        NOT NULL,
    root       bytea       NOT NULL CONSTRAINT audit_seals_root_length CHECK (octet_length(root) = 32),
    checkpoint text        NOT NULL, -- a signed note
    sealed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT audit_seals_not_empty CHECK (size > first)
);

-- Which event is which leaf. Events themselves are not updated when they are sealed.
CREATE TABLE audit_leaves (
    seq         bigint      PRIMARY KEY,
    event_id    uuid        NOT NULL,
    occurred_at timestamptz NOT NULL
);
CREATE INDEX audit_leaves_event_id ON audit_leaves (event_id);

-- The tree: tiles of height 8 as golang.org/x/mod/sumdb/tlog lays them out. The last tile of a level grows.
CREATE TABLE audit_tiles (
    level smallint NOT NULL,
    n     bigint   NOT NULL,
    data  bytea    NOT NULL, -- up to 256 hashes of 32 bytes
    PRIMARY KEY (level, n)
);
ALTER TABLE audit_tiles ALTER COLUMN data SET STORAGE EXTERNAL; -- hashes do not compress

CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse('the audit log is append-only');
CREATE TRIGGER audit_leaves_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_leaves
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse('the audit log is append-only');

-- +goose Down
DROP TABLE audit_tiles;
DROP TABLE audit_leaves;
DROP TABLE audit_seals;
