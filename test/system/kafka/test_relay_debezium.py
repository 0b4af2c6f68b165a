"""The relay compared with Debezium: the same transactions, read from two slots, give the same records, byte by byte in
keys and field by field in values, in the same partitions and order."""

import contextlib
import datetime
import decimal
import json
import os
import random
import string
import uuid

import pytest

from harness.cluster import Cluster
from harness.kafka import Relay
from harness.server import SLOWER, skald
from harness.wait import wait_for

TRANSACTIONS = 1500
SEED = int(os.environ.get("SEED", "20300526"))
PUBLICATION = "compared"
TABLES = ("billing.history_billings", "billing.accounts", "compared.every_type", "compared.defaults", "compared.pair",
          "compared.indexed", "compared.keyless")
# As billing_pub has it: the row's trace is none of the readers' business.
HISTORY = ("id", "billing_id", "sum", "last_value_wallet", "current_value_wallet", "type_operation", "status")
JSON_CONVERTER = "org.apache.kafka.connect.json.JsonConverter"
CLOCKS = {"ts_ms", "ts_us", "ts_ns"}  # of the payload: when each worked on it

SCHEMA = f"""
CREATE SCHEMA compared;
CREATE TABLE compared.every_type (
  id bigserial PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision,
  n numeric, n38 numeric(38,2), n10 numeric(10,4) NOT NULL, u uuid, t text, v varchar(40), c char(10),
  d date, tm time, tm3 time(3), ts timestamp, ts3 timestamp(3), tz timestamptz, tz3 timestamptz(3), tz0 timestamptz(0),
  j json, jb jsonb, raw bytea, o oid);
ALTER TABLE compared.every_type REPLICA IDENTITY FULL;
CREATE TABLE compared.defaults (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), made timestamptz NOT NULL DEFAULT now(), count integer DEFAULT 7,
  total numeric(12,2) NOT NULL DEFAULT 0, word text DEFAULT 'it''s', flag boolean NOT NULL DEFAULT true,
  day date DEFAULT CURRENT_DATE, nothing varchar DEFAULT NULL, ratio double precision DEFAULT 1.5,
  negative integer DEFAULT '-5'::integer, sum integer DEFAULT 1 + 2, data jsonb NOT NULL DEFAULT '{{}}',
  raw bytea NOT NULL DEFAULT '\\x00', moment timestamp NOT NULL DEFAULT LOCALTIMESTAMP, clock time NOT NULL DEFAULT '12:00');
CREATE TABLE compared.pair (b text, a integer, note text, PRIMARY KEY (a, b));
CREATE TABLE compared.indexed (id integer NOT NULL, code text NOT NULL, big text NOT NULL, data jsonb, raw bytea);
CREATE UNIQUE INDEX indexed_code ON compared.indexed (code, id);
ALTER TABLE compared.indexed REPLICA IDENTITY USING INDEX indexed_code;
ALTER TABLE compared.indexed ALTER big SET STORAGE EXTERNAL, ALTER data SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL;
CREATE TABLE compared.keyless (note text, at timestamp);
ALTER TABLE compared.keyless REPLICA IDENTITY FULL;
CREATE PUBLICATION {PUBLICATION} FOR TABLE {TABLES[0]} ({", ".join(HISTORY)}), {", ".join(TABLES[1:])};
"""


