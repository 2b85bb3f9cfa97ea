-- Conversations whose id does not tell when they began, and that went on after a day that is
-- closed: on that day they are counted, whatever has expired of them. From the day's rollup.
CREATE TABLE begun_conversations (
    conversation_id TEXT    NOT NULL PRIMARY KEY,
    began_ms        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
