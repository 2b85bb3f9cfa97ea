-- The read model: everything that people read, projected from the event log.
--
-- Times are UTC in integer milliseconds, token counts are integers, ids are
-- text, so that the file can be read with any SQLite shell. Every key is a
-- natural one: rows do not depend on the order in which streams were read.

-- Configuration, without secrets. `sequence` is the one of NEXUS_CONFIG.

CREATE TABLE service_providers (
    provider_id    TEXT    NOT NULL PRIMARY KEY,
    name           TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    server_url     TEXT    NOT NULL,
    has_server_key INTEGER NOT NULL,
    rate_limit     INTEGER,
    created_ms     INTEGER NOT NULL,
    updated_ms     INTEGER NOT NULL,
    sequence       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE provider_models (
    model_id       TEXT    NOT NULL PRIMARY KEY,
    provider_id    TEXT    NOT NULL,
    model_name     TEXT    NOT NULL,
    upstream_model TEXT,
    created_ms     INTEGER NOT NULL,
    updated_ms     INTEGER NOT NULL,
    sequence       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    key_id        TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    role          TEXT    NOT NULL,
    on_disconnect TEXT    NOT NULL,
    created_ms    INTEGER NOT NULL,
    updated_ms    INTEGER NOT NULL,
    sequence      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE settings (
    name       TEXT    NOT NULL PRIMARY KEY,
    value      TEXT,
    is_sealed  INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    sequence   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Exchanges. Each event fills its own columns, so the order in which they
-- come does not matter but for the terminal event: the first one counts.

CREATE TABLE exchanges (
    request_id             TEXT    NOT NULL PRIMARY KEY,
    state                  TEXT    NOT NULL, -- open, received, completed, failed, rejected
    drawn_ms               INTEGER NOT NULL, -- when the request's id was drawn
    first_sequence         INTEGER NOT NULL, -- of NEXUS_EXCHANGES
    last_sequence          INTEGER NOT NULL,
    operation              TEXT,
    conversation_id        TEXT,
    requested_model        TEXT,             -- the name that the client typed
    key_id                 TEXT,
    user                   TEXT,
    -- from `received`
    is_received            INTEGER NOT NULL DEFAULT 0,
    received_at_ms         INTEGER,
    stream                 INTEGER,
    route                  TEXT,
    body_bytes             INTEGER,
    config_sequence        INTEGER,
    parent_id              TEXT,             -- message that the request continues
    message_ids            TEXT,             -- JSON array: what it added
    -- from the terminal event that counts
    terminal_sequence      INTEGER,
    later_terminals        INTEGER NOT NULL DEFAULT 0,
    ended_ms               INTEGER,
    provider_id            TEXT,
    provider_name          TEXT,
    model                  TEXT,             -- the configured model
    response_model         TEXT,
    response_id            TEXT,
    input_tokens           INTEGER,
    output_tokens          INTEGER,
    usage_source           TEXT,
    usage_raw              TEXT,
    attempts               INTEGER,
    status                 INTEGER,
    received_ms            INTEGER,
    time_to_first_token_ms INTEGER,
    duration_ms            INTEGER,
    chunks                 INTEGER,
    client_gone            INTEGER,
    last_message_id        TEXT,             -- message that the answers follow
    choices                TEXT,             -- JSON array of {index, finish_reason, message_id}
    failure_reason         TEXT,
    failure_message        TEXT,
    -- from `tokens_counted`: the count that fills in, and the audit of a provider's
    counted_input_tokens   INTEGER,
    counted_output_tokens  INTEGER,
    counted_vocabulary     TEXT,
    audited_input_tokens   INTEGER,
    audited_output_tokens  INTEGER,
    audited_vocabulary     TEXT,
    -- from `presumed_lost`
    presumed_lost_ms       INTEGER
) STRICT;

CREATE INDEX exchanges_conversation ON exchanges (conversation_id, request_id);
CREATE INDEX exchanges_first_sequence ON exchanges (first_sequence);
CREATE INDEX exchanges_ended ON exchanges (ended_ms);

CREATE TABLE attempts (
    request_id      TEXT    NOT NULL,
    attempt         INTEGER NOT NULL,
    provider_id     TEXT    NOT NULL,
    provider_name   TEXT    NOT NULL,
    model           TEXT    NOT NULL,
    started_ms      INTEGER,
    ended_ms        INTEGER,
    status          INTEGER,
    duration_ms     INTEGER,
    failure_reason  TEXT,
    failure_message TEXT,
    PRIMARY KEY (request_id, attempt)
) STRICT, WITHOUT ROWID;

-- What is needed, besides the messages, to put a request together again.
CREATE TABLE exchange_content (
    request_id     TEXT NOT NULL PRIMARY KEY,
    system_same_as TEXT,  -- the request whose system messages it repeats
    system         TEXT,  -- JSON array of [place, message]
    extras         TEXT,  -- JSON object: place → members beside the message
    parameters     TEXT   -- JSON object: every other member of the body
) STRICT;

CREATE TABLE conversations (
    conversation_id   TEXT    NOT NULL PRIMARY KEY,
    began_ms          INTEGER NOT NULL,
    first_request_id  TEXT    NOT NULL,
    last_request_id   TEXT    NOT NULL,
    key_id            TEXT    NOT NULL, -- of the first request
    user              TEXT    NOT NULL, -- of the first request; empty for none
    last_active_ms    INTEGER NOT NULL, -- end of the last exchange, or its begin while it runs
    requests          INTEGER NOT NULL,
    errors            INTEGER NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL
) STRICT;

CREATE INDEX conversations_active ON conversations (last_active_ms, conversation_id);
CREATE INDEX conversations_key ON conversations (key_id, last_active_ms, conversation_id);
CREATE INDEX conversations_first ON conversations (first_request_id);

-- Each node of the message tree once. The row is that of the latest request
-- that carried the message, so it stays the same when older ones expire.
CREATE TABLE chat_messages (
    conversation_id TEXT    NOT NULL,
    message_id      TEXT    NOT NULL,
    parent_id       TEXT,
    role            TEXT    NOT NULL,
    message         TEXT    NOT NULL, -- JSON
    choice          INTEGER NOT NULL, -- index of the choice of an answer, else 0
    request_id      TEXT    NOT NULL, -- the latest request that carried it
    carried_ms      INTEGER NOT NULL, -- when that request's id was drawn
    PRIMARY KEY (conversation_id, message_id)
) STRICT;

CREATE INDEX chat_messages_request ON chat_messages (request_id);

-- Statistics.

CREATE TABLE chat_stats (
    request_id      TEXT    NOT NULL,
    direction       TEXT    NOT NULL, -- prompt, completion
    conversation_id TEXT    NOT NULL,
    at_ms           INTEGER NOT NULL, -- when the request's id was drawn
    model           TEXT    NOT NULL,
    provider        TEXT    NOT NULL,
    key_id          TEXT    NOT NULL,
    user            TEXT    NOT NULL,
    tokens          INTEGER,          -- NULL until somebody has counted
    source          TEXT,             -- provider, gateway
    PRIMARY KEY (request_id, direction)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_hourly (
    hour_ms           INTEGER NOT NULL,
    model             TEXT    NOT NULL,
    provider          TEXT    NOT NULL,
    key_id            TEXT    NOT NULL,
    user              TEXT    NOT NULL,
    requests          INTEGER NOT NULL,
    errors            INTEGER NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    duration_ms       INTEGER NOT NULL,
    PRIMARY KEY (hour_ms, model, provider, key_id, user)
) STRICT, WITHOUT ROWID;

-- Day → conversations that began on it.
CREATE TABLE conversation_days (
    day_ms        INTEGER NOT NULL PRIMARY KEY,
    conversations INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Days whose statistics are those of their rollup.
CREATE TABLE closed_days (
    day_ms   INTEGER NOT NULL PRIMARY KEY,
    sequence INTEGER NOT NULL -- of NEXUS_ROLLUPS
) STRICT, WITHOUT ROWID;

-- The sums of usage_hourly and conversation_days: one row.
CREATE TABLE usage_totals (
    one               INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    requests          INTEGER NOT NULL,
    errors            INTEGER NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    duration_ms       INTEGER NOT NULL,
    conversations     INTEGER NOT NULL
) STRICT;

INSERT INTO usage_totals VALUES (1, 0, 0, 0, 0, 0, 0);

-- The greatest retention that was applied: one row.
CREATE TABLE retention (
    one                INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    cutoff_ms          INTEGER NOT NULL,
    exchanges_sequence INTEGER NOT NULL,
    audit_sequence     INTEGER NOT NULL
) STRICT;

INSERT INTO retention VALUES (1, 0, 0, 0);

-- The audit trail; `sequence` is the one of NEXUS_AUDIT.
CREATE TABLE audit_log (
    sequence INTEGER NOT NULL PRIMARY KEY,
    event_id TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    at_ms    INTEGER NOT NULL,
    about    TEXT    NOT NULL,
    actor    TEXT,
    data     TEXT    NOT NULL -- JSON
) STRICT;

CREATE INDEX audit_log_at ON audit_log (at_ms);

-- Events that could not be applied, whole.
CREATE TABLE dead_letter (
    stream     TEXT    NOT NULL,
    sequence   INTEGER NOT NULL,
    request_id TEXT,             -- the request that it is about, where that can be read
    reason     TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    payload    BLOB    NOT NULL,
    PRIMARY KEY (stream, sequence)
) STRICT;

-- How far each stream was read: a row with outbox '' for the stream, and one
-- for each outbox that fed it. The only table that two rebuilds may differ in.
CREATE TABLE checkpoint (
    stream        TEXT    NOT NULL,
    outbox        TEXT    NOT NULL,
    created_ns    INTEGER NOT NULL, -- when the stream was created
    sequence      INTEGER NOT NULL, -- the last one applied
    first_ms      INTEGER NOT NULL, -- when the first message that was read had been stored
    position      INTEGER NOT NULL, -- the last one of the outbox's lane
    gaps          INTEGER NOT NULL, -- positions that never came
    apply_version INTEGER NOT NULL,
    PRIMARY KEY (stream, outbox)
) STRICT, WITHOUT ROWID;
