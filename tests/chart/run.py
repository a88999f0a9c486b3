"""Everything about charts/tidegate that can be tested without a cluster. `sh tests/chart/run.sh` fetches what it needs.

Each file in charts/tidegate/ci is one installation: linted and rendered by helm 3 and helm 4, its manifests checked
against the real Kubernetes schemas, then installed, upgraded, rolled back and removed on the stand-in API server.
"""

import copy
import functools
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

import yaml

import exporter
import processes
import readme
import scene
import schemas
import standin

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "charts/tidegate"
TOOLS = ROOT / "target/tools"
HELMS = ("helm3", "helm4")
INSTALLATIONS = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
# Kinds of CRDs: their schemas are not Kubernetes' own, see custom_resources.py.
CUSTOM_KINDS = {"HTTPRoute", "ServiceMonitor", "PrometheusRule"}


def run(*command, check=True, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def helm(name, *arguments, check=True):
    return run(TOOLS / name, *arguments, check=check)


def values_file(installation):
    return CHART / f"ci/{installation}-values.yaml"


@functools.cache
def rendered(installation, helm_name="helm4", *settings):
    """(kind, name) → manifest."""
    text = helm(helm_name, "template", "demo", CHART, "--namespace", "game", "--values", values_file(installation),
                *[part for setting in settings for part in ("--set", setting)]).stdout
    manifests = [manifest for manifest in yaml.safe_load_all(text) if manifest]
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}


def at(manifest, path):
    """The value at `spec.template.spec.containers.0.image`; one of a list by its number or its `name`."""
    for part in re.findall(r"[^.\\]+(?:\\.[^.\\]+)*", path):
        part = part.replace("\\.", ".")
        if isinstance(manifest, list) and not part.isdigit():
            manifest = next((one for one in manifest if one["name"] == part), None)
        else:
            manifest = manifest[int(part)] if isinstance(manifest, list) else manifest.get(part)
        if manifest is None:
            return None
    return manifest


def pods(manifests):
    """(name, pod specification) of everything that makes pods."""
    for (kind, name), manifest in manifests.items():
        if kind == "Pod":
            yield name, manifest["spec"]
        elif kind in ("Deployment", "StatefulSet", "Job"):
            yield name, manifest["spec"]["template"]["spec"]


