-- migration 1: deliveries and slots
CREATE SCHEMA IF NOT EXISTS delivery;

-- in_slot: while SCHEDULED, the delivery is counted in the slot record of its time; without it that time is unlimited
-- (its slot record may have come later).
CREATE TABLE delivery.deliveries (
  id            uuid PRIMARY KEY,
  order_id      uuid NOT NULL,
  time_delivery timestamp NOT NULL,
  status        text NOT NULL CHECK (status IN ('SCHEDULED', 'CANCELED')),
  in_slot       boolean NOT NULL
);

-- Few rows, updated all the time: half a page is left free, so that new versions stay on it and need no index updates.
CREATE TABLE delivery.slots (
  time_delivery timestamp PRIMARY KEY,
  capacity      bigint NOT NULL,
  taken         bigint NOT NULL DEFAULT 0 CHECK (taken >= 0)
) WITH (fillfactor = 50);

CREATE TABLE delivery.idempotency (
  key         text PRIMARY KEY,
  fingerprint bytea NOT NULL,
  status      smallint,
  body        text,
  created_at  timestamptz NOT NULL DEFAULT now()
);
