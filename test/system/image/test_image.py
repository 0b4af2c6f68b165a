"""The image's contents, and the shop served from it, a container per service, as in a cluster."""

import itertools
import socket
import tarfile

import pytest

from harness import docker as engine
from harness.customers import Customers
from harness.docker import CONFINED, PORT, UID, Container, Network, docker, environment, inspect
from harness.door import Door
from harness.shop import SERVICES, Shop, opened
from test_newman import COLLECTIONS, place, run

MOST_MB = 60  # beyond the base
REPLICAS = 2
CLIENTS = 4
PASSWORD = "a-password-of-the-test"


@pytest.fixture(scope="session")
def image():
    engine.build("skald:test")
    return "skald:test"


@pytest.fixture(scope="module")
def names(image, tmp_path_factory):
    """Every file of the unpacked image."""
    archive = tmp_path_factory.mktemp("image") / "files.tar"
    container = docker("create", image)
    try:
        docker("export", "--output", archive, container)
    finally:
        docker("rm", container)
    with tarfile.open(archive) as files:
        yield {member.name.rstrip("/"): member for member in files}


def layers_mb(image):
    """The size of its own layers, without the base."""
    lines = docker("history", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image).splitlines()
    return sum(int(one.split("\t")[0]) for one in lines[:-1]) / 1e6


def test_image_is_small(image):
    """The base is at least the last line of the history, so this overestimates rather than underestimates."""
    size = layers_mb(image)
    print(f"\n{size:.1f} MB beyond the base")
    assert 1 < size < MOST_MB


def test_image_says_what_it_is(image):
    config = inspect("image", image)["Config"]
    assert config["User"] == f"{UID}:{UID}"
    assert config["Entrypoint"] == ["/usr/local/bin/skald"] and config["Cmd"] == ["serve"]
    assert config["ExposedPorts"] == {f"{PORT}/tcp": {}}
    assert not config.get("Volumes") and not config.get("Healthcheck")
    labels = config["Labels"]
    assert {f"org.opencontainers.image.{name}" for name in
            ("title", "description", "version", "revision", "licenses")} <= set(labels)
    assert all(labels.values())


def test_image_can_be_scanned_and_holds_no_leftovers(names):
    assert "var/lib/dpkg/status" in names and "usr/share/doc/skald/copyright" in names
    filled = [name for name, member in names.items() if member.isfile() and member.size]
    assert not [name for name in filled
                if name.startswith(("var/lib/apt/lists/", "var/cache/apt/", "var/log/", "src/", "tmp/"))]
    assert not [name for name in names if name.endswith((".a", ".h")) or name.startswith(("usr/include/", "usr/lib/gcc"))]
    assert not [name for name, member in names.items() if member.uid == UID], "it owns nothing that it could change"


@pytest.mark.parametrize("arguments, status", [(["--help"], 0), (["serve", "--help"], 0), (["nonsense"], 2), (["audit"], 1)])
def test_every_argument_is_one_of_skald(image, arguments, status):
    done = engine.run("run", "--rm", "--network", "none", *CONFINED, "--env", "DATABASE_URL=postgresql://nobody@127.0.0.1/x",
                      image, *arguments)
    assert done.returncode == status, done.stdout + done.stderr


