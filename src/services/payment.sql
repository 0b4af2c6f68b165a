-- migration 1: payments
CREATE SCHEMA IF NOT EXISTS payment;

-- Written once and rarely updated, so pages are filled. The primary key is the only index. The id of a saga's payment is
-- derived from the saga, which makes the row its own barrier.
CREATE TABLE payment.payments (
  id       uuid PRIMARY KEY,
  order_id uuid NOT NULL,
  cost     numeric(38,2) NOT NULL CHECK (cost > 0),
  status   text NOT NULL CHECK (status IN ('SUCCESS', 'FAILED', 'CANCELED'))
);

CREATE TABLE payment.idempotency (
  key         text PRIMARY KEY,
  fingerprint bytea NOT NULL,
  status      smallint,
  body        text,
  created_at  timestamptz NOT NULL DEFAULT now()
);
