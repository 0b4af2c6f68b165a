-- migration 1: durable sagas of one service
CREATE TABLE {schema}.saga (
  id uuid PRIMARY KEY,
  type text NOT NULL,
  state text NOT NULL CHECK (state IN ('RUNNING', 'COMPENSATING', 'SUCCEEDED', 'COMPENSATED')),
  epoch integer NOT NULL DEFAULT 1,
  owner text NOT NULL,
  due_at timestamptz, -- when anybody may take it over; NULL once it has ended
  input text NOT NULL,
  failed_step text,
  reason text,
  steps text,
  trace_id text,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at timestamptz,
  CHECK ((due_at IS NULL) = (state IN ('SUCCEEDED', 'COMPENSATED')))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

-- Only the running ones, so that looking for expired leases never touches history.
CREATE INDEX saga_due ON {schema}.saga (due_at) WHERE due_at IS NOT NULL;

-- Ends the transaction of whoever no longer owns the saga, so that none of its other statements takes effect.
CREATE FUNCTION {schema}.saga_fence(changed bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  IF changed = 0 THEN
    RAISE EXCEPTION 'saga is owned by another or has ended' USING ERRCODE = 'SK001';
  END IF;
  RETURN changed;
END $$;

-- A saga that has ended never changes again, whoever asks.
CREATE FUNCTION {schema}.saga_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'saga % has ended and cannot change', OLD.id;
END $$;
CREATE TRIGGER saga_immutable BEFORE UPDATE ON {schema}.saga
  FOR EACH ROW WHEN (OLD.due_at IS NULL) EXECUTE FUNCTION {schema}.saga_immutable();

-- migration 2: sagas that wait for an operator, and what operators did
-- A parked saga has not ended and is never due. NOT VALID: what stands there was held to the stricter rule before.
ALTER TABLE {schema}.saga
  ADD COLUMN parked_state text, -- what it goes on as
  ADD COLUMN parked_step text,
  ADD COLUMN parked_reason text,
  ADD COLUMN parked_at timestamptz,
  ADD COLUMN resumed_at timestamptz, -- the last time that an operator set it going
  DROP CONSTRAINT saga_state_check,
  ADD CONSTRAINT saga_state_check
    CHECK (state IN ('RUNNING', 'COMPENSATING', 'SUCCEEDED', 'COMPENSATED', 'PARKED')) NOT VALID,
  ADD CONSTRAINT saga_parked_check CHECK (CASE state
    WHEN 'PARKED' THEN due_at = 'infinity' AND parked_state IN ('RUNNING', 'COMPENSATING') AND parked_step IS NOT NULL
    ELSE parked_state IS NULL END) NOT VALID;

-- The trail of what operators had done. No foreign key: it would be looked at with every change of a saga.
CREATE TABLE {schema}.saga_operation (
  id uuid PRIMARY KEY,
  saga_id uuid NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  action text NOT NULL CHECK (action IN ('retry', 'cancel', 'skip')),
  step text,   -- the one it was parked at
  reason text, -- in the operator's words
  by text      -- the operator's name, as far as it was given
);
CREATE INDEX saga_operation_saga ON {schema}.saga_operation (saga_id);
