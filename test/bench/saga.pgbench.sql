-- pgbench: the five commits of a saga that succeeds, each a transaction of its own, written as the services write them.
-- Ids grow as version 7 ones do: :n counts the client's sagas, :low is chance.
\set n :n + 1
\set high 1000000000000000 + :n * 1000 + :client_id
\set low random(1000000000000000, 9999999999999999)
BEGIN;
INSERT INTO "order".orders (id, status, saga) VALUES ((:high::text || :low::text)::uuid, 'PENDING', true);
INSERT INTO "order".contents (order_id, line, item, amount, price)
  SELECT (:high::text || :low::text)::uuid, r.line - 1, r.item, r.amount, r.price
  FROM ROWS FROM (json_to_recordset('[{"item":"phone","amount":1,"price":123.45}]'::json)
    AS (item text, amount bigint, price numeric)) WITH ORDINALITY AS r (item, amount, price, line);
INSERT INTO "order".saga (id, type, state, owner, input, due_at)
  VALUES ((:high::text || :low::text)::uuid, 'order', 'RUNNING', 'pgbench',
    '{"contents":[{"item":"phone","amount":1,"price":123.45}],"timeDelivery":"2094-05-26T16:00","cost":123.45}',
    clock_timestamp() + interval '10 s');
COMMIT;
INSERT INTO payment.payments (id, order_id, cost, status)
  VALUES ((:high::text || :low::text)::uuid, (:high::text || :low::text)::uuid, 123.45, 'SUCCESS')
  ON CONFLICT (id) DO NOTHING;
INSERT INTO warehouse.reservations (id, order_id, item, amount, status, from_stock)
  SELECT l.id, (:high::text || :low::text)::uuid, l.item, l.amount, 'RESERVED', false
  FROM unnest(ARRAY[(:high::text || :low::text)::uuid], '{phone}'::text[], '{1}'::integer[]) AS l(id, item, amount)
  WHERE NOT EXISTS (SELECT FROM warehouse.stock s WHERE s.item = ANY('{phone}'::text[]))
  ON CONFLICT (id) DO NOTHING;
INSERT INTO delivery.deliveries (id, order_id, time_delivery, status, in_slot)
  SELECT (:high::text || :low::text)::uuid, (:high::text || :low::text)::uuid, '2094-05-26T16:00'::timestamp,
    'SCHEDULED', false
  WHERE NOT EXISTS (SELECT FROM delivery.slots WHERE time_delivery = '2094-05-26T16:00'::timestamp)
  ON CONFLICT (id) DO NOTHING;
BEGIN;
UPDATE "order".saga SET state = 'SUCCEEDED', due_at = NULL, finished_at = clock_timestamp()
  WHERE id = (:high::text || :low::text)::uuid AND epoch = 1 AND due_at IS NOT NULL;
UPDATE "order".orders SET status = 'SUCCESS' WHERE id = (:high::text || :low::text)::uuid AND status = 'PENDING';
COMMIT;
