-- Which event of a stream was applied last: a stream that was put back from an
-- older copy and has grown again has another one with that sequence. Empty for
-- what was written before this, which is then not compared.

ALTER TABLE checkpoint ADD COLUMN stored_ns INTEGER; -- when the broker stored the last event
