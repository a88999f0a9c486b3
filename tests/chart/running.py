"""What the chart's pods run, run: their arguments and variables out of the manifests, ConfigMaps mounted as the kubelet
mounts them, probes, the command of `helm test`, and an upgrade that exchanges the tables under requests."""

import itertools
import os
import pathlib
import shutil
import subprocess
import threading
import unittest

import yaml

import processes
import run

# A row that an upgrade adds, in the place of those that the project's table has none of.
NEW_ROUTE = "\nroutes:\n  - route: GET /v1/adventurers/{player_id}\n    call: state_manager.v1.StateManagerService/GetState\n"


def tables(routes):
    """Values that give these routes and the project's descriptors to the chart."""
    folder = run.ROOT / "descriptors"
    protos = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.proto")}
    return {"tables": {"routes": routes, "descriptors": protos}}


def installed(folder, routes):
    """(kind, name) → manifest of the trial installation with these routes."""
    values = pathlib.Path(folder, "values.yaml")
    values.write_text(yaml.safe_dump(tables(routes)))
    text = run.helm("helm4", "template", "demo", run.CHART, "--values", run.values_file("trial"), "--values", values).stdout
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text) if one}


class Mount:
    """A ConfigMap's folder as the kubelet keeps it: links through `..data`, which one rename exchanges."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.serial = itertools.count()

    def write(self, config_map, items):
        fresh = self.folder / f"..{next(self.serial)}"
        for item in items:
            file = fresh / item["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(config_map["data"][item["key"]])
        data, link = self.folder / "..data", self.folder / "..data_tmp"
        before = data.resolve() if data.is_symlink() else None
        link.symlink_to(fresh.name)
        link.rename(data)
        for path in {pathlib.PurePath(item["path"]).parts[0] for item in items}:
            if not (self.folder / path).is_symlink():
                (self.folder / path).symlink_to(pathlib.PurePath("..data", path))
        if before:
            shutil.rmtree(before)


class Pod:
    """One pod of a manifest: where its volumes are, and how its container is started."""

    def __init__(self, folder, manifests, key, bus):
        self.spec = manifests[key]["spec"]["template"]["spec"]
        [self.container] = self.spec["containers"]
        self.mounts = {}
        places = {"nats://demo-tidegate-nats:4222": bus, "0.0.0.0:8080": "127.0.0.1:0", "0.0.0.0:9090": "127.0.0.1:0"}
        for mount in self.container.get("volumeMounts", []):
            self.mounts[mount["name"]] = Mount(folder / key[1] / mount["name"])
            places[mount["mountPath"]] = str(self.mounts[mount["name"]].folder)
        self.env = dict(os.environ)
        for variable in self.container["env"]:
            value = variable["value"]
            for place, here in places.items():
                value = value.replace(place, here)
            self.env[variable["name"]] = value
        self.write(manifests)

    def write(self, manifests):
        """What the kubelet does some time after the ConfigMaps have changed."""
        for volume in self.spec.get("volumes") or []:
            source = volume["configMap"]
            self.mounts[volume["name"]].write(manifests["ConfigMap", source["name"]], source["items"])

    @property
    def command(self):
        return [run.ROOT / "target/debug/tidegate", *self.container["args"]]

    def probe(self, name, admin):
        return processes.status(f"http://{admin}{self.container[name]['httpGet']['path']}")


class Requests(threading.Thread):
    """Asks one address until it is told to stop; keeps every status."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.seen, self.is_over = url, [], threading.Event()

    def run(self):
        while not self.is_over.is_set():
            self.seen.append(processes.status(self.url))

    def stop(self):
        self.is_over.set()
        self.join()


class Running(unittest.TestCase):
    def setUp(self):
        self.assertTrue((run.ROOT / "target/debug/tidegate").is_file(), "there is no target/debug/tidegate: `cargo build`")
        self.group = processes.Group().__enter__()
        self.addCleanup(self.group.__exit__)
        self.folder = pathlib.Path(self.group.folder.name)

    def is_ready_for_helm_test(self, manifests, admin):
        """Whether the command of the test's pod, run by the real wget, ends well."""
        [container] = manifests["Pod", "demo-tidegate-test"]["spec"]["containers"]
        command = [part.replace("demo-tidegate-admin:9090", admin) for part in container["command"]]
        self.assertIn(f"http://{admin}/readyz", command)
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0

    def test_an_upgrade_exchanges_the_tables_under_requests(self):
        routes = (run.ROOT / "routes.yaml").read_text()
        manifests = installed(self.folder, routes)
        bus, _ = self.group.nats(run.TOOLS / "nats-server")
        nats = self.group.running[-1]
        job = Pod(self.folder, manifests, next(key for key in manifests if key[0] == "Job"), bus)
        run.run(*job.command, env=job.env, cwd=self.folder)
        worker = Pod(self.folder, manifests, ("Deployment", "demo-tidegate-all"), bus)
        gateway = Pod(self.folder, manifests, ("Deployment", "demo-tidegate"), bus)
        backend = self.group.logged(worker.command, "admin", env=worker.env)["admin"]
        edge = self.group.logged(gateway.command, "listen", "admin", env=gateway.env)
        for pod, admin in ((worker, backend), (gateway, edge["admin"])):
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                processes.wait_for(lambda: pod.probe(probe, admin) == 200)
        self.assertTrue(self.is_ready_for_helm_test(manifests, edge["admin"]))

        old, new = (f"http://{edge['listen']}/v1/{kind}/p1" for kind in ("players", "adventurers"))
        requests = Requests(f"{old}/state")
        self.assertEqual(processes.status(f"{old}/state", b'{"state": {"money": 1}}', "PUT"), 200)
        self.assertEqual(processes.status(new), 404)
        requests.start()
        upgraded = installed(self.folder, routes + NEW_ROUTE)
        self.assertEqual(upgraded["Deployment", "demo-tidegate"], manifests["Deployment", "demo-tidegate"])
        gateway.write(upgraded)
        processes.wait_for(lambda: processes.status(new) == 200)
        gateway.write(installed(self.folder, routes + NEW_ROUTE.replace("GetState", "GetSate")))
        processes.wait_for(lambda: "tidegate_reload_stale 1" in processes.text_of(f"http://{edge['admin']}/metrics"))
        self.assertEqual(processes.status(new), 200, "the last good table stays")
        gateway.write(manifests)
        processes.wait_for(lambda: processes.status(new) == 404)
        requests.stop()
        self.assertEqual((set(requests.seen), len(requests.seen) > 20), ({200}, True))

        nats.kill()
        processes.wait_for(lambda: gateway.probe("readinessProbe", edge["admin"]) == 503)
        self.assertEqual(gateway.probe("livenessProbe", edge["admin"]), 200, "a restart would not bring NATS back")
        self.assertFalse(self.is_ready_for_helm_test(manifests, edge["admin"]))


if __name__ == "__main__":
    unittest.main(verbosity=1)
