-- Rows as they stood when 0006 was the newest migration: what later ones are tried on.
-- Never edited once a later migration exists.

INSERT INTO checkpoint VALUES ('NEXUS_AUDIT', '', 1795521600000000000, 9, 1795521600000, 0, 0, 4, 1795521600123456789);