class Writer:
    """Random transactions; the same seed makes the same ones."""

    def __init__(self, db, seed):
        self.db = db
        self.random = random.Random(seed)
        self.known = {table: [] for table in TABLES}
        self.accounts = [self.uuid() for _ in range(40)]

    def uuid(self):
        return str(uuid.UUID(int=self.random.getrandbits(128)))

    def maybe(self, value):
        return None if self.random.random() < 0.15 else value

    def text(self, most=30):
        alphabet = string.printable.replace("\x0b", "").replace("\x0c", "") + "äßéλ中文🎉🦊\u2028\x01\x1f\x7f\\\"/"
        return "".join(self.random.choice(alphabet) for _ in range(self.random.randrange(most)))

    def decimal(self, digits, scale):
        digits = self.random.choice((1, 3, digits // 2, digits))
        number = decimal.Decimal(self.random.randrange(10 ** digits))
        with decimal.localcontext() as context:
            context.prec = 200
            return number.scaleb(-scale) * self.random.choice((1, 1, -1))

    def money(self):
        return self.random.choice((self.decimal(38, 2), self.decimal(9, 2), decimal.Decimal("0.00"),
                                   decimal.Decimal("999999999999999999999999999999999999.99"),
                                   decimal.Decimal("-999999999999999999999999999999999999.99"),
                                   decimal.Decimal("9999999.99"), decimal.Decimal("10000000.00"), decimal.Decimal("0.01")))

    def moment(self):
        return datetime.datetime(self.random.randrange(1, 9999), self.random.randrange(1, 13), self.random.randrange(1, 29),
                                 self.random.randrange(24), self.random.randrange(60), self.random.randrange(60),
                                 self.random.choice((0, 1, 120000, 999999, self.random.randrange(1000000))))

    def document(self):
        return json.dumps({self.text(8): self.text(), "n": self.random.random(), "l": [None, True, self.text(4)]}
                          ).replace("\\u0000", "")

    def history(self):
        return {"id": self.uuid(), "billing_id": self.maybe(self.random.choice(self.accounts)), "sum": self.maybe(self.money()),
                "last_value_wallet": self.maybe(self.money()), "current_value_wallet": self.maybe(self.money()),
                "type_operation": self.maybe(self.random.choice(("BUY", "REFILL", self.text()))),
                "status": self.maybe(self.random.choice(("SUCCESS", "FAILED", self.text())))}

    def account(self):
        return {"id": self.uuid(), "wallet": self.money().copy_abs()}

    def every_type(self):
        moment = self.moment
        row = {"b": self.random.random() < 0.5, "i2": self.random.choice((-32768, 32767, 0)),
               "i4": self.random.choice((-2147483648, 2147483647, 12)),
               "i8": self.random.choice((-2**63, 2**63 - 1, self.random.getrandbits(40))),
               "f4": self.random.choice((1.5, -0.0, 3.4e38, 1e-40, float("inf"), float("nan"), self.random.random())),
               "f8": self.random.choice((1e7, 1e-5, 5e-324, 1.7e308, float("-inf"), float("nan"), self.random.random() * 1e12)),
               "n": self.decimal(60, self.random.choice((0, 5, 30))), "n38": self.money(), "u": self.uuid(),
               "t": self.text(300), "v": self.text(40), "c": self.text(10), "d": moment().date(), "tm": moment().time(),
               "tm3": moment().time(), "ts": moment(), "ts3": moment(), "tz": moment(), "tz3": moment(), "tz0": moment(),
               "j": self.document(), "jb": self.document(), "raw": self.random.randbytes(self.random.randrange(40)),
               "o": self.random.getrandbits(32)}
        return {name: self.maybe(value) for name, value in row.items()} | {"n10": self.decimal(10, 4)}

    def strange(self):
        """The extreme values of the types."""
        return {"n10": 0, "d": self.random.choice(("infinity", "-infinity", "0044-03-15 BC", "12030-01-01", "5874897-12-31")),
                "ts": self.random.choice(("infinity", "-infinity", "0044-03-15 12:00:00 BC", "294246-12-31 23:59:59.999999")),
                "ts3": self.random.choice(("infinity", "1969-12-31 23:59:59.999", "0001-01-01 00:00:00")),
                "tz": self.random.choice(("infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "12030-01-01 00:00:00+00")),
                "tm": "24:00:00"}

    def defaults(self):
        given = {"count": self.maybe(1), "word": self.maybe(self.text()), "day": self.maybe("2020-02-29"),
                 "nothing": self.maybe("x"), "ratio": self.maybe(2.25), "negative": self.maybe(-7)}
        return {"id": self.uuid()} | {name: value for name, value in given.items() if self.random.random() < 0.7}

    def pair(self):
        return {"a": self.random.getrandbits(31), "b": self.text(12) + self.uuid(), "note": self.maybe(self.text())}

    def indexed(self):
        big = "".join(self.random.choices(string.ascii_letters, k=self.random.choice((10, 6000))))
        return {"id": self.random.getrandbits(31), "code": self.uuid(), "big": big, "data": json.dumps({"big": big}),
                "raw": big.encode()}

    def keyless(self):
        return {"note": self.uuid(), "at": self.maybe(self.moment())}

    MAKERS = {"billing.history_billings": (history, "id"), "billing.accounts": (account, "id"),
              "compared.every_type": (every_type, "id"), "compared.defaults": (defaults, "id"),
              "compared.pair": (pair, "b"), "compared.indexed": (indexed, "code"), "compared.keyless": (keyless, "note")}

    def insert(self, cursor, table):
        maker, key = self.MAKERS[table]
        row = self.strange() if table == "compared.every_type" and self.random.random() < 0.1 else maker(self)
        cursor.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))}) RETURNING {key}",
                       list(row.values()))
        self.known[table].append(cursor.fetchone()[0])

    def update(self, cursor, table):
        maker, key = self.MAKERS[table]
        row = maker(self)
        if self.random.random() < 0.8:
            row.pop(key, None)  # else the key changes too
        row = row or {"id": self.uuid()}
        columns = self.random.sample(sorted(row), self.random.randrange(1, len(row) + 1))
        at = self.random.randrange(len(self.known[table]))
        cursor.execute(f"UPDATE {table} SET {', '.join(f'{name} = %s' for name in columns)} WHERE {key} = %s RETURNING {key}",
                       [row[name] for name in columns] + [self.known[table][at]])
        self.known[table][at] = cursor.fetchone()[0]

    def delete(self, cursor, table):
        key = self.MAKERS[table][1]
        known = self.known[table]
        cursor.execute(f"DELETE FROM {table} WHERE {key} = %s", [known.pop(self.random.randrange(len(known)))])

    def change(self, cursor):
        table = self.random.choice(TABLES)
        verb = self.random.choice((self.insert, self.insert, self.update, self.update, self.delete))
        if not self.known[table]:
            verb = self.insert
        verb(cursor, table)
        if self.random.random() < 0.003:
            cursor.execute(f"TRUNCATE {table}")
            self.known[table].clear()

    def transaction(self):
        before = {table: list(keys) for table, keys in self.known.items()}
        with self.db.cursor() as cursor:
            for _ in range(self.random.choice((1, 1, 2, 3, 8))):
                self.change(cursor)
        if self.random.random() < 0.1:
            self.db.rollback()
            self.known = before
        else:
            self.db.commit()


