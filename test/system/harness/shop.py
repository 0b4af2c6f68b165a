"""Whole shops: all seven services in one process, or each in its own process with its own database."""

import contextlib

from ports import free_port
from services import SERVICES

from .client import Client
from .cluster import Cluster
from .server import SLOWER, Server, skald
from .wait import wait_for

# Written in the background, so that they say nothing about what a request did.
BACKGROUND = ("notification",)


class Shop(Client):
    """Base class of both kinds. servers maps a name to a Server, database(service) names a service's database."""

    def __init__(self):
        super().__init__(self.address)
        self.cluster = Cluster()
        self.servers = {}
        self.connections = {}

    def open(self):
        self.cluster.start()
        self.prepare()
        self.migrate()
        self.start()
        return self

    def start(self):
        for server in self.servers.values():
            server.spawn()
        for server in self.servers.values():
            wait_for(f"health of {server}", lambda s=server: s.is_healthy() or not s.running(), 30 * SLOWER)
            assert server.running(), f"{server} ended with {server.process.returncode}: {server.tail()}"

    def stop(self):
        for server in self.servers.values():
            server.terminate()
        for server in self.servers.values():
            status = server.wait()
            assert status == 0, f"{server} ended with {status}: {server.tail()}"
            server.check_log()

    def kill(self):
        for server in self.servers.values():
            server.kill()

    def close(self):
        """For cleanup: closes a shop in any state."""
        try:
            for server in self.servers.values():
                server.end()
                server.check_log()
        finally:
            self.forget_connections()
            self.cluster.remove()

    def forget_connections(self):
        for db in self.connections.values():
            db.close()
        self.connections.clear()

    def restart_database(self):
        self.forget_connections()
        self.cluster.start()

    def run(self, *arguments):
        return skald(*arguments, **self.settings())

    def migrate(self):
        done = self.run("migrate")
        assert done.returncode == 0, done.stdout + done.stderr

    def audit(self):
        return self.run("audit")

    def assert_sound(self):
        """Waits until nothing is in flight, and checks that the audit is clean."""
        self.settle()
        done = self.audit()
        assert done.returncode == 0, done.stdout + done.stderr

    # ---- the databases ----

    def connection(self, service):
        name = self.database(service)
        if name not in self.connections:
            self.connections[name] = self.cluster.connect(name)
        return self.connections[name]

    def query(self, service, sql, *values):
        with self.connection(service).cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall()

    def value(self, service, sql, *values):
        return self.query(service, sql, *values)[0][0]

    def execute(self, service, sql, *values):
        """Returns the number of affected rows."""
        with self.connection(service).cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.rowcount

    def tables(self, service):
        return [row[0] for row in self.query(
            service, "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY tablename", service)]

    def digest(self):
        """A digest of all rows of all tables: it differs if anything has changed."""
        result = {}
        for service in SERVICES:
            if service in BACKGROUND:
                continue
            parts = [f"SELECT '{table}', count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text "
                     f'FROM "{service}"."{table}" t' for table in self.tables(service)]
            for table, count, total in self.query(service, " UNION ALL ".join(parts)):
                result[f"{service}.{table}"] = (count, total)
        return result

    def in_flight(self):
        return sum(self.value(service, f'SELECT count(*) FROM "{service}".saga WHERE due_at IS NOT NULL')
                   for service in ("order", "user"))

    def unnotified(self):
        return (self.value("billing", "SELECT count(*) FROM billing.history_billings")
                - self.value("notification", "SELECT count(*) FROM notification.notifications"))

    def settle(self, seconds=60):
        wait_for("the end of all sagas", lambda: self.in_flight() == 0, seconds * SLOWER)
        wait_for("a notification for each operation", lambda: self.unnotified() == 0, seconds * SLOWER)


class OneShop(Shop):
    """`skald serve`: everything in one process group, in one database."""

    def __init__(self, **settings):
        super().__init__()
        self.port = free_port()
        self.more = settings

    def prepare(self):
        self.servers["all"] = Server(port=self.port, **self.settings())

    def settings(self):
        return {"DATABASE_URL": self.cluster.url()} | self.more

    def address(self, path):
        return "127.0.0.1", self.port

    def database(self, service):
        return "skald"

    @property
    def server(self):
        return self.servers["all"]

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self):
        return self.cluster.url()


class SevenShops(Shop):
    """`skald serve NAME` for each service, each with its own port and database."""

    def __init__(self, **settings):
        super().__init__()
        self.ports = {name: free_port() for name in SERVICES}
        self.more = settings

    def prepare(self):
        self.cluster.allow_connections()
        for name in SERVICES:
            self.cluster.create_database(name)
        for name in SERVICES:
            self.servers[name] = Server(name, port=self.ports[name], **self.settings())

    def settings(self):
        urls = {}
        for name in SERVICES:
            urls[f"{name.upper()}_DATABASE_URL"] = self.cluster.url(name)
            urls[f"{name.upper()}_URL"] = f"http://127.0.0.1:{self.ports[name]}"
        return urls | {"WORKERS": "1"} | self.more

    def address(self, path):
        """Like a gateway: the first part of the path selects the service."""
        name = path.split("/")[1].split("?")[0]
        return "127.0.0.1", self.ports.get(name, self.ports["order"])

    def database(self, service):
        return service


@contextlib.contextmanager
def opened(shop):
    """Opens the shop, and closes it after the test; it must not have logged a defect."""
    try:
        yield shop.open()
    finally:
        shop.close()
