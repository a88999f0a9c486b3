"""The real Kubernetes schemas, unknown fields refused: the files of PyPI's `kubernetes-validate`, each read once."""

import functools
import importlib.resources
import json
import re

import jsonschema
import referencing

FILES = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
VERSION = "1.37"


class Unfit(Exception):
    """A manifest that its schema refuses; the text says where and why."""


@functools.cache
def folder(version):
    """The one of that minor version."""
    [found] = [entry for entry in FILES.iterdir() if re.fullmatch(rf"v{re.escape(version)}\.\d+-local-strict", entry.name)]
    return found


@functools.cache
def definitions(version):
    text = (folder(version) / "_definitions.json").read_text()
    return referencing.Resource.from_contents(json.loads(text)) @ referencing.Registry()


@functools.cache
def validator(version, kind, api_version):
    """None where Kubernetes itself has no such kind."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    file = folder(version) / f"{kind.lower()}-{group}.json"
    if not file.is_file():
        return None
    schema = json.loads(file.read_text())
    return jsonschema.Draft202012Validator(schema, registry=definitions(version))


def check(manifest, version=VERSION):
    """Whether there is a schema for it at all. Fails with `Unfit` where it does not fit."""
    found = validator(version, manifest["kind"], manifest["apiVersion"])
    if found is None:
        return False
    if error := jsonschema.exceptions.best_match(found.iter_errors(manifest)):
        where = ".".join(map(str, error.absolute_path))
        raise Unfit(f"{manifest['kind']} {manifest['metadata'].get('name')}: {where}: {error.message}")
    return True
