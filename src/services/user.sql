-- migration 1: users
CREATE SCHEMA IF NOT EXISTS "user";

CREATE TABLE "user".users (
  id         uuid PRIMARY KEY,
  billing_id uuid NOT NULL UNIQUE,
  name       text NOT NULL,
  email      text NOT NULL,
  registered boolean NOT NULL -- false while the registration's saga runs; the user is not visible before
) WITH (fillfactor = 85);

CREATE TABLE "user".idempotency (
  key         text PRIMARY KEY,
  fingerprint bytea NOT NULL,
  status      smallint,
  body        text,
  created_at  timestamptz NOT NULL DEFAULT now()
);
