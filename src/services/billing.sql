-- migration 1: accounts and their history
CREATE SCHEMA IF NOT EXISTS billing;

-- Each operation updates its account, so pages keep room for the new version.
CREATE TABLE billing.accounts (
  id     uuid PRIMARY KEY,
  wallet numeric(38,2) NOT NULL CHECK (wallet >= 0)
) WITH (fillfactor = 70);

-- One row for each operation, never changed: what change data capture publishes, columns and their order included.
CREATE TABLE billing.history_billings (
  id                   uuid PRIMARY KEY,
  billing_id           uuid,
  sum                  numeric(38,2),
  last_value_wallet    numeric(38,2),
  current_value_wallet numeric(38,2),
  type_operation       text,
  status               text
);

CREATE PUBLICATION billing_pub FOR TABLE billing.history_billings WITH (publish = 'insert');

-- The barrier of the sagas' wallet operations. OPEN and TAKEN can be compensated, to CANCELED; SHORT, MISSING and EXISTS
-- are refusals kept for repeats.
CREATE TABLE billing.step (
  id         uuid PRIMARY KEY,
  billing_id uuid NOT NULL,
  sum        numeric(38,2) NOT NULL,
  state      text NOT NULL CHECK (state IN ('OPEN', 'TAKEN', 'SHORT', 'MISSING', 'EXISTS', 'CANCELED'))
);

CREATE TABLE billing.idempotency (
  key         text PRIMARY KEY,
  fingerprint bytea NOT NULL,
  status      smallint,
  body        text,
  created_at  timestamptz NOT NULL DEFAULT now()
);

-- migration 2: which trace an operation belongs to
-- W3C's traceparent. The columns of billing_pub are a contract with its readers, so they stay as they are.
-- billing_pub_traced has this one too, for readers that continue the trace.
ALTER TABLE billing.history_billings ADD COLUMN traceparent text;
ALTER PUBLICATION billing_pub SET TABLE billing.history_billings (id, billing_id, sum, last_value_wallet,
  current_value_wallet, type_operation, status);
CREATE PUBLICATION billing_pub_traced FOR TABLE billing.history_billings WITH (publish = 'insert');
