-- migration 1: reservations and stock
CREATE SCHEMA IF NOT EXISTS warehouse;

-- from_stock: while RESERVED, the amount is counted in the item's stock record; without it the item is made to order
-- (its stock record may have come later).
CREATE TABLE warehouse.reservations (
  id         uuid PRIMARY KEY,
  order_id   uuid NOT NULL,
  item       text NOT NULL,
  amount     integer NOT NULL CHECK (amount > 0),
  status     text NOT NULL CHECK (status IN ('RESERVED', 'CANCELED')),
  from_stock boolean NOT NULL
);

-- Few rows, updated all the time: half a page is left free, so that new versions stay on it and need no index updates.
CREATE TABLE warehouse.stock (
  item      text PRIMARY KEY,
  available bigint NOT NULL CHECK (available >= 0),
  reserved  bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0)
) WITH (fillfactor = 50);

CREATE TABLE warehouse.idempotency (
  key         text PRIMARY KEY,
  fingerprint bytea NOT NULL,
  status      smallint,
  body        text,
  created_at  timestamptz NOT NULL DEFAULT now()
);
