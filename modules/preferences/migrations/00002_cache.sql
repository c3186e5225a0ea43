-- +goose Up
-- Whoever writes these tables, this program or another, is noticed by its cache (platform/cache).
CREATE TRIGGER user_preferences_cache AFTER UPDATE OR DELETE ON user_preferences
    FOR EACH ROW EXECUTE FUNCTION cache_outbox_note('pref', 'user_id');
CREATE TRIGGER user_preferences_cache_truncate AFTER TRUNCATE ON user_preferences
    EXECUTE FUNCTION cache_outbox_note('pref');
CREATE TRIGGER user_preference_values_cache AFTER INSERT OR UPDATE OR DELETE ON user_preference_values
    FOR EACH ROW EXECUTE FUNCTION cache_outbox_note('pref', 'user_id');
CREATE TRIGGER user_preference_values_cache_truncate AFTER TRUNCATE ON user_preference_values
    EXECUTE FUNCTION cache_outbox_note('pref');

-- The definitions are one entity, whichever of them changes.
-- +goose StatementBegin
CREATE FUNCTION preference_definitions_cache_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO cache_outbox (name) VALUES ('prefdefs:all');
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER preference_definitions_cache AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON preference_definitions
    EXECUTE FUNCTION preference_definitions_cache_note();

-- +goose Down
DROP TRIGGER preference_definitions_cache ON preference_definitions;
DROP FUNCTION preference_definitions_cache_note();
DROP TRIGGER user_preference_values_cache_truncate ON user_preference_values;
DROP TRIGGER user_preference_values_cache ON user_preference_values;
DROP TRIGGER user_preferences_cache_truncate ON user_preferences;
DROP TRIGGER user_preferences_cache ON user_preferences;
