-- +goose Up
-- Events do not change, so that the cache (platform/cache) need not hear of them. An erasure, by this program or another,
-- it must: one note for a person, however many origins go.
-- +goose StatementBegin
CREATE FUNCTION audit_origins_cache_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO cache_outbox (name) SELECT DISTINCT 'audit_subject:' || subject_id FROM erased;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_origins_cache AFTER DELETE ON audit_origins REFERENCING OLD TABLE AS erased
    FOR EACH STATEMENT EXECUTE FUNCTION audit_origins_cache_note();
CREATE TRIGGER audit_origins_cache_truncate AFTER TRUNCATE ON audit_origins
    EXECUTE FUNCTION cache_outbox_note('audit_subject');

-- +goose Down
DROP TRIGGER audit_origins_cache_truncate ON audit_origins;
DROP TRIGGER audit_origins_cache ON audit_origins;
DROP FUNCTION audit_origins_cache_note;