class Rendering(unittest.TestCase):
    def test_every_installation_passes_lint_with_both_helms(self):
        for installation in INSTALLATIONS:
            for name in HELMS:
                with self.subTest(installation, helm=name):
                    helm(name, "lint", "--strict", CHART, "--values", values_file(installation))

    def test_both_helms_render_the_same_manifests(self):
        for installation in INSTALLATIONS:
            with self.subTest(installation):
                self.assertEqual(rendered(installation, "helm3"), rendered(installation, "helm4"))

    def test_every_manifest_fits_the_kubernetes_schemas(self):
        for version in ("1.30", schemas.VERSION):
            for installation in INSTALLATIONS:
                for (kind, name), manifest in rendered(installation).items():
                    with self.subTest(installation, kind=kind, name=name, version=version):
                        self.assertEqual(schemas.check(manifest, version), kind not in CUSTOM_KINDS)

    def test_the_schemas_would_notice_a_mistake(self):
        broken = copy.deepcopy(rendered("default")["Deployment", "demo-tidegate"])
        container = broken["spec"]["template"]["spec"]["containers"][0]
        container["ports"][0]["containerPort"] = "eighty"
        with self.assertRaisesRegex(schemas.Unfit, "containers.0.ports.0.containerPort: 'eighty' is not of type 'integer'"):
            schemas.check(broken)
        container["ports"][0] = {"containerPort": 80, "nmae": "http"}
        with self.assertRaisesRegex(schemas.Unfit, "'nmae' was unexpected"):
            schemas.check(broken)

    def test_all_pods_are_locked_down(self):
        for installation in INSTALLATIONS:
            for name, spec in pods(rendered(installation)):
                with self.subTest(installation, pod=name):
                    self.assertIs(spec["automountServiceAccountToken"], False)
                    self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
                    self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                    for container in spec["containers"]:
                        self.assertEqual(container["securityContext"], {
                            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]}})
                        self.assertIn("memory", container["resources"]["limits"])
                        for mount in container.get("volumeMounts", []):
                            self.assertNotIn("subPath", mount, "a subPath does not follow changes of its ConfigMap")

    def test_selectors_find_their_pods_and_no_others(self):
        for installation in INSTALLATIONS:
            manifests = rendered(installation)
            labelled = {name: manifest["spec"]["template"]["metadata"]["labels"]
                        for (kind, name), manifest in manifests.items() if kind in ("Deployment", "StatefulSet", "Job")}

            def found(selector):
                return {name for name, labels in labelled.items() if selector.items() <= labels.items()}

            for (kind, name), manifest in manifests.items():
                with self.subTest(installation, kind=kind, name=name):
                    if kind in ("Deployment", "StatefulSet"):
                        self.assertEqual(found(manifest["spec"]["selector"]["matchLabels"]), {name})
                    elif kind == "PodDisruptionBudget":
                        self.assertEqual(found(manifest["spec"]["selector"]["matchLabels"]), {name})
                    elif kind == "Service":
                        self.assertTrue(found(manifest["spec"]["selector"]), "the service has no pods")


    def test_every_service_monitor_finds_a_port_of_a_service(self):
        everything = ["metrics.serviceMonitor.enabled=true", "nats.bundled.enabled=true"]
        manifests = rendered("default", "helm4", *everything)
        services = [manifest for (kind, _), manifest in manifests.items() if kind == "Service"]
        monitors = [manifest for (kind, _), manifest in manifests.items() if kind == "ServiceMonitor"]
        self.assertEqual(len(monitors), 3)
        for monitor in monitors:
            wanted = monitor["spec"]["selector"]["matchLabels"]
            found = [one for one in services if wanted.items() <= one["metadata"]["labels"].items()]
            with self.subTest(monitor["metadata"]["name"]):
                self.assertTrue(found)
                for service in found:
                    ports = {port["name"] for port in service["spec"]["ports"]}
                    self.assertLessEqual({endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}, ports)


