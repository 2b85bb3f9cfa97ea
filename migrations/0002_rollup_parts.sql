-- Parts of a rollup whose last part has not been read yet: day and number → the event's data.
-- They count for nothing until then; see the event `day_closed`.
CREATE TABLE rollup_parts (
    day_ms INTEGER NOT NULL,
    part   INTEGER NOT NULL,
    data   TEXT    NOT NULL, -- JSON
    PRIMARY KEY (day_ms, part)
) STRICT, WITHOUT ROWID;