@pytest.fixture(scope="module")
def stack(broker, connect):
    """PostgreSQL with the tables, a broker, and a worker of Connect."""
    cluster = Cluster()
    try:
        cluster.start()
        done = skald("migrate", "billing", DATABASE_URL=cluster.url())
        assert done.returncode == 0, done.stderr
        with contextlib.closing(cluster.connect()) as db, db.cursor() as cursor:
            cursor.execute(SCHEMA)
        yield cluster, broker, connect
    finally:
        cluster.remove()


def make_slots(cluster, names):
    with contextlib.closing(cluster.connect()) as db, db.cursor() as cursor:
        for name in names:
            cursor.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])


def drop_slots(cluster, names):
    with contextlib.closing(cluster.connect()) as db, db.cursor() as cursor:
        for name in names:
            wait_for(f"slot {name} to be free", lambda n=name: not value(cursor, "SELECT active FROM pg_replication_slots "
                                                                         "WHERE slot_name = %s", n), 60)
            cursor.execute("SELECT pg_drop_replication_slot(%s)", [name])


def value(cursor, sql, *values):
    cursor.execute(sql, values)
    return cursor.fetchone()[0]


@contextlib.contextmanager
def debezium(cluster, connect, slot, prefix, schemas, decimals):
    """Its topics are renamed by a transform, so that keys and schemas have the same names as the relay's."""
    connect.register(
        cluster.url(), slot_name=slot, publication_name=PUBLICATION, topic_prefix=prefix, decimal_handling_mode=decimals,
        table_include_list=",".join(TABLES), tombstones_on_delete="true", heartbeat_interval_ms="0",
        key_converter=JSON_CONVERTER, value_converter=JSON_CONVERTER, key_converter_schemas_enable=schemas, value_converter_schemas_enable=schemas,
        lsn_flush_mode="connector", transforms="rename",
        transforms_rename_type="org.apache.kafka.connect.transforms.RegexRouter",
        transforms_rename_regex="(.*)", transforms_rename_replacement="debezium.$1")
    try:
        yield
    finally:
        connect.unregister()


