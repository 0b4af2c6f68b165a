-- migration 1: orders
CREATE SCHEMA IF NOT EXISTS "order";

CREATE TABLE "order".orders (
  id     uuid PRIMARY KEY,
  status text NOT NULL CHECK (status IN ('PENDING', 'SUCCESS', 'CANCELED')),
  saga   boolean NOT NULL -- made by a saga, whose id it shares
) WITH (fillfactor = 85);

-- A line's public id is derived from the order's and its number, so it needs no column and no index of its own.
CREATE TABLE "order".contents (
  order_id uuid NOT NULL,
  line     smallint NOT NULL,
  item     text NOT NULL,
  amount   bigint NOT NULL CHECK (amount > 0),
  price    numeric(38,2) NOT NULL CHECK (price >= 0),
  PRIMARY KEY (order_id, line)
);

CREATE TABLE "order".idempotency (
  key         text PRIMARY KEY,
  fingerprint bytea NOT NULL,
  status      smallint,
  body        text,
  created_at  timestamptz NOT NULL DEFAULT now()
);
