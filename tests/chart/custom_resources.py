"""HTTPRoute, ServiceMonitor and PrometheusRule against the schemas of their own projects, unknown fields refused."""

import copy
import json
import subprocess
import unittest

import run

PROGRAM = run.ROOT / "tests/chart/custom_resources.mjs"


def problems(manifests):
    """A list of problems for each manifest."""
    done = run.run("node", PROGRAM, run.TOOLS / "custom-resources", input=json.dumps(manifests))
    return json.loads(done.stdout)


def rendered():
    """(installation, manifest) of every custom resource that the chart makes."""
    everything = ["metrics.serviceMonitor.enabled=true", "metrics.prometheusRule.enabled=true"]
    for installation, settings in [*((name, []) for name in run.INSTALLATIONS), ("trial", everything)]:
        for (kind, _), manifest in run.rendered(installation, "helm4", *settings).items():
            if kind in run.CUSTOM_KINDS:
                yield installation, manifest


RULE = "spec.groups.0.rules.0"
# Kind, what holds the change, the change (a value of None takes the field away), the words of the refusal.
MISTAKES = [
    ("HTTPRoute", "spec.rules.0.timeouts", {"request": "soon"}, "/spec/rules/0/timeouts/request must match pattern"),
    ("HTTPRoute", "spec.rules.0.backendRefs.0", {"port": 80_000}, "/spec/rules/0/backendRefs/0/port must be <= 65535"),
    ("HTTPRoute", "spec.rules.0.backendRefs.0", {"prot": 80}, """'"prot"' does not exist in type 'IHTTPBackendRef'"""),
    ("HTTPRoute", "spec.rules.0.matches.0.path", {"type": "Prefix"}, "must be equal to one of the allowed values"),
    ("HTTPRoute", "spec", {"hostnames": ["Not A Host"]}, "/spec/hostnames/0 must match pattern"),
    ("ServiceMonitor", "spec.endpoints.0", {"interval": "15 seconds"}, "/spec/endpoints/0/interval must match pattern"),
    ("ServiceMonitor", "spec.endpoints.0", {"prot": "admin"}, """'"prot"' does not exist in type 'IEndpoint'"""),
    ("ServiceMonitor", "spec", {"selector": None}, "/spec must have required property selector"),
    ("PrometheusRule", RULE, {"for": "5 min"}, "/spec/groups/0/rules/0/for must match pattern"),
    ("PrometheusRule", RULE, {"labls": {}}, """'"labls"' does not exist in type 'IRule'"""),
    ("PrometheusRule", RULE, {"expr": None}, "/spec/groups/0/rules/0 must have required property expr"),
]


class CustomResources(unittest.TestCase):
    manifests = list(rendered())

    def test_every_one_fits(self):
        self.assertEqual({manifest["kind"] for _, manifest in self.manifests}, run.CUSTOM_KINDS)
        for (installation, manifest), found in zip(self.manifests, problems([one for _, one in self.manifests]), strict=True):
            with self.subTest(installation, kind=manifest["kind"], name=manifest["metadata"]["name"]):
                self.assertEqual(found, [])

    def test_a_mistake_would_be_noticed(self):
        broken = []
        for kind, path, change, _ in MISTAKES:
            manifest = copy.deepcopy(next(one for _, one in self.manifests if one["kind"] == kind))
            holder = run.at(manifest, path)
            for key, value in change.items():
                holder.pop(key, None)
                if value is not None:
                    holder[key] = value
            broken.append(manifest)
        for (kind, path, change, words), found in zip(MISTAKES, problems(broken), strict=True):
            with self.subTest(f"{kind} {path} {change}"):
                self.assertIn(words, "\n".join(found))


if __name__ == "__main__":
    unittest.main(verbosity=1)
