"""A small stand-in for a Kubernetes API server: enough for helm 3 and 4 to install, upgrade, roll back, test and remove.

It keeps objects in memory and answers discovery, create, read, replace, server-side apply, strategic and JSON merge
patches, delete, lists by label and field, and watches. Built-in kinds are checked against the real Kubernetes schemas.
Deployments, StatefulSets, Jobs and Pods are declared well at once, so that `--wait` ends.

What it does not do: run anything, fill in defaults, admit or refuse by policy, RBAC, quotas, garbage collection by owner
references, finalizers, field ownership beyond "what a manager applied before and does not any more goes away". Kinds of
CRDs (HTTPRoute, ServiceMonitor, PrometheusRule) are stored unchecked.
"""

import base64
import copy
import http.server
import json
import re
import socketserver
import threading
import time
import urllib.parse
import uuid

import yaml

import schemas

# API group and version → (plural, kind, is it in a namespace).
RESOURCES = {
    "v1": [
        ("namespaces", "Namespace", False), ("pods", "Pod", True), ("services", "Service", True),
        ("configmaps", "ConfigMap", True), ("secrets", "Secret", True), ("serviceaccounts", "ServiceAccount", True),
        ("events", "Event", True), ("persistentvolumeclaims", "PersistentVolumeClaim", True),
    ],
    "apps/v1": [
        ("deployments", "Deployment", True), ("replicasets", "ReplicaSet", True), ("statefulsets", "StatefulSet", True),
    ],
    "batch/v1": [("jobs", "Job", True)],
    "autoscaling/v2": [("horizontalpodautoscalers", "HorizontalPodAutoscaler", True)],
    "policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget", True)],
    "networking.k8s.io/v1": [("ingresses", "Ingress", True), ("networkpolicies", "NetworkPolicy", True)],
    "gateway.networking.k8s.io/v1": [("httproutes", "HTTPRoute", True)],
    "monitoring.coreos.com/v1": [
        ("servicemonitors", "ServiceMonitor", True), ("prometheusrules", "PrometheusRule", True),
    ],
}

# Lists that a strategic merge patch joins by a key; all others it replaces (from the API's `patchMergeKey` marks).
MERGE_KEYS = {
    "containers": ("name",), "initContainers": ("name",), "env": ("name",), "volumes": ("name",),
    "volumeMounts": ("mountPath",), "ports": ("containerPort", "port"), "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey",),
}


class Refusal(Exception):
    """An answer that is an error, as the API server words it."""

    def __init__(self, code, reason, message, details=None):
        super().__init__(message)
        self.code = code
        self.body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                     "reason": reason, "code": code, "details": details or {}}


def merge(target, patch):
    """RFC 7396."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value
    return target


def strategic_merge(target, patch):
    """Kubernetes' strategic merge patch, with the list keys of `MERGE_KEYS`."""
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    for key, value in patch.items():
        if key.startswith("$retainKeys"):
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.split("/", 1)[1]
            target[name] = [item for item in target.get(name, []) if item not in value]
        elif key.startswith("$setElementOrder/"):
            continue
        elif value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            target[key] = strategic_merge(target[key], value)
        elif isinstance(value, list) and key in MERGE_KEYS and all(isinstance(item, dict) for item in value):
            target[key] = merge_list(target.get(key) or [], value, MERGE_KEYS[key])
        else:
            target[key] = value
    if "$retainKeys" in patch:
        kept = patch["$retainKeys"]
        target = {key: value for key, value in target.items() if key in kept}
    for key, order in patch.items():
        if key.startswith("$setElementOrder/"):
            name = key.split("/", 1)[1]
            places = {identity(item, MERGE_KEYS.get(name, ())): place for place, item in enumerate(order)}
            target[name] = sorted(target.get(name, []), key=lambda item: places.get(
                identity(item, MERGE_KEYS.get(name, ())), len(places)))
    return target


def identity(item, keys):
    return next((item[key] for key in keys if key in item), None) if isinstance(item, dict) else item


def merge_list(target, patch, keys):
    for item in patch:
        found = next((known for known in target if identity(known, keys) == identity(item, keys)), None)
        if item.get("$patch") == "delete":
            target = [known for known in target if known is not found]
        elif found is None:
            target = [*target, item]
        else:
            target = [strategic_merge(known, item) if known is found else known for known in target]
    return target


def forget(target, before, now):
    """Removes what a manager applied before and does not any more."""
    for key, value in before.items():
        if key not in now:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(now[key], dict) and isinstance(target.get(key), dict):
            forget(target[key], value, now[key])


