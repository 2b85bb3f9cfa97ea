-- Rows as they stood when 0001 was the newest migration: what later ones are tried on.
-- Never edited once a later migration exists.

INSERT INTO service_providers VALUES ('0199c0de-0000-7000-8000-000000000001', 'openai', 'openai', 'https://api.openai.com', 1, 1000, 1795521600000, 1795521600000, 1);
INSERT INTO provider_models VALUES ('0199c0de-0000-7000-8000-000000000002', '0199c0de-0000-7000-8000-000000000001', 'gpt-4.1', 'gpt-4.1-2025-04-14', 1795521600000, 1795521600000, 2);
INSERT INTO api_keys VALUES ('0199c0de-0000-7000-8000-000000000003', 'admin', 'admin', 'finish', 1795521600000, 1795521600000, 3);
INSERT INTO settings VALUES ('message_key', NULL, 1, 1795521600000, 4);

INSERT INTO exchanges (request_id, state, drawn_ms, first_sequence, last_sequence) VALUES ('0199c0de-0000-7000-8000-000000000004', 'open', 1795521600000, 1, 1);
INSERT INTO exchanges VALUES (
    '0199c0de-0000-7000-8000-000000000005', 'failed', 1795521600000, 2, 5, 'chat',
    '0199c0de-0000-7000-8000-000000000006', 'gpt-4.1', '0199c0de-0000-7000-8000-000000000003', 'ada',
    1, 1795521600001, 1, '/v1/chat/completions', 512, 4, '01010101010101010101010101010101',
    '["02020202020202020202020202020202"]',
    5, 1, 1795521601000, '0199c0de-0000-7000-8000-000000000001', 'openai', 'gpt-4.1',
    'gpt-4.1-2025-04-14', 'chatcmpl-1', 10, 20, 'provider', '{"prompt_tokens":10}', 2, 502,
    1795521600000, 120, 1000, 3, 0, '02020202020202020202020202020202',
    '[{"index":0,"finish_reason":"stop","message_id":"03030303030303030303030303030303"}]',
    'upstream_cut', 'the stream was cut', 11, 21, 'o200k_base', 12, 22, 'o200k_base', 1795521700000
);
INSERT INTO attempts VALUES ('0199c0de-0000-7000-8000-000000000005', 1, '0199c0de-0000-7000-8000-000000000001', 'openai', 'gpt-4.1', 1795521600002, 1795521600900, 503, 898, 'upstream_status', 'the provider answered 503');
INSERT INTO attempts (request_id, attempt, provider_id, provider_name, model, started_ms) VALUES ('0199c0de-0000-7000-8000-000000000005', 2, '0199c0de-0000-7000-8000-000000000001', 'openai', 'gpt-4.1', 1795521600901);
INSERT INTO exchange_content VALUES ('0199c0de-0000-7000-8000-000000000005', NULL, '[[0,{"role":"system","content":"be brief"}]]', '{"1":{"x":1}}', '{"temperature":0.5}');
INSERT INTO conversations VALUES ('0199c0de-0000-7000-8000-000000000006', 1795521600000, '0199c0de-0000-7000-8000-000000000005', '0199c0de-0000-7000-8000-000000000005', '0199c0de-0000-7000-8000-000000000003', 'ada', 1795521601000, 1, 1, 10, 20);
INSERT INTO chat_messages VALUES ('0199c0de-0000-7000-8000-000000000006', '02020202020202020202020202020202', NULL, 'user', '{"role":"user","content":"hello"}', 0, '0199c0de-0000-7000-8000-000000000005', 1795521600000);

INSERT INTO chat_stats VALUES ('0199c0de-0000-7000-8000-000000000005', 'prompt', '0199c0de-0000-7000-8000-000000000006', 1795521600000, 'gpt-4.1', 'openai', '0199c0de-0000-7000-8000-000000000003', 'ada', 10, 'provider');
INSERT INTO chat_stats VALUES ('0199c0de-0000-7000-8000-000000000005', 'completion', '0199c0de-0000-7000-8000-000000000006', 1795521600000, 'gpt-4.1', 'openai', '0199c0de-0000-7000-8000-000000000003', 'ada', NULL, NULL);
INSERT INTO usage_hourly VALUES (1795521600000, 'gpt-4.1', 'openai', '0199c0de-0000-7000-8000-000000000003', 'ada', 1, 1, 10, 20, 1000);
INSERT INTO conversation_days VALUES (1795478400000, 1);
INSERT INTO closed_days VALUES (1779580800000, 1);
UPDATE usage_totals SET requests = 1, errors = 1, prompt_tokens = 10, completion_tokens = 20, duration_ms = 1000, conversations = 1;
UPDATE retention SET cutoff_ms = 1779667200000, exchanges_sequence = 1, audit_sequence = 1;

INSERT INTO audit_log VALUES (1, '0199c0de-0000-7000-8000-000000000007', 'management_call', 1795521600000, '/keys', 'admin', '{"url.path":"/keys"}');
INSERT INTO dead_letter VALUES ('NEXUS_EXCHANGES', 9, NULL, 'not a CloudEvents envelope', 'nexus.exchange.0.odd._._', x'7b');
INSERT INTO checkpoint VALUES ('NEXUS_EXCHANGES', '', 1795521600000000000, 9, 1795521600000, 0, 0, 1);
INSERT INTO checkpoint VALUES ('NEXUS_EXCHANGES', '0199c0de-0000-7000-8000-000000000008', 1795521600000000000, 5, 1795521600000, 4, 0, 1);
