-- Who may use how much, and what it costs: users, prices, and the limits of keys.
-- Money is in integer millionths of the currency. Columns of rows that were
-- written before this are empty; the read model is built anew.

ALTER TABLE api_keys ADD COLUMN user_id TEXT;
ALTER TABLE api_keys ADD COLUMN requests_per_minute INTEGER;
ALTER TABLE api_keys ADD COLUMN tokens_per_minute INTEGER;
ALTER TABLE api_keys ADD COLUMN concurrent_requests INTEGER;
ALTER TABLE api_keys ADD COLUMN monthly_budget INTEGER; -- a calendar month, UTC

CREATE TABLE users (
    user_id             TEXT    NOT NULL PRIMARY KEY,
    name                TEXT    NOT NULL,
    requests_per_minute INTEGER,
    tokens_per_minute   INTEGER,
    concurrent_requests INTEGER,
    monthly_budget      INTEGER,
    created_ms          INTEGER NOT NULL,
    updated_ms          INTEGER NOT NULL,
    sequence            INTEGER NOT NULL -- of NEXUS_CONFIG
) STRICT, WITHOUT ROWID;

-- In force is the one that began last; one for a provider goes before one for all.
CREATE TABLE prices (
    price_id                        TEXT    NOT NULL PRIMARY KEY,
    model_name                      TEXT    NOT NULL,
    provider_id                     TEXT,             -- NULL: every provider without its own
    input_micros_per_million        INTEGER NOT NULL,
    output_micros_per_million       INTEGER NOT NULL,
    cached_input_micros_per_million INTEGER,          -- NULL: as for others
    currency                        TEXT    NOT NULL,
    valid_from_ms                   INTEGER NOT NULL,
    created_ms                      INTEGER NOT NULL,
    sequence                        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX prices_valid ON prices (valid_from_ms);