def records(data):
    """A protobuf message as (field, value) pairs; helm sends its release secrets so."""
    at, found = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = varint()
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            found.append((field, varint()))
        else:
            size = {1: 8, 5: 4}.get(kind) or varint()
            found.append((field, data[at:at + size]))
            at += size
    return found


def first(message, field, default=b""):
    return next((value for number, value in message if number == field), default)


def text_map(message, field, convert):
    entries = [records(value) for number, value in message if number == field]
    return {first(entry, 1).decode(): convert(first(entry, 2)) for entry in entries}


def from_protobuf(data):
    """A Secret or ConfigMap in Kubernetes' own protobuf envelope."""
    envelope = records(data[4:])
    kind = records(first(envelope, 1))
    raw = records(first(envelope, 2))
    meta = records(first(raw, 1))
    names = {1: "name", 2: "generateName", 3: "namespace", 5: "uid", 6: "resourceVersion"}
    metadata = {name: first(meta, field).decode() for field, name in names.items() if first(meta, field)}
    for field, name in ((11, "labels"), (12, "annotations")):
        metadata[name] = text_map(meta, field, bytes.decode)
    made = {"apiVersion": first(kind, 1).decode(), "kind": first(kind, 2).decode(), "metadata": metadata}
    if made["kind"] == "Secret":
        made["data"] = text_map(raw, 2, lambda value: base64.b64encode(value).decode())
        made["type"] = first(raw, 3, b"Opaque").decode()
    elif made["kind"] == "ConfigMap":
        made["data"] = text_map(raw, 2, bytes.decode)
    return made


class Store:
    """The objects, and what happened to them in order."""

    def __init__(self):
        self.objects, self.applied, self.log, self.version = {}, {}, [], 100
        self.changed = threading.Condition()
        for name in ("default", "kube-system"):
            self.put(("v1", "namespaces", "", name), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def put(self, key, item):
        with self.changed:
            old, meta = self.objects.get(key), item["metadata"]
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            known = old["metadata"] if old else {"uid": str(uuid.uuid4()), "creationTimestamp": now, "generation": 0}
            meta["uid"], meta["creationTimestamp"] = known["uid"], known["creationTimestamp"]
            is_new = old is None or old.get("spec") != item.get("spec")
            meta["generation"] = known["generation"] + (1 if is_new else 0)
            self.note("MODIFIED" if old else "ADDED", key, item)
            self.objects[key] = item
            well(item, now)
            if item["kind"] == "Deployment":
                self.put(("apps/v1", "replicasets", key[2], key[3] + "-1"), replica_set(item))
            return item

    def remove(self, key):
        with self.changed:
            item = self.objects.pop(key)
            self.applied = {known: value for known, value in self.applied.items() if known[0] != key}
            self.note("DELETED", key, item)
            replicas = ("apps/v1", "replicasets", key[2], key[3] + "-1")
            if key[1] == "deployments" and replicas in self.objects:
                self.remove(replicas)
            return item

    def note(self, what, key, item):
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.log.append((self.version, what, key, item))
        self.changed.notify_all()

    def listed(self, group, plural, namespace, query):
        with self.changed:
            return [item for key, item in self.objects.items()
                    if key[:2] == (group, plural) and namespace in (None, key[2]) and selected(item, query)]


def replica_set(deployment):
    """What helm 3 looks for to see that a Deployment is rolled out."""
    spec, meta = deployment["spec"], deployment["metadata"]
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"], "uid": meta["uid"], "controller": True}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": meta["name"] + "-1", "namespace": meta["namespace"], "ownerReferences": [owner],
                         "labels": spec["template"]["metadata"].get("labels", {})},
            "spec": {"replicas": spec.get("replicas", 1), "selector": spec["selector"],
                     "template": copy.deepcopy(spec["template"])}}


