"""A private Kafka broker and Connect worker, started by tools/, and the contents of a topic."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import confluent_kafka
import confluent_kafka.admin
from ports import free_port

from .cluster import ROOT
from .server import Server
from .wait import wait_for

TOOL_SECONDS = 180
READ_SECONDS = 60


class Relay(Server):
    command = "relay"


@dataclasses.dataclass(frozen=True)
class Record:
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: tuple


class Program:
    """A background program of tools/, in a folder that is removed with it."""

    def __init__(self, tool, **environment):
        self.command = ROOT / "tools" / tool
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"skald-{tool}-"))
        self.environment = os.environ | environment
        self.port = free_port()

    def tool(self, verb, *arguments):
        done = subprocess.run([self.command, verb, self.folder, *map(str, arguments)], env=self.environment,
                              capture_output=True, text=True, timeout=TOOL_SECONDS)
        assert done.returncode == 0, f"{self.command} {verb}: {done.stdout}{done.stderr}\n{self.errors()}"
        return done.stdout.strip()

    def errors(self):
        """The errors in its log. The cause of its end may be far above the last lines, which are of an orderly stop."""
        lines = [line for path in self.folder.glob("*.log") for line in path.read_text(errors="replace").splitlines()]
        return "\n".join([line for line in lines if " ERROR " in line or " FATAL " in line or "Exception" in line][:20])

    def pid(self):
        return int(self.tool("pid") or 0)

    def kill(self):
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        wait_for(f"the end of {self.command}", lambda: not self.pid())

    def stop(self):
        self.tool("stop")

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder)


class Broker(Program):
    def __init__(self, **environment):
        super().__init__("kafka", **environment)

    def start(self):
        self.tool("start", self.port)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def make_topic(self, name, partitions=4):
        self.tool("topic", name, partitions)

    def admin(self):
        return confluent_kafka.admin.AdminClient({"bootstrap.servers": self.address})

    def set_topic(self, name, setting, value):
        resource = confluent_kafka.admin.ConfigResource(confluent_kafka.admin.ConfigResource.Type.TOPIC, name,
                                                        set_config={setting: str(value)})
        admin = self.admin()
        for done in admin.alter_configs([resource]).values():
            done.result(READ_SECONDS)

    def delete_topic(self, name):
        admin = self.admin()
        for done in admin.delete_topics([name]).values():
            done.result(READ_SECONDS)

    def topics(self):
        found = self.admin().list_topics(timeout=READ_SECONDS)
        return sorted(name for name in found.topics if not name.startswith("__consumer") and
                      not name.startswith("connect-"))

    def read(self, topic):
        """All records of a topic, partition by partition."""
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self.address, "group.id": "test-reader",
                                             "enable.auto.commit": False, "enable.partition.eof": True})
        try:
            partitions = consumer.list_topics(topic, timeout=READ_SECONDS).topics[topic].partitions
            consumer.assign([confluent_kafka.TopicPartition(topic, i, confluent_kafka.OFFSET_BEGINNING)
                             for i in partitions])
            return self.read_assigned(consumer, len(partitions))
        finally:
            consumer.close()

    @staticmethod
    def read_assigned(consumer, open_partitions):
        records = []
        while open_partitions:
            message = consumer.poll(READ_SECONDS)
            assert message is not None, "the broker sends nothing"
            if not message.error():
                records.append(Record(message.topic(), message.partition(), message.offset(), message.key(),
                                      message.value(), tuple(message.headers() or ())))
            elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                open_partitions -= 1
            else:
                raise AssertionError(message.error())
        return sorted(records, key=lambda r: (r.partition, r.offset))

    def count(self, topic):
        """The number of records in a topic, assuming no compaction or expiry."""
        with self.counter(topic) as count:
            return count()

    @contextlib.contextmanager
    def counter(self, topic):
        """A function that counts the records of a topic repeatedly, over one connection."""
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self.address, "group.id": "test-reader"})

        def marks():
            try:
                return [consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, i), timeout=READ_SECONDS)
                        for i in partitions]
            except confluent_kafka.KafkaException:
                return None  # its partitions have no leader yet

        try:
            partitions = consumer.list_topics(topic, timeout=READ_SECONDS).topics[topic].partitions
            yield lambda: sum(high - low for low, high in wait_for(f"the leaders of {topic}", marks))
        finally:
            consumer.close()


class Connect(Program):
    def __init__(self, broker, **environment):
        super().__init__("connect", **{"CONNECT_HEAP": "384m"} | environment)
        self.broker = broker

    def start(self):
        self.tool("start", self.broker.address, self.port)

    def register(self, database_url, **settings):
        """Names are passed with _ instead of dots."""
        self.tool("register", database_url, *(f"{name.replace('_', '.')}={value}" for name, value in settings.items()))

    def unregister(self):
        self.tool("unregister")

    def suspend(self):
        self.tool("suspend")

    def resume(self):
        self.tool("resume")
