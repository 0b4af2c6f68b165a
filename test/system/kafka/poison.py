"""Records that can never become a notification."""

import contextlib
import json
import time
import uuid


def row(account, **changes):
    return {"id": str(uuid.uuid4()), "billing_id": account, "sum": 1.0, "last_value_wallet": 0.0,
            "current_value_wallet": 0.0, "type_operation": "REFILL", "status": "SUCCESS"} | changes


def envelope(after, op="c", lsn=1):
    return {"before": None, "after": after,
            "source": {"version": "3.6.1.Final", "connector": "postgresql", "name": "postgres",
                       "ts_ms": int(time.time() * 1000), "snapshot": "false", "db": "skald", "sequence": None,
                       "schema": "billing", "table": "history_billings", "txId": 1, "lsn": lsn, "xmin": None},
            "transaction": None, "op": op, "ts_ms": int(time.time() * 1000)}


def broken_rows():
    nowhere = str(uuid.uuid4())
    changes = {
        "id missing": {"id": None}, "id no uuid": {"id": "7"}, "id nil": {"id": str(uuid.UUID(int=0))},
        "id a number": {"id": 7}, "account no uuid": {"billing_id": "wallet"}, "account a list": {"billing_id": []},
        "operation null": {"type_operation": None}, "operation a number": {"type_operation": 1},
        "status an object": {"status": {}}, "sum a boolean": {"sum": True}, "sum words": {"sum": "a lot"},
        "sum NaN": {"sum": "NaN"}, "sum in base64": {"sum": "MDk="},
        "sum with its scale": {"sum": {"scale": 2, "value": "MDk="}}, "wallet a list": {"current_value_wallet": [1]},
    }
    return {name: json.dumps(envelope(row(nowhere, **change))) for name, change in changes.items()}


def poison():
    good = envelope(row(str(uuid.uuid4())))
    text = json.dumps(good)

    def without(name):
        return json.dumps({key: value for key, value in good.items() if key != name})

    return broken_rows() | {
        "words": "an event", "nothing": "", "cut off": text[:200], "Avro": b"\x00\x00\x00\x00\x07\x02\x48abc\xff\xfe",
        "list": f"[{text}]", "number": "42", "string": '"c"', "object": "{}", "no op": without("op"),
        "no source": without("source"), "unknown op": json.dumps(good | {"op": "x"}),
        "op a number": json.dumps(good | {"op": 1}), "no row": json.dumps(good | {"after": None}),
        "row a list": json.dumps(good | {"after": [1]}), "payload a number": '{"schema":{},"payload":5}',
        "NUL in a text": text.replace("REFILL", r"RE\u0000FILL"), "half a pair": text.replace("REFILL", r"\ud83e"),
        "bare NUL": text.replace("REFILL", "\0"), "no UTF-8": text.encode().replace(b"REFILL", b"\xc3\x28"),
        "deep": "[" * 100000, "wide": json.dumps(good | {"more": [0] * 60000}),
        "key twice": text[:-1] + ', "op": "c"}', "more behind it": text + "}", "megabyte": "x" * 990000,
    }


def as_kept(value):
    """A payload as stored in the table of dead letters."""
    data = value if isinstance(value, bytes) else value.encode()
    with contextlib.suppress(UnicodeDecodeError):
        if b"\0" not in data:
            return data.decode()
    return "\\x" + data.hex()
