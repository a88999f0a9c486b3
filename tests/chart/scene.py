"""A whole system under load, for the dashboard: nats-server, two gateways, services of which one is missing, everything
scraped by a real Prometheus."""

import contextlib
import itertools
import json
import pathlib
import socket
import urllib.request

import yaml

import exporter
import processes

ROOT = pathlib.Path(__file__).parents[2]
TOOLS = ROOT / "target/tools"
PROGRAM = ROOT / "target/debug/tidegate"
# Its requests find nobody: what a dashboard shows of a service that is down.
MISSING = "payment"
# Long enough for debug builds on a busy machine.
SCRAPED_EVERY = "2s"
# A rate that the load breaks; repeats of requests that nobody answers, and a breaker.
TABLE = ("    streams: 100\n", """\
    streams: 100
    rate: { requests: 1, per: 1s, burst: 1 }
  payment.v1.PaymentService/ValidatePayment:
    retries: 2
    breaker: { failures: 5, open: 30s }
""")


def ask(listen, verb, path, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{listen}{path}", data, headers or {}, method=verb)
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


def requests(number):
    """Some of each kind that the dashboard tells apart; a few seeds and prompts, so that caches are hit."""
    player = f"p{number % 7}"
    quick = {"X-Timeout-Ms": "1"}
    yield "POST", f"/v1/players/{player}/quests:generate", {"seed": str(number % 40)}
    yield "PUT", f"/v1/players/{player}/state", {"state": {"money": number}}
    yield "GET", f"/v1/players/{player}/state"
    yield "GET", "/v1/worlds/w1/time"
    yield "GET", "/v1/worlds/w1/weather"
    yield "POST", "/v1/inference", {"prompt": f"Who rows boat {number % 5}?", "params": {"temperature": 0}}
    yield "POST", "/v1/inference:stream", {"prompt": f"Where is ferryman {number % 5}?"}
    if number % 3 == 0:
        yield "GET", f"/v1/players/{player}/balances/gold"
        yield "GET", "/nowhere"
        yield "POST", "/v1/workflows/health_probe:execute", {}
        yield "POST", f"/v1/players/{player}/quests:generate", {"seed": str(1000 + number)}, quick


def watch(listen, path):
    """A stream that stays open until the block's end."""
    return urllib.request.urlopen(f"http://{listen}{path}", timeout=60)


def silent_connection(listen):
    """One that sends nothing, and is closed for it after a while: a limit of connections."""
    host, port = listen.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


class System:
    """Addresses of what runs, and its load."""

    def __init__(self, gateways, prometheus):
        self.gateways, self.prometheus = gateways, prometheus
        self.rounds = itertools.count()

    def load(self):
        """Some requests of each kind, by both gateways."""
        number = next(self.rounds)
        for index, request in enumerate(requests(number)):
            ask(self.gateways[(number + index) % 2], *request)


@contextlib.contextmanager
def system():
    """A running `System`, with a watch that stays open and a connection that says nothing at each gateway."""
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(processes.Group())
        routes = pathlib.Path(group.folder.name, "limited.yaml")
        text = (ROOT / "routes.yaml").read_text()
        assert TABLE[0] in text
        routes.write_text(text.replace(*TABLE))
        bus, monitoring = group.nats(TOOLS / "nats-server", GOMEMLIMIT="1GiB")
        ours = ["--nats", bus, "--admin", "127.0.0.1:0"]
        serve = [PROGRAM, "serve", "--routes", routes, "--descriptors", ROOT / "descriptors", "--listen", "127.0.0.1:0"]
        gateways = [group.logged([*serve, *ours], "listen", "admin") for _ in range(2)]
        names = yaml.safe_load((ROOT / "charts/tidegate/values.yaml").read_text())["services"]["names"]
        worker = group.logged([PROGRAM, "worker", *(name for name in names if name != MISSING), *ours], "admin")
        admins = [*(gateway["admin"] for gateway in gateways), worker["admin"]]
        for address in admins:
            processes.wait_for(lambda: processes.status(f"http://{address}/readyz") == 200)
        nats = stack.enter_context(exporter.Exporter(monitoring)).address
        prometheus = group.prometheus(TOOLS / "prometheus", [*admins, nats], SCRAPED_EVERY)
        for gateway in gateways:
            stack.enter_context(silent_connection(gateway["listen"]))
            stack.enter_context(watch(gateway["listen"], "/v1/worlds/w1/time:watch"))
        yield System([gateway["listen"] for gateway in gateways], prometheus)
