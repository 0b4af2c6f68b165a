-- migration 1: notifications and dead letters
CREATE SCHEMA IF NOT EXISTS notification;

-- One row for each row of Billing's history. seq is the order of the event stream. Without a user there is nobody to
-- show it to yet: address_at says when to look for one again, and is NULL when one was found or the search was given up.
CREATE TABLE notification.notifications (
  id         uuid PRIMARY KEY,
  seq        bigint GENERATED ALWAYS AS IDENTITY,
  history_id uuid NOT NULL UNIQUE,
  billing_id uuid,
  user_id    uuid,
  email      text,
  message    text NOT NULL,
  attempts   integer NOT NULL DEFAULT 0,
  address_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  CHECK (user_id IS NULL OR address_at IS NULL)
);
CREATE INDEX notifications_of_user ON notification.notifications (user_id, seq) WHERE user_id IS NOT NULL;
CREATE INDEX notifications_unaddressed ON notification.notifications (billing_id) WHERE user_id IS NULL;
CREATE INDEX notifications_due ON notification.notifications (address_at) WHERE address_at IS NOT NULL;

-- Events that can never become a notification, as they came. A payload that is not text is kept as \x and hexadecimal.
CREATE TABLE notification.dead_letters (
  position   text PRIMARY KEY,
  reason     text NOT NULL,
  payload    text,
  created_at timestamptz NOT NULL DEFAULT now()
);
