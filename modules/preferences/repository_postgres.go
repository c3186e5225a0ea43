package preferences

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/strata-accounts/strata/platform/db"
)

// PostgresRepository is the second rung: GORM models on the bounded pool.
type PostgresRepository struct {
	db *db.DB
}

var _ Repository = (*PostgresRepository)(nil)

// NewPostgresRepository returns a PostgresRepository on this pool.
func NewPostgresRepository(d *db.DB) *PostgresRepository { return &PostgresRepository{db: d} }

// definitionRow holds JSON as text: a row that has been in the cache's shared tier is then the same to the byte.
type definitionRow struct {
	Key         string `gorm:"primaryKey"`
	Schema      string
	Default     string `gorm:"column:default_value"`
	Description string
	Version     int64     `gorm:"default:1"`
	CreatedAt   time.Time `gorm:"autoCreateTime:false;default:now()"`
	UpdatedAt   time.Time `gorm:"autoUpdateTime:false;default:now()"`
}

func (definitionRow) TableName() string { return "preference_definitions" }

// preferencesRow is what a user's values have in common.
type preferencesRow struct {
	UserID    uuid.UUID `gorm:"primaryKey"`
	Version   int64     `gorm:"default:0"`
	CreatedAt time.Time `gorm:"autoCreateTime:false;default:now()"`
	UpdatedAt time.Time `gorm:"autoUpdateTime:false;default:now()"`
}

func (preferencesRow) TableName() string { return "user_preferences" }

type valueRow struct {
	UserID uuid.UUID `gorm:"primaryKey"`
	Key    string    `gorm:"primaryKey"`
	Value  string
}

func (valueRow) TableName() string { return "user_preference_values" }

// versionedValue is a value beside the version of all. Key and Value are nil where nothing is set.
type versionedValue struct {
	Version int64
	Key     *string
	Value   *string
}

