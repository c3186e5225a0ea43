-- +goose Up

-- The part of the cache key that tells sessions apart, in the form in which the program asks for it.
ALTER TABLE sessions ADD COLUMN cache_id text GENERATED ALWAYS AS (encode(token_hash, 'hex')) STORED;

-- Invalidates cached sessions whoever writes. Expired ones are refused by the clock, cached or not, so that their
-- removal makes no noise; nor does a use, which only prolongs a session's life: a reader who finds that over in the cache
-- asks the table.
CREATE TRIGGER sessions_cache_insert AFTER INSERT ON sessions FOR EACH ROW
    EXECUTE FUNCTION cache_outbox_note('ses', 'cache_id');
CREATE TRIGGER sessions_cache_update AFTER UPDATE ON sessions FOR EACH ROW
    WHEN (NEW.idle_expires_at < OLD.idle_expires_at
        OR (NEW.id, NEW.user_id, NEW.token_hash, NEW.created_at, NEW.expires_at, NEW.ip, NEW.user_agent, NEW.version)
            IS DISTINCT FROM
           (OLD.id, OLD.user_id, OLD.token_hash, OLD.created_at, OLD.expires_at, OLD.ip, OLD.user_agent, OLD.version))
    EXECUTE FUNCTION cache_outbox_note('ses', 'cache_id');
CREATE TRIGGER sessions_cache_delete AFTER DELETE ON sessions FOR EACH ROW
    WHEN (OLD.idle_expires_at > now())
    EXECUTE FUNCTION cache_outbox_note('ses', 'cache_id');
CREATE TRIGGER sessions_cache_truncate AFTER TRUNCATE ON sessions
    EXECUTE FUNCTION cache_outbox_note('ses');

-- +goose Down
DROP TRIGGER sessions_cache_truncate ON sessions;
DROP TRIGGER sessions_cache_delete ON sessions;
DROP TRIGGER sessions_cache_update ON sessions;
DROP TRIGGER sessions_cache_insert ON sessions;
ALTER TABLE sessions DROP COLUMN cache_id;
