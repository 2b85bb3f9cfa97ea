-- Rows as they stood when 0003 was the newest migration: what later ones are tried on.
-- Never edited once a later migration exists.

INSERT INTO exchanges (request_id, state, drawn_ms, first_sequence, last_sequence, is_received, received_at_ms, outbox_id) VALUES ('0199c0de-0000-7000-8000-000000000011', 'received', 1795521600000, 11, 11, 1, 1795521600001, '0199c0de-0000-7000-8000-000000000008');
INSERT INTO exchanges (request_id, state, drawn_ms, first_sequence, last_sequence, is_received, received_at_ms, outbox_id, presumed_lost_ms, presumed_lost_sequence) VALUES ('0199c0de-0000-7000-8000-000000000012', 'received', 1795521600000, 12, 14, 1, 1795521600001, '0199c0de-0000-7000-8000-000000000008', 1795521700000, 14);