@contextlib.contextmanager
def relay(cluster, broker, slot, prefix, schemas, decimals):
    server = Relay(BILLING_DATABASE_URL=cluster.url(), KAFKA_BROKERS=broker.address, KAFKA_TOPIC_PREFIX=prefix,
                   RELAY_SLOT=slot, RELAY_PUBLICATION=PUBLICATION, RELAY_DECIMALS=decimals,
                   RELAY_SCHEMAS="on" if schemas == "true" else "off")
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.end()
        print(server.tail())


def decoded(record):
    """The parts that must be equal: everything except the writer and the time."""
    headers = [one for one in record.headers if not one[0].startswith("__debezium.context.")]  # names the process
    if record.value is None:
        return {"key": record.key, "headers": headers, "value": None}
    whole = json.loads(record.value)
    payload = whole["payload"] if list(whole) == ["schema", "payload"] else whole
    order = [list(whole), list(payload), list(payload["source"])] + [list(payload[row] or ()) for row in ("before", "after")]
    for name in CLOCKS:
        del payload[name]
    del payload["source"]["version"]
    return {"key": record.key, "headers": headers, "order": order, "value": whole}


def by_partition(records):
    found = {}
    for record in records:
        found.setdefault(record.partition, []).append(decoded(record))
    return found


def differences(theirs, ours, path=""):
    """path, their value and our value of each leaf that differs. NaN does not come as a number, so equal is equal."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in theirs | ours:
            yield from differences(theirs.get(name, "missing"), ours.get(name, "missing"), f"{path}/{name}")
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for one, other in zip(theirs, ours):
            yield from differences(one, other, f"{path}/*")
    elif theirs != ours:
        yield path, theirs, ours


def compare(broker, topic):
    """The number of equal records, and the first example for each differing member."""
    theirs, ours = by_partition(broker.read(f"debezium.{topic}")), by_partition(broker.read(topic))
    found = {}
    for partition in sorted(theirs | ours):
        one, other = theirs.get(partition, []), ours.get(partition, [])
        if len(one) != len(other):
            found[f"{topic} partition {partition}"] = (len(one), len(other))
        for i, pair in enumerate(zip(one, other)):
            for path, *values in differences(*pair):
                found.setdefault(f"{topic}{path}", (f"record {i} of partition {partition}", *values))
    return sum(map(len, ours.values())), found


@pytest.mark.parametrize(("schemas", "decimals"), [("true", "double"), ("false", "precise"), ("true", "string")])
def test_same_records(stack, schemas, decimals):
    cluster, broker, connect = stack
    prefix = f"shop_{schemas}_{decimals}"
    slots = [f"compared_{one}_{schemas}_{decimals}" for one in ("relay", "debezium")]
    topics = [f"{prefix}.{table}" for table in TABLES]
    for topic in topics:
        partitions = 1 if topic.endswith("keyless") else 4  # without a key the partition is anybody's choice
        broker.make_topic(topic, partitions)
        broker.make_topic(f"debezium.{topic}", partitions)
    make_slots(cluster, slots)
    with (relay(cluster, broker, slots[0], prefix, schemas, decimals) as ours,
          debezium(cluster, connect, slots[1], prefix, schemas, decimals),
          contextlib.closing(cluster.connect()) as db):
        with db.cursor() as cursor:
            for slot in slots:
                wait_for(f"slot {slot} to be read", lambda s=slot: value(
                    cursor, "SELECT active FROM pg_replication_slots WHERE slot_name = %s", s), 60 * SLOWER)
        db.autocommit = False
        writer = Writer(db, f"{SEED} {schemas} {decimals}")
        for _ in range(TRANSACTIONS):
            writer.transaction()
        wait_for("the same number of records", lambda: not ours.running() or all(
            broker.count(topic) == broker.count(f"debezium.{topic}") > 0 for topic in topics), 120 * SLOWER)
        assert ours.running(), "the relay has stopped"
        compared = [compare(broker, topic) for topic in topics]
    drop_slots(cluster, slots)
    print(f"seed {SEED}: {dict(zip(TABLES, (count for count, _ in compared)))}")
    found = {path: example for _, paths in compared for path, example in paths.items()}
    assert not found, "\n".join(f"{path}: {example}"[:500] for path, example in list(found.items())[:20])
    assert sum(count for count, _ in compared) > 2 * TRANSACTIONS