# Installation, extra settings, kind, name, path, what has to stand there.
FACTS = [
    ("default", "", "Deployment", "demo-tidegate", "spec.replicas", 2),
    ("default", "", "Deployment", "demo-tidegate", "spec.template.spec.containers.0.image", "ghcr.io/tidegate/tidegate:0.1.0"),
    ("default", "", "Deployment", "demo-tidegate", "spec.template.spec.containers.0.args", ["serve"]),
    # Alive without NATS, ready only with it; readiness ends before connections are refused.
    ("default", "", "Deployment", "demo-tidegate", "spec.template.spec.containers.0.livenessProbe.httpGet",
     {"path": "/healthz", "port": "admin"}),
    ("default", "", "Deployment", "demo-tidegate", "spec.template.spec.containers.0.readinessProbe.httpGet",
     {"path": "/readyz", "port": "admin"}),
    ("default", "", "Deployment", "demo-tidegate", "spec.template.spec.containers.0.lifecycle.preStop", {"sleep": {"seconds": 5}}),
    ("default", "", "Deployment", "demo-tidegate", "spec.template.spec.terminationGracePeriodSeconds", 35),
    ("production", "", "Deployment", "demo-tidegate", "spec.template.spec.terminationGracePeriodSeconds", 40),
    ("default", "", "Deployment", "demo-tidegate", "spec.strategy.rollingUpdate", {"maxSurge": 1, "maxUnavailable": 0}),
    ("default", "", "Deployment", "demo-tidegate-quest-system", "spec.template.spec.containers.0.args", ["worker", "quest-system"]),
    ("default", "", "Deployment", "demo-tidegate-quest-system", "spec.replicas", 2),
    ("default", "services.overrides.auth.replicas=0", "Deployment", "demo-tidegate-auth", "spec.replicas", 0),
    # Either the Job provisions, or the services do.
    ("default", "", "Deployment", "demo-tidegate-auth", "spec.template.spec.containers.0.env.TIDEGATE_PROVISION.value", "never"),
    ("default", "streams.enabled=false", "Deployment", "demo-tidegate-auth", "spec.template.spec.containers.0.env.TIDEGATE_PROVISION.value",
     "missing"),
    ("default", "", "Service", "demo-tidegate", "spec.ports.0.targetPort", "http"),
    ("default", "", "Service", "demo-tidegate-admin", "spec.clusterIP", "None"),
    # The admin port's token is a file, so that a rotated one counts without a restart.
    ("default", "gateway.adminToken.secret=admin,gateway.adminToken.key=it", "Deployment", "demo-tidegate",
     "spec.template.spec.volumes.0.secret",
     {"secretName": "admin", "defaultMode": 0o440, "items": [{"key": "it", "path": "token"}]}),
    # The program ends by itself before it is killed.
    ("default", "", "Deployment", "demo-tidegate", "spec.template.spec.containers.0.env.TIDEGATE_GRACE.value", "25"),
    ("default", "gateway.drain.graceSeconds=120", "Deployment", "demo-tidegate", "spec.template.spec.containers.0.env.TIDEGATE_GRACE.value", "115"),
    ("default", "gateway.threads=4", "Deployment", "demo-tidegate", "spec.template.spec.containers.0.env.TIDEGATE_THREADS.value", "4"),
    ("production", "", "Deployment", "demo-tidegate", "spec.template.spec.containers.0.env.TIDEGATE_ADMIN_TOKEN_FILE.value",
     "/etc/tidegate/admin/token"),
    ("production", "", "Deployment", "demo-tidegate", "spec.template.spec.containers.0.volumeMounts.0",
     {"name": "admin-token", "mountPath": "/etc/tidegate/admin", "readOnly": True}),
    # A gateway that scales by itself has no fixed count.
    ("production", "", "Deployment", "demo-tidegate", "spec.replicas", None),
    ("production", "", "HorizontalPodAutoscaler", "demo-tidegate", "spec.metrics.1.pods",
     {"metric": {"name": "tidegate_requests_in_flight"}, "target": {"type": "AverageValue", "averageValue": "200"}}),
    ("production", "", "Deployment", "demo-tidegate", "spec.template.spec.containers.0.image",
     "ghcr.io/tidegate/tidegate@sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"),
    # Groups share pods; the rest runs alone.
    ("production", "", "Deployment", "demo-tidegate-text", "spec.template.spec.containers.0.args",
     ["worker", "ai-integration", "story-teller", "environmental-narrative"]),
    ("production", "", "Deployment", "demo-tidegate-text", "spec.replicas", 3),
    ("production", "", "Deployment", "demo-tidegate-text", "spec.template.spec.containers.0.resources.limits.memory", "1Gi"),
    ("production", "", "Deployment", "demo-tidegate-payment", "spec.replicas", 4),
    ("production", "", "Deployment", "demo-tidegate-auth", "spec.replicas", 2),
    # The gateway follows its ConfigMaps, so a new table does not roll it; services read theirs at the start.
    ("production", "", "Deployment", "demo-tidegate", "spec.template.metadata.annotations", {"example.org/team": "edge"}),
    ("production", "", "ConfigMap", "demo-tidegate-descriptors", "binaryData", {"more.binpb": "Cgo="}),
    ("cluster", "", "Deployment", "edge", "spec.template.spec.volumes.0.configMap",
     {"name": "my-tables", "items": [{"key": "table.yaml", "path": "routes.yaml"}]}),
    ("cluster", "", "Deployment", "edge", "spec.template.spec.volumes.1.configMap",
     {"name": "my-descriptors", "items": [{"key": "quest.v1.quest.proto", "path": "quest/v1/quest.proto"}]}),
    ("cluster", "", "Deployment", "edge", "spec.template.spec.serviceAccountName", "mine"),
    ("cluster", "", "StatefulSet", "edge-nats", "spec.volumeClaimTemplates.0.spec.storageClassName", "fast"),
    ("trial", "", "StatefulSet", "demo-tidegate-nats", "spec.template.spec.containers.0.env.GOMEMLIMIT.value", "921MiB"),
    ("production", "", "Ingress", "demo-tidegate", "spec.rules.0.http.paths.0.backend.service",
     {"name": "demo-tidegate", "port": {"name": "http"}}),
    ("production", "", "HTTPRoute", "demo-tidegate", "spec.rules.0.timeouts.request", "0s"),
    ("production", "", "HTTPRoute", "demo-tidegate", "spec.rules.0.backendRefs", [{"name": "demo-tidegate", "port": 80}]),
    ("production", "", "ServiceMonitor", "demo-tidegate-gateway", "metadata.labels.release", "prometheus"),
    ("production", "", "NetworkPolicy", "demo-tidegate-gateway", "spec.ingress.0",
     {"ports": [{"port": "http", "protocol": "TCP"}],
      "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]}),
    ("production", "", "NetworkPolicy", "demo-tidegate-services", "spec.egress.2", {"ports": [{"port": 443, "protocol": "TCP"}]}),
    ("production", "", "NetworkPolicy", "demo-tidegate-services", "spec.egress.1.to", [{"ipBlock": {"cidr": "10.1.0.0/16"}}]),
    ("default", "", "NetworkPolicy", "demo-tidegate-services", "spec.policyTypes", ["Ingress", "Egress"]),
    ("default", "fullnameOverride=edge", "Deployment", "edge", "spec.replicas", 2),
    ("default", "image.tag=1.2.3", "Deployment", "demo-tidegate-auth", "spec.template.spec.containers.0.image",
     "ghcr.io/tidegate/tidegate:1.2.3"),
]

# Settings, and the words that refuse them.
REFUSALS = [
    ("gatway.replicas=3", r"additional properties 'gatway' not allowed|Additional property gatway is not allowed"),
    ("gateway.replicas=many", r"gateway.replicas"),
    ("gateway.service.type=External", r"gateway.service.type"),
    ("nats.bundled.replicas=2", r"nats.bundled.replicas"),
    ("nats.bundled.enabled=true,nats.bundled.resources.limits.memory=1G",
     r"the memory limit of the bundled NATS is `1G`: give it in whole Mi or Gi"),
    ("tables.routes=version: 1", r"`tables` has routes but no descriptors: give `tables.descriptors`"),
    ("tables.existingDescriptors.configMap=mine", r"`tables` has descriptors but no routes: give `tables.routes`"),
    (r"tables.routes=version: 1,tables.descriptors.a/b\.proto=x,tables.descriptors.a\.b\.proto=x",
     r"the descriptors `a.b.proto` and `a/b.proto` have the same key in a ConfigMap: rename one"),
    ("services.groups.a={auth},services.groups.b={auth}", r"`auth` is in the groups `a` and `b`"),
    ("services.groups.a={atuh}", r"the group `a` names `atuh`, which is not in `services.names`"),
    ("services.groups.auth={auth,payment}", r"the group `auth` has the name of a service: call it something else"),
    ("services.overrides.atuh.replicas=3", r"`services.overrides` names `atuh`, which is no Deployment of services"),
    ("ingress.enabled=true", r"`ingress.enabled` needs `ingress.hosts`"),
    ("httpRoute.enabled=true", r"`httpRoute.enabled` needs `httpRoute.parentRefs`"),
]


class Contents(unittest.TestCase):
    def test_what_matters_stands_where_it_should(self):
        for installation, setting, kind, name, path, wanted in FACTS:
            with self.subTest(f"{installation} {setting}: {kind} {name} {path}"):
                manifests = rendered(installation, "helm4", *filter(None, [setting]))
                self.assertIn((kind, name), manifests)
                self.assertEqual(at(manifests[kind, name], path), wanted)

    def test_mistakes_in_the_values_are_refused_in_words(self):
        for settings, words in REFUSALS:
            for name in HELMS:
                with self.subTest(settings, helm=name):
                    done = helm(name, "template", "demo", CHART, "--set", settings, check=False)
                    self.assertEqual(done.returncode, 1, done.stdout[:200])
                    self.assertRegex(done.stderr, words)

    def test_all_services_run_and_they_are_those_of_the_descriptors(self):
        names = yaml.safe_load((CHART / "values.yaml").read_text())["services"]["names"]
        sources = "\n".join(path.read_text() for path in (ROOT / "descriptors").rglob("*.proto"))
        declared = set(re.findall(r'option \(tidegate\.service\) = \{[^}]*\bname: "([^"]+)"', sources))
        self.assertEqual(len(names), 22)
        self.assertEqual(declared, set(names))
        manifests = rendered("default")
        self.assertEqual({name for kind, name in manifests if kind == "Deployment"},
                         {"demo-tidegate", *(f"demo-tidegate-{name}" for name in names)})

    def test_one_group_can_take_all_services(self):
        manifests = rendered("trial")
        self.assertEqual({name for kind, name in manifests if kind == "Deployment"}, {"demo-tidegate", "demo-tidegate-all"})
        names = yaml.safe_load((CHART / "values.yaml").read_text())["services"]["names"]
        container = manifests["Deployment", "demo-tidegate-all"]["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(container["args"], ["worker", *names])

    def test_each_pod_sees_its_own_credentials_only(self):
        users = {}
        for name, spec in pods(rendered("production")):
            secret = next((volume["secret"] for volume in spec.get("volumes", []) if volume["name"] == "nats-credentials"), None)
            env = {row["name"]: row for container in spec["containers"] for row in container.get("env", [])}
            if secret:
                self.assertEqual(env["NATS_CREDS"]["value"], "/etc/tidegate/nats/" + secret["items"][0]["path"])
                self.assertEqual(env["NATS_CA"]["value"], "/etc/tidegate/nats-ca/ca.crt")
                self.assertEqual(env["NATS_URL"]["valueFrom"], {"secretKeyRef": {"name": "nats-url", "key": "url"}})
                users[re.sub("-[0-9a-f]{8}$", "", name)] = [item["key"] for item in secret["items"]]
        self.assertEqual(users["demo-tidegate"], ["gateway.creds"])
        self.assertEqual(users["demo-tidegate-text"], ["worker.creds"])
        self.assertEqual(users["demo-tidegate-payment"], ["payment.creds"])
        self.assertEqual(users["demo-tidegate-streams"], ["provisioner.creds"])

    def test_descriptors_come_back_as_the_files_they_were(self):
        manifests = rendered("production")
        given = yaml.safe_load(values_file("production").read_text())["tables"]
        text = manifests["ConfigMap", "demo-tidegate-descriptors"]["data"]
        volumes = manifests["Deployment", "demo-tidegate"]["spec"]["template"]["spec"]["volumes"]
        items = next(volume for volume in volumes if volume["name"] == "descriptors")["configMap"]["items"]
        paths = {item["path"]: item["key"] for item in items}
        self.assertEqual(set(paths), {*given["descriptors"], *given["descriptorSets"]})
        for path, wanted in given["descriptors"].items():
            self.assertEqual(text[paths[path]], wanted)
        self.assertEqual(manifests["ConfigMap", "demo-tidegate-routes"]["data"]["routes.yaml"], given["routes"])

    def test_a_new_table_rolls_the_services_and_not_the_gateway(self):
        before, after = rendered("production"), rendered("production", "helm4", "tables.routes=version: 1")

        def changed(name):
            return before["Deployment", name]["spec"]["template"] != after["Deployment", name]["spec"]["template"]

        self.assertFalse(changed("demo-tidegate"))
        self.assertTrue(changed("demo-tidegate-auth"))

    def test_the_streams_job_has_a_new_name_where_it_does_something_else(self):
        def job(*settings):
            return next(name for kind, name in rendered("default", "helm4", *settings) if kind == "Job")

        self.assertEqual(job(), job("gateway.replicas=5"))
        self.assertNotEqual(job(), job("image.tag=2.0.0"))
        self.assertNotEqual(job(), job("streams.replicas=3"))

    def test_the_bundled_nats_takes_its_configuration(self):
        for installation, name in (("trial", "demo-tidegate-nats"), ("cluster", "edge-nats")):
            config = rendered(installation)["ConfigMap", name]["data"]["nats.conf"]
            with self.subTest(installation), tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
                file.write(config)
                file.flush()
                run(TOOLS / "nats-server", "-t", "-c", file.name, env=os.environ | {"POD_NAME": f"{name}-0"})
                self.assertEqual("routes" in config, installation == "cluster")

    def test_the_readme_says_what_values_yaml_says(self):
        self.assertEqual((CHART / "README.md").read_text(), readme.written(CHART),
                         "charts/tidegate/README.md is not up to date: `make chart-readme` writes it")

    def test_versions_fit_the_program(self):
        version = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        self.assertEqual(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"], version)


class LifeCycle(unittest.TestCase):
    """install, upgrade, rollback, test, uninstall, against the stand-in."""

    def setUp(self):
        self.server = standin.Server()
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        config = pathlib.Path(self.folder.name, "kubeconfig")
        config.write_text(yaml.safe_dump(self.server.kubeconfig()))
        self.flags = ["--kubeconfig", config, "--namespace", "game"]

    def objects(self):
        """Kind and name → manifest, without what helm keeps for itself."""
        found = self.server.store.objects.values()
        return {(item["kind"], item["metadata"]["name"]): item for item in found
                if item["metadata"].get("namespace") == "game" and item.get("type") != "helm.sh/release.v1"
                and item["kind"] != "ReplicaSet"}

    def revision(self, name):
        return json.loads(helm(name, "history", "demo", "-o", "json", *self.flags).stdout)[-1]["description"]

    def test_a_release_lives_and_leaves_nothing_behind(self):
        for name in HELMS:
            with self.subTest(name):
                self.through(name)

    def through(self, name):
        wait = ["--wait", "--timeout", "60s", *self.flags]
        trial = ["--values", values_file("trial")]
        helm(name, "install", "demo", CHART, "--create-namespace", *trial, *wait)
        installed = self.objects()
        self.assertEqual(set(installed), {key for key in rendered("trial") if key[0] != "Pod"})
        self.assertEqual(installed["Deployment", "demo-tidegate"]["spec"]["replicas"], 1)
        helm(name, "test", "demo", *self.flags)
        self.assertEqual(set(self.objects()), set(installed), "the test's pod is gone")

        helm(name, "upgrade", "demo", CHART, *trial, "--set", "gateway.replicas=4,image.tag=9.9.9,gateway.env[0].name=A,"
             "gateway.env[0].value=b,streams.replicas=1,gateway.disruptionBudget.enabled=false", *wait)
        upgraded = self.objects()
        gateway = upgraded["Deployment", "demo-tidegate"]["spec"]
        self.assertEqual(gateway["replicas"], 4)
        self.assertEqual(at(gateway, "template.spec.containers.0.image"), "ghcr.io/tidegate/tidegate:9.9.9")
        self.assertIn({"name": "A", "value": "b"}, at(gateway, "template.spec.containers.0.env"))
        self.assertNotIn(("PodDisruptionBudget", "demo-tidegate"), upgraded)
        jobs = [{job for kind, job in found if kind == "Job"} for found in (installed, upgraded)]
        self.assertEqual((len(jobs[1]), jobs[0] & jobs[1]), (1, set()), "the changed job is another job")

        broken = helm(name, "upgrade", "demo", CHART, *trial, "--set", "gateway.env[0].name=A,gateway.env[0].vaule=b",
                      *wait, check=False)
        self.assertRegex(broken.stderr, "vaule")
        helm(name, "rollback", "demo", "1", *wait)
        back = self.objects()
        self.assertEqual(self.revision(name), "Rollback to 1")
        self.assertEqual(set(back), set(installed))
        for key in (("Deployment", "demo-tidegate"), ("StatefulSet", "demo-tidegate-nats"), ("Service", "demo-tidegate")):
            self.assertEqual(back[key]["spec"], installed[key]["spec"])
        helm(name, "uninstall", "demo", *wait)
        self.assertEqual(self.objects(), {})

    def test_the_largest_installation_is_taken_too(self):
        for name in HELMS:
            with self.subTest(name):
                helm(name, "install", "demo", CHART, "--create-namespace", "--values", values_file("production"), *self.flags)
                self.assertEqual(set(self.objects()), {key for key in rendered("production") if key[0] != "Pod"})
                helm(name, "uninstall", "demo", *self.flags)

    def test_the_commands_of_the_docs_work(self):
        text = (ROOT / "docs/deploying.md").read_text()
        blocks = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S))
        commands = [line for line in blocks.splitlines() if line.startswith("helm ")]
        self.assertGreater(len(commands), 8)
        config = os.environ | {"KUBECONFIG": str(self.flags[1])}
        for command in commands:
            with self.subTest(command):
                program, *arguments = shlex.split(command, comments=True)
                run(TOOLS / "helm4", *arguments, cwd=ROOT, env=config)
        self.assertEqual(self.objects(), {}, "the last command removes everything")

    def test_notes_say_how_to_reach_it(self):
        done = helm("helm4", "install", "demo", CHART, "--create-namespace", "--values", values_file("trial"), *self.flags)
        self.assertIn("kubectl -n game port-forward svc/demo-tidegate 8080:80", done.stdout)
        self.assertIn("Services: 22 in 1 Deployments", done.stdout)
        done = helm("helm4", "upgrade", "demo", CHART, "--values", values_file("production"), *self.flags)
        self.assertIn("https://api.example.org/", done.stdout)


class Compose(unittest.TestCase):
    def test_compose_runs_what_the_chart_runs(self):
        services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
        values = yaml.safe_load((CHART / "values.yaml").read_text())["nats"]["bundled"]["image"]
        self.assertEqual(services["nats"]["image"], f"{values['repository']}:{values['tag']}")
        containers = {name: at(rendered("trial")["Deployment", name], "spec.template.spec.containers.0.args")[0]
                      for name in ("demo-tidegate", "demo-tidegate-all")}
        self.assertEqual([services[name]["command"][0] for name in ("gateway", "services")], list(containers.values()))
        for name in ("streams", "gateway", "services"):
            with self.subTest(name):
                self.assertIs(services[name]["read_only"], True)
                self.assertEqual(services[name]["cap_drop"], ["ALL"])
                self.assertEqual(services[name]["environment"], {"NATS_URL": "nats://nats:4222"})


class Alerts(unittest.TestCase):
    rules = [rule for group in yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"] for rule in group["rules"]]

    def test_the_rules_fire_when_they_should(self):
        run(TOOLS / "promtool", "check", "rules", CHART / "files/alerts.yaml")
        run(TOOLS / "promtool", "test", "rules", ROOT / "tests/chart/alerts_test.yaml")
        tests = yaml.safe_load((ROOT / "tests/chart/alerts_test.yaml").read_text())["tests"]
        for rule in self.rules:
            cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]
            with self.subTest(rule["alert"]):
                self.assertEqual({bool(case["exp_alerts"]) for case in cases}, {True, False})

    def test_each_alert_has_a_runbook_and_each_runbook_its_alert(self):
        pages = {path.stem: path.read_text() for path in (ROOT / "docs/runbooks").glob("*.md") if path.stem != "README"}
        self.assertEqual(set(pages), {rule["alert"] for rule in self.rules})
        index = (ROOT / "docs/runbooks/README.md").read_text()
        for name, page in pages.items():
            with self.subTest(name):
                self.assertTrue(page.startswith(f"# {name}\n"))
                self.assertEqual(re.findall(r"^## (.+)$", page, re.M), ["Meaning", "How to see it", "What to do"])
                self.assertIn(f"({name}.md)", index)

    def test_the_prometheus_rule_is_the_same_rules_with_links(self):
        groups = rendered("production")["PrometheusRule", "demo-tidegate"]["spec"]["groups"]
        made = {rule["alert"]: rule for group in groups for rule in group["rules"]}
        self.assertEqual(set(made), {rule["alert"] for rule in self.rules} - {"NATSCPUHigh"})
        for rule in self.rules:
            if rule["alert"] in made:
                link = made[rule["alert"]]["annotations"].pop("runbook_url")
                self.assertEqual(pathlib.PurePath(link).name, rule["alert"] + ".md")
                self.assertEqual(made[rule["alert"]], rule)

    def test_the_queries_of_the_dashboard_are_sound(self):
        rules = [{"record": f"panel:{number}", "expr": expr} for number, (_, expr) in enumerate(dashboard_queries())]
        self.assertGreater(len(rules), 20)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
            file.flush()
            run(TOOLS / "promtool", "check", "rules", file.name)

    def test_every_metric_exists(self):
        ours = set(re.findall(r'pub const \w+: &str =\s*"(\w+)"', (ROOT / "src/telemetry/mod.rs").read_text()))
        known = ours | {name + "_bucket" for name in ours if name.endswith("_seconds")} | exporter_names() | {"up"}
        for where, expression in [*((rule["alert"], rule["expr"]) for rule in self.rules), *dashboard_queries()]:
            with self.subTest(where):
                used = set(re.findall(r"\b((?:nats|tidegate)_\w+|up)\b(?=[{\[ )]|$)", expression, re.M))
                self.assertTrue(used, expression)
                self.assertEqual(used - known, set(), "no such metric")


class Dashboard(unittest.TestCase):
    """The panels' queries, on a real Prometheus that scrapes real gateways, real services, and a stand-in exporter."""

    # What only trouble counts that this scene does not have.
    ELSEWHERE = {
        ("Connections to the bus", "lost: {{instance}}"), ("Breakers open", "{{subject}}"), ("Events dropped", "{{service}}"),
        ("Records left out", "{{bucket}}"),
        ("Gateways on old tables", "{{instance}}"), ("Oldest unsent event", "{{bucket}}"),
        # What may be over when Prometheus looks.
        ("Requests in flight", "{{instance}}"), ("Waiting for a reply", "{{instance}}"),
        ("Threads kept for more than 5 ms", "{{service}}"), ("Events that wait", "{{stream_name}} {{consumer_name}}"),
    }

    def test_every_panel_shows_data_that_can_be_told_apart(self):
        self.assertTrue(scene.PROGRAM.is_file(), "there is no target/debug/tidegate: `cargo build`, or `make chart-test`")
        panels = dashboard_panels()
        targets = {(panel["title"], target["legendFormat"]): target["expr"] for panel in panels for target in panel["targets"]}
        self.assertEqual(self.ELSEWHERE - set(targets), set())
        unseen = {key: expr for key, expr in targets.items() if key not in self.ELSEWHERE}
        self.assertGreater(len(unseen), 35)
        with scene.system() as system:
            def all_seen():
                system.load()
                for key in list(unseen):
                    if processes.query(system.prometheus, unseen[key]):
                        del unseen[key]
                return not unseen

            try:
                processes.wait_for(all_seen, seconds=60)
            except TimeoutError:
                self.fail(f"no data: {sorted(unseen)}")
            for panel in panels:
                with self.subTest(panel["title"]):
                    lines = [legend(target["legendFormat"], row["metric"]) for target in panel["targets"]
                             for row in processes.query(system.prometheus, target["expr"])]
                    self.assertEqual(sorted(lines), sorted(set(lines)), "two lines of one name")
                    self.assertLessEqual(len(lines), 9, "nobody reads so long a legend")
                    self.assertEqual([line for line in lines if not line.strip()], [], "a line without a name")


def legend(form, labels):
    """What Grafana writes beside a line."""
    return re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), form)


def dashboard_panels():
    dashboard = json.loads((CHART / "files/dashboard.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def dashboard_queries():
    return [(panel["title"], target["expr"]) for panel in dashboard_panels() for target in panel["targets"]]


def exporter_names():
    """Names of prometheus-nats-exporter, from a real server by the stand-in."""
    with processes.Group() as group:
        _, monitoring = group.nats(TOOLS / "nats-server", GOMEMLIMIT="1GiB")
        varz = processes.json_of(monitoring + "/varz")
    return set(exporter.flattened("nats_varz", varz)) | exporter.OTHERS


if __name__ == "__main__":
    unittest.main(verbosity=1, argv=[sys.argv[0], *sys.argv[1:]])
