-- +goose Up

-- Invalidates cached users whoever writes: a program that knows nothing of the cache, and psql, too. An insert needs none:
-- ids are new, and that one does not exist is remembered for seconds at most.
CREATE TRIGGER users_cache_update AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION cache_outbox_note('user', 'id');
CREATE TRIGGER users_cache_delete AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION cache_outbox_note('user', 'id');
CREATE TRIGGER users_cache_truncate AFTER TRUNCATE ON users EXECUTE FUNCTION cache_outbox_note('user');

-- +goose Down
DROP TRIGGER users_cache_truncate ON users;
DROP TRIGGER users_cache_delete ON users;
DROP TRIGGER users_cache_update ON users;
