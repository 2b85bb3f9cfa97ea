-- What the sweeper of lost gateways looks for: through which outbox a request
-- came, and where the log says that its gateway is presumed lost. Columns of
-- rows that were written before this are empty; the read model is built anew.

ALTER TABLE exchanges ADD COLUMN outbox_id TEXT;               -- that `received` came through
ALTER TABLE exchanges ADD COLUMN presumed_lost_sequence INTEGER; -- of the first `presumed_lost`

-- Requests that are open, or ended and not counted: few, whatever the table's size.
CREATE INDEX exchanges_unsettled ON exchanges (outbox_id, request_id)
    WHERE is_received = 1 AND usage_source IS NULL AND counted_input_tokens IS NULL;
