-- Rows as they stood when 0002 was the newest migration: what later ones are tried on.
-- Never edited once a later migration exists.

INSERT INTO rollup_parts VALUES (1779667200000, 1, '{"day":"2026-05-25","more":true,"usage":[],"conversations":0}');