def well(item, now):
    """Sets the status that controllers would reach."""
    kind, meta = item["kind"], item["metadata"]
    count = (item.get("spec") or {}).get("replicas", 1)
    counts = {"observedGeneration": meta["generation"], "replicas": count, "readyReplicas": count,
              "availableReplicas": count, "updatedReplicas": count}
    condition = {"status": "True", "lastTransitionTime": now}
    if kind == "Deployment":
        item["status"] = counts | {"conditions": [
            condition | {"type": "Available", "reason": "MinimumReplicasAvailable"},
            condition | {"type": "Progressing", "reason": "NewReplicaSetAvailable"}]}
    elif kind in ("StatefulSet", "ReplicaSet"):
        item["status"] = counts | {"currentReplicas": count, "currentRevision": "1", "updateRevision": "1"}
    elif kind == "Pod":
        item["status"] = {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False", "reason": "PodCompleted"}]}
    elif kind == "Job":
        item["status"] = {"succeeded": 1, "startTime": now, "completionTime": now,
                          "conditions": [condition | {"type": "Complete"}]}
    elif kind == "PodDisruptionBudget":
        item["status"] = {"observedGeneration": meta["generation"], "currentHealthy": 1, "desiredHealthy": 1,
                          "expectedPods": 1, "disruptionsAllowed": 0}
    elif kind == "Service":
        item["spec"].setdefault("clusterIP", "10.0.0.1")
        item["status"] = {"loadBalancer": {}}


def selected(item, query):
    labels = item["metadata"].get("labels") or {}
    for part in filter(None, query.get("labelSelector", [""])[0].split(",")):
        if found := re.match(r"^([^!=]+)(==?|!=)(.*)$", part):
            if (labels.get(found[1].strip()) == found[3].strip()) == (found[2] == "!="):
                return False
        elif (part[1:] if part.startswith("!") else part) in labels == part.startswith("!"):
            return False
    for part in filter(None, query.get("fieldSelector", [""])[0].split(",")):
        path, _, wanted = part.partition("=")
        value = item
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if str(value) != wanted.lstrip("="):
            return False
    return True


def check(item):
    """The real schemas; kinds that they do not have are let through."""
    try:
        schemas.check(item)
    except schemas.Unfit as error:
        raise Refusal(422, "Invalid", str(error)) from error


def base_of(group):
    return "/api/v1" if group == "v1" else "/apis/" + group


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: without this each answer waits for an acknowledgement of the first.
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, body, code=200):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return from_protobuf(data) if data[:4] == b"k8s\0" else (yaml.safe_load(data) if data else {})

    def serve(self):
        target = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(target.query, keep_blank_values=True)
        try:
            if (found := self.discovery(target.path)) is not None:
                return self.answer(found)
            return self.resource(target.path, query)
        except Refusal as refusal:
            return self.answer(refusal.body, refusal.code)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def discovery(self, path):
        if path == "/version":
            return {"major": "1", "minor": schemas.VERSION.split(".")[1], "gitVersion": f"v{schemas.VERSION}.0", "platform": "linux/amd64"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        if path == "/apis":
            groups = [group.split("/") for group in RESOURCES if group != "v1"]
            versions = [{"groupVersion": f"{name}/{version}", "version": version} for name, version in groups]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": name, "versions": [version], "preferredVersion": version}
                for (name, _), version in zip(groups, versions)]}
        if path == "/openapi/v3":
            return {"paths": {base_of(group)[1:]: {"serverRelativeURL": f"/openapi/v3{base_of(group)}?hash=1"}
                              for group in RESOURCES}}
        for group, resources in RESOURCES.items():
            if path == base_of(group):
                return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": [
                    {"name": plural, "singularName": kind.lower(), "namespaced": is_inside, "kind": kind,
                     "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"]}
                    for plural, kind, is_inside in resources]}
            if path == "/openapi/v3" + base_of(group):
                return self.openapi(group, resources)
        return None

    @staticmethod
    def openapi(group, resources):
        """No schemas: only that server-side apply and field validation are there."""
        name, _, version = group.rpartition("/")
        paths = {}
        for plural, kind, is_inside in resources:
            place = f"{base_of(group)}/{'namespaces/{namespace}/' if is_inside else ''}{plural}/{{name}}"
            paths[place] = {"patch": {
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}], "responses": {},
                "x-kubernetes-group-version-kind": {"group": name, "kind": kind, "version": version}}}
        return {"openapi": "3.0.0", "info": {"title": "stand-in", "version": "v1"}, "paths": paths, "components": {}}

    def resource(self, path, query):
        for group, resources in RESOURCES.items():
            if not path.startswith(base_of(group) + "/"):
                continue
            parts, namespace = path[len(base_of(group)) + 1:].split("/"), None
            if parts[0] == "namespaces" and len(parts) >= 3:
                namespace, parts = parts[1], parts[2:]
            row = next((row for row in resources if row[0] == parts[0]), None)
            if row and parts[2:] == ["log"]:
                return self.answer("ready")
            if row:
                return self.rest(group, row, namespace, parts[1] if len(parts) > 1 else None, query)
        raise Refusal(404, "NotFound", "the server could not find the requested resource")

    def rest(self, group, row, namespace, name, query):
        plural, kind, is_inside = row
        store, is_dry = self.server.store, "dryRun" in query
        body = self.body() if self.command != "GET" else None
        if self.command == "GET" and name is None:
            if query.get("watch", [""])[0] in ("1", "true"):
                return self.watch(group, row, namespace, query)
            items = store.listed(group, plural, namespace, query)
            return self.answer({"kind": kind + "List", "apiVersion": group, "items": items,
                                "metadata": {"resourceVersion": str(store.version)}})
        if self.command == "POST":
            meta = body["metadata"]
            name = meta.setdefault("name", meta.get("generateName", "") + uuid.uuid4().hex[:5])
        key = (group, plural, namespace or "", name)
        known = store.objects.get(key)
        if known is None and self.command in ("GET", "PUT", "DELETE"):
            raise Refusal(404, "NotFound", f'{plural} "{name}" not found', {"name": name, "kind": plural})
        if self.command == "GET":
            return self.answer(known)
        if self.command == "DELETE":
            store.remove(key)
            return self.answer({"kind": "Status", "apiVersion": "v1", "status": "Success",
                                "details": {"name": name, "kind": plural, "uid": known["metadata"]["uid"]}})
        made = self.made(store, key, known, body)
        made.setdefault("apiVersion", group)
        made.setdefault("kind", kind)
        if is_inside:
            made["metadata"]["namespace"] = namespace
            if ("v1", "namespaces", "", namespace) not in store.objects:
                raise Refusal(404, "NotFound", f'namespaces "{namespace}" not found')
        check({field: value for field, value in made.items() if field != "status"})
        return self.answer(made if is_dry else store.put(key, made), 201 if known is None else 200)

    def made(self, store, key, known, body):
        """The object that a write leaves behind."""
        if self.command == "POST":
            if known is not None:
                raise Refusal(409, "AlreadyExists", f'{key[1]} "{key[3]}" already exists')
            return body
        if self.command == "PUT":
            if body["metadata"].get("resourceVersion", known["metadata"]["resourceVersion"]) \
                    != known["metadata"]["resourceVersion"]:
                raise Refusal(409, "Conflict", "the object has been modified; apply your changes to the latest version")
            return body
        kind, made = self.headers.get("Content-Type", ""), copy.deepcopy(known)
        if "apply-patch" in kind:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            manager = (key, query.get("fieldManager", [""])[0])
            check(body)
            made = made or {"metadata": {}}
            forget(made, store.applied.get(manager, {}), body)
            if "dryRun" not in query:
                store.applied[manager] = copy.deepcopy(body)
            return merge(made, copy.deepcopy(body))
        if known is None:
            raise Refusal(404, "NotFound", f'{key[1]} "{key[3]}" not found')
        if "strategic-merge-patch" in kind:
            return strategic_merge(made, body)
        if "merge-patch" in kind:
            return merge(made, body)
        raise Refusal(415, "UnsupportedMediaType", f"the stand-in takes no {kind}")

    def watch(self, group, row, namespace, query):
        store, plural, kind = self.server.store, row[0], row[1]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def send(what, item):
            line = json.dumps({"type": what, "object": item}).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()

        since = query.get("resourceVersion", ["0"])[0]
        last = int(since or 0)
        end = time.monotonic() + float(query.get("timeoutSeconds", ["300"])[0])
        try:
            if query.get("sendInitialEvents", [""])[0] == "true" or since in ("", "0"):
                with store.changed:
                    last, items = store.version, store.listed(group, plural, namespace, query)
                for item in items:
                    send("ADDED", item)
                send("BOOKMARK", {"kind": kind, "apiVersion": group, "metadata": {
                    "resourceVersion": str(last), "annotations": {"k8s.io/initial-events-end": "true"}}})
            while time.monotonic() < end:
                with store.changed:
                    store.changed.wait_for(lambda: store.version > last, timeout=0.5)
                    news, last = [entry for entry in store.log if entry[0] > last], store.version
                for _, what, key, item in news:
                    if key[:2] == (group, plural) and namespace in (None, key[2]) and selected(item, query):
                        send(what, item)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass
        self.close_connection = True


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """The stand-in on a free port of loopback, until the process ends."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.store = Store()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def kubeconfig(self):
        cluster = {"server": f"http://127.0.0.1:{self.server_port}"}
        return {"apiVersion": "v1", "kind": "Config", "current-context": "stand-in",
                "clusters": [{"name": "stand-in", "cluster": cluster}], "users": [{"name": "helm", "user": {"token": "x"}}],
                "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "helm", "namespace": "default"}}]}
