-- migration 1: notifications and dead letters
CREATE SCHEMA IF NOT EXISTS notification;

-- One row for each row of Billing's history. seq is the order in which they came. While the recipient is pending,
-- address_at is the time of the next lookup; it is NULL once the user was found or the search was given up.
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

-- Events that can never become a notification, as they came. position is topic/partition/offset for a record of Kafka,
-- and commit LSN and place in the transaction for a change read from the WAL. A payload that is not text is kept as \x and hexadecimal.
CREATE TABLE notification.dead_letters (
  position   text PRIMARY KEY,
  reason     text NOT NULL,
  payload    text,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- migration 2: the order of Billing's own log
-- lsn is the position of the operation's row in Billing's WAL. Every operation locks its account before it writes that row,
-- so lsn is the order of an account's operations however the events arrive: over partitions, repeated, or late. Rows with
-- the same lsn, which only a COPY can make, and rows without (0) are in the order of arrival. A new cluster loaded
-- from a dump counts from its own beginning; before its first event the rows are to be numbered below it, as
-- UPDATE notification.notifications n SET lsn = o.place - o.total FROM (SELECT id, row_number() OVER (ORDER BY lsn, seq)
-- AS place, count(*) OVER () AS total FROM notification.notifications) o WHERE n.id = o.id.
ALTER TABLE notification.notifications ADD COLUMN lsn bigint NOT NULL DEFAULT 0;
DROP INDEX notification.notifications_of_user;
CREATE INDEX notifications_of_user ON notification.notifications (user_id, lsn, seq) WHERE user_id IS NOT NULL;
