"""Log records as documented in docs/logs.md, and a receiver of the forward protocol."""

import contextlib
import json
import re
import socket
import threading
import time

import msgpack

from .cluster import ROOT

NAMES = {"logstash": 0, "ecs": 1}  # columns of the table
TYPES = {"date": str, "keyword": str, "text": str, "integer": int, "long": int, "float": (int, float)}
ALWAYS = {"logstash": {"@timestamp", "@version", "level", "level_value", "message", "logger_name", "thread_name",
                       "component", "container-id"},
          "ecs": {"@timestamp", "ecs.version", "log.level", "message", "log.logger", "process.thread.name", "service.name",
                  "host.hostname"}}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def fields(form):
    """The type of each field of a form, by docs/logs.md."""
    rows = [re.findall(r"[^|]+", line) for line in (ROOT / "docs/logs.md").read_text().splitlines()
            if re.match(r"\| (`[^`]+`)? *\| (`[^`]+`)? *\| \w+ \|", line)]
    assert len(rows) > 20
    return {row[NAMES[form]].strip(" `"): row[2].strip() for row in rows if row[NAMES[form]].strip()}


def check_record(record, form, known):
    """Checks that a record has only documented fields, of their types, all mandatory ones, and nothing null or
    empty."""
    assert set(record) <= set(known), set(record) - set(known)
    assert ALWAYS[form] <= set(record), record
    for name, value in record.items():
        assert isinstance(value, TYPES[known[name]]) and not isinstance(value, bool), (name, value)
        assert value != "", record
    assert TIME.fullmatch(record["@timestamp"]), record


def records(server):
    """All complete lines of a server with a JSON log."""
    lines = server.text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def no_duplicates(pairs):
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), names
    return dict(pairs)


class Receiver:
    """Receives chunks in PackedForward mode and acknowledges them by default."""

    def __init__(self, port=0, pause=0, reads=True, breaks=0):
        self.socket = socket.create_server(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.pause, self.reads, self.breaks = pause, reads, breaks
        self.chunks = []  # (tag, entries, option) of those acknowledged
        self.broken = []  # ids of those that were taken and not acknowledged
        self.problems = []
        self.connections = []
        self.thread = threading.Thread(target=self.accept)
        self.thread.start()

    def accept(self):
        workers = []
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                break
            self.connections.append(connection)
            if self.reads:
                workers.append(threading.Thread(target=self.serve, args=[connection]))
                workers[-1].start()
        for worker in workers:
            worker.join()

    def serve(self, connection):
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=True, object_pairs_hook=no_duplicates)
        try:
            while bytes_read := connection.recv(65536):
                unpacker.feed(bytes_read)
                for message in unpacker:
                    if not self.take(connection, message):
                        return
        except OSError:
            pass
        except Exception as problem:  # of another thread, so that it fails the test
            self.problems.append(problem)
        finally:
            connection.close()

    def take(self, connection, message):
        tag, packed, option = message
        unpacker = msgpack.Unpacker(raw=False)
        unpacker.feed(packed)
        entries = list(unpacker)
        assert option["size"] == len(entries)
        if self.breaks:
            self.breaks -= 1
            self.broken.append(option["chunk"])
            return False
        time.sleep(self.pause)
        self.chunks.append((tag, entries, option))
        connection.sendall(msgpack.packb({"ack": option["chunk"]}))
        return True

    def entries(self):
        return [entry for _, entries, _ in list(self.chunks) for entry in entries]

    def messages(self):
        return [entry["message"] for _, entry in self.entries()]

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.thread.join()
        assert not self.problems, self.problems

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
