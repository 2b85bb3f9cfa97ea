-- Rows as they stood when 0003 was the newest migration: what later ones are tried on.
-- Never edited once a later migration exists.

INSERT INTO begun_conversations VALUES ('4e4d6c5a-0000-4000-8000-000000000001', 1779667200001);