func toDefinition(r definitionRow) Definition {
	return Definition{
		Key: r.Key, Schema: json.RawMessage(r.Schema), Default: json.RawMessage(r.Default), Description: r.Description,
		Version: r.Version, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
}

// Definitions implements Reader.
func (r *PostgresRepository) Definitions(ctx context.Context) (Catalogue, error) {
	var rows []definitionRow
	if err := r.db.Gorm(ctx).Order(`key COLLATE "C"`).Find(&rows).Error; err != nil {
		return Catalogue{}, translate(err)
	}
	return toCatalogue(rows), nil
}

func toCatalogue(rows []definitionRow) Catalogue {
	definitions := make([]Definition, len(rows))
	for i, row := range rows {
		definitions[i] = toDefinition(row)
	}
	return newCatalogue(definitions)
}

// CreateDefinition implements Repository.
func (r *PostgresRepository) CreateDefinition(ctx context.Context, d Definition) (Definition, bool, error) {
	row := definitionRow{Key: d.Key, Schema: string(d.Schema), Default: string(d.Default), Description: d.Description}
	res := r.db.Gorm(ctx).Clauses(clause.OnConflict{DoNothing: true}, clause.Returning{}).Create(&row)
	if res.Error != nil || res.RowsAffected == 0 {
		return Definition{}, false, translate(res.Error)
	}
	return toDefinition(row), true, nil
}

// UpdateDefinition implements Repository.
func (r *PostgresRepository) UpdateDefinition(ctx context.Context, key string, mutate func(*Definition) error) (Definition, error) {
	var d Definition
	err := r.db.InTx(ctx, func(ctx context.Context) error {
		var row definitionRow
		if err := r.db.Gorm(ctx).Clauses(clause.Locking{Strength: "UPDATE"}).Take(&row, "key = ?", key).Error; err != nil {
			return err
		}
		before := toDefinition(row)
		d = before
		if err := mutate(&d); err != nil || d.equal(before) {
			return err
		}
		err := r.db.Gorm(ctx).Model(&row).Clauses(clause.Returning{}).Updates(map[string]any{
			"schema": string(d.Schema), "default_value": string(d.Default), "description": d.Description,
			"version": gorm.Expr("version + 1"), "updated_at": gorm.Expr("clock_timestamp()"),
		}).Error
		d = toDefinition(row)
		return err
	})
	return d, translate(err)
}

// DeleteDefinition implements Repository.
func (r *PostgresRepository) DeleteDefinition(ctx context.Context, key string) error {
	res := r.db.Gorm(ctx).Delete(&definitionRow{Key: key})
	if res.Error == nil && res.RowsAffected == 0 {
		return ErrNotDefined
	}
	return db.Translate(res.Error, referenced)
}

// LockDefinitions implements Repository.
func (r *PostgresRepository) LockDefinitions(ctx context.Context, keys []string) error {
	var locked []string
	return translate(r.db.Gorm(ctx).Model(&definitionRow{}).Clauses(clause.Locking{Strength: "SHARE"}).
		Where("key IN ?", keys).Order("key").Pluck("key", &locked).Error)
}

// Values implements Reader. One statement, so that the values are those of the version.
func (r *PostgresRepository) Values(ctx context.Context, userID uuid.UUID) (Values, error) {
	var rows []versionedValue
	err := r.db.Gorm(ctx).Model(&preferencesRow{}).Select("version, key, value").
		Joins("LEFT JOIN user_preference_values USING (user_id)").Where("user_id = ?", userID).Find(&rows).Error
	return toValues(userID, rows), translate(err)
}

func toValues(userID uuid.UUID, rows []versionedValue) Values {
	v := Values{UserID: userID}
	for _, row := range rows {
		v.Version = row.Version
		if row.Key != nil {
			v.set(*row.Key, json.RawMessage(*row.Value))
		}
	}
	return v
}

// EachValue implements Repository.
func (r *PostgresRepository) EachValue(ctx context.Context, key string, visit func(json.RawMessage, int64) error) error {
	rows, err := r.db.Gorm(ctx).Model(&valueRow{}).Select("value::text, count(*)").
		Where("key = ?", key).Group("value::text").Rows()
	if err != nil {
		return translate(err)
	}
	return eachRow(rows, visit)
}

// UpdateValues implements Repository.
func (r *PostgresRepository) UpdateValues(ctx context.Context, userID uuid.UUID, mutate func(*Values) error) (Values, error) {
	var v Values
	err := r.db.InTx(ctx, func(ctx context.Context) error {
		if err := r.lockValues(ctx, userID); err != nil {
			return err
		}
		before, err := r.Values(ctx, userID)
		if err != nil {
			return err
		}
		v = before.clone()
		if err := mutate(&v); err != nil {
			return err
		}
		set, unset := before.diff(v)
		if len(set)+len(unset) == 0 {
			return nil
		}
		if err := r.storeValues(ctx, v, set, unset); err != nil {
			return err
		}
		row := preferencesRow{UserID: userID}
		err = r.db.Gorm(ctx).Model(&row).Clauses(clause.Returning{}).Updates(map[string]any{
			"version": gorm.Expr("version + 1"), "updated_at": gorm.Expr("clock_timestamp()"),
		}).Error
		v.Version = row.Version
		return err
	})
	return v, translate(err)
}

// lockValues locks the user's row, which it makes for a first value.
func (r *PostgresRepository) lockValues(ctx context.Context, userID uuid.UUID) error {
	row := preferencesRow{UserID: userID}
	if err := r.db.Gorm(ctx).Clauses(clause.OnConflict{DoNothing: true}).Create(&row).Error; err != nil {
		return err
	}
	return r.db.Gorm(ctx).Clauses(clause.Locking{Strength: "UPDATE"}).Take(&row).Error
}

func (r *PostgresRepository) storeValues(ctx context.Context, v Values, set, unset []string) error {
	rows := make([]valueRow, len(set))
	for i, key := range set {
		value, _ := v.get(key)
		rows[i] = valueRow{UserID: v.UserID, Key: key, Value: string(value)}
	}
	if len(rows) > 0 {
		if err := r.db.Gorm(ctx).Clauses(clause.OnConflict{UpdateAll: true}).Create(&rows).Error; err != nil {
			return err
		}
	}
	if len(unset) == 0 {
		return nil
	}
	return r.db.Gorm(ctx).Where("user_id = ? AND key IN ?", v.UserID, unset).Delete(&valueRow{}).Error
}

// DeleteValues implements Repository.
func (r *PostgresRepository) DeleteValues(ctx context.Context, userID uuid.UUID) error {
	return translate(r.db.Gorm(ctx).Delete(&preferencesRow{UserID: userID}).Error)
}