class ContainerShop(Shop):
    """Seven services in containers on a private network. Each has a spare address, for a new container that starts
    before an old one stops."""

    def __init__(self, image, **settings):
        super().__init__()
        self.image, self.more = image, settings
        self.network = self.door = None
        self.containers = {name: [] for name in SERVICES}
        self.numbers = itertools.count(1)

    def prepare(self):
        self.network = Network()
        self.cluster.allow_connections()
        self.cluster.listen(self.network.gateway, self.network.subnet, PASSWORD)
        for name in SERVICES:
            self.cluster.create_database(name)
        self.places = {name: [self.network.address(10 * (i + 1) + k) for k in range(REPLICAS + 1)]
                       for i, name in enumerate(SERVICES)}
        self.door = Door(self.places, self.network.gateway)

    def settings(self):
        urls = {}
        for name in SERVICES:
            urls[f"{name.upper()}_DATABASE_URL"] = f"postgresql://skald:{PASSWORD}@database/{name}"
            urls[f"{name.upper()}_URL"] = f"http://{self.door.inside[name].replace(self.network.gateway, 'inside')}"
        return urls | {"WORKERS": "1", "DRAIN_DELAY": "2s"} | self.more

    def hosts(self):
        return [part for name in ("database", "inside") for part in ("--add-host", f"{name}:{self.network.gateway}")]

    def run(self, *arguments):
        return engine.run("run", "--rm", "--network", self.network.name, *CONFINED, *self.hosts(),
                          *environment(self.settings()), self.image, *arguments)

    def launch(self, name):
        used = {one.address for one in self.containers[name]}
        address = next(one for one in self.places[name] if one not in used)
        one = Container(self.image, self.network, address, f"{self.network.name}-{name}-{next(self.numbers)}",
                        ["serve", name], self.hosts(), self.settings())
        self.containers[name].append(one)
        return one

    def all(self):
        return [one for some in self.containers.values() for one in some]

    def start(self):
        for name in SERVICES:
            for _ in range(REPLICAS):
                self.launch(name)
        for one in self.all():
            one.wait_ready()
        self.door.wait_for_exactly(one.address for one in self.all())

    def replace(self, name):
        """Like a rolling update: starts a new one, and stops the old one when it is ready."""
        for old in list(self.containers[name]):
            new = self.launch(name)
            new.wait_ready()
            old.terminate()
            old.wait()
            self.containers[name].remove(old)

    def stop(self):
        for one in self.all():
            one.terminate()
        for one in self.all():
            one.wait()
        self.containers = {name: [] for name in SERVICES}

    def close(self):
        for one in self.all():
            one.remove()
        if self.door:
            self.door.close()
        self.forget_connections()
        self.cluster.remove()
        if self.network:
            self.network.remove()

    def address(self, path):
        return "127.0.0.1", self.door.port

    @property
    def port(self):
        return self.door.port

    def database(self, service):
        return service


@pytest.fixture(scope="module")
def boxes(image):
    with opened(ContainerShop(image)) as shop:
        yield shop
        shop.assert_sound()
        shop.stop()


def test_containers_can_do_nothing_but_serve(boxes):
    for one in boxes.all():
        status = one.proc("status")
        values = {tuple(text.split()) for text in status if text.startswith(("Uid:", "Gid:", "CapEff:", "CapBnd:", "NoNewPrivs:"))}
        assert values == {("Uid:", *[str(UID)] * 4), ("Gid:", *[str(UID)] * 4), ("CapEff:", "0" * 16), ("CapBnd:", "0" * 16),
                          ("NoNewPrivs:", "1")}, one.name
        root = next(text.split()[3] for text in one.proc("mounts") if text.split()[1] == "/")
        assert "ro" in root.split(","), one.name


def test_containers_are_small(boxes):
    """The basis of the memory requests in a cluster."""
    used = {one.name.split("-", 3)[3]: one.memory() for one in boxes.all()}
    print("\nMB: " + ", ".join(f"{name} {size:.1f}" for name, size in used.items()) + f"; all {sum(used.values()):.0f}")
    assert 0 < sum(used.values()) < 300


def test_a_signal_ends_a_migration(boxes):
    """Even as process 1, for which the kernel ignores signals without a handler."""
    with socket.create_server((boxes.network.gateway, 0)) as silent:
        container = docker("run", "--detach", "--network", boxes.network.name, *CONFINED, "--env",
                           "DATABASE_URL=postgresql://skald@{}:{}/skald".format(*silent.getsockname()), boxes.image,
                           "migrate", "order")
        try:
            silent.settimeout(30)
            with silent.accept()[0]:
                docker("kill", "--signal", "TERM", container)
                assert docker("wait", container) == "143"
        finally:
            docker("rm", "--force", container)


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_collection(boxes, tmp_path, collection):
    done, result = run(collection, tmp_path / "r.json", *place("env", boxes))
    assert done.returncode == 0, done.stdout + done.stderr
    assert result["failures"] == [] and result["stats"]["assertions"]["total"] > 10


def test_rolling_update_under_load_fails_nobody(boxes):
    with Customers(boxes).going(CLIENTS) as customers:
        for name in SERVICES:
            with customers.served(f"{name}'s containers replaced"):
                boxes.replace(name)
    customers.check()
