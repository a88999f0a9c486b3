"""The API description of `tidegate dev`: valid for openapi-spec-validator, and true for schemathesis on all routes.

Routes that only stream are asked by this script, with requests that schemathesis makes: a watch never ends, so that a
few events are read and compared with what the description says of them.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import jsonschema
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from openapi_spec_validator import OpenAPIV31SpecValidator

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEED = 20_261_124
VERBS = ("get", "head", "post", "put", "patch", "delete")
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,allow_header_conformance,unsupported_method,missing_required_header,"
    "negative_data_rejection"
)
# Any request may have headers that nobody reads: no finding.
CONFIG = "[generation]\nallow-extra-parameters = false\n"
# Events that are read of a stream, and how long the next one is waited for, in seconds.
EVENTS, SILENCE = 2, 0.5


@contextlib.contextmanager
def dev():
    """A running `tidegate dev` on free ports: where it listens, where its admin port is."""
    program = ROOT / "target/debug/tidegate"
    ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--routes", "built-in"]
    child = subprocess.Popen([program, "dev", *ports], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for line in child.stderr:
            fields = json.loads(line).get("fields", {}) if line.startswith("{") else {}
            if fields.get("message") == "gateway ready":
                admin = fields["admin"].removeprefix("Some(").removesuffix(")")
                break
        else:
            sys.exit("`tidegate dev` did not start")
        # Its pipe is read to the end, or it would wait for us.
        drain = subprocess.Popen(["cat"], stdin=child.stderr, stdout=subprocess.DEVNULL)
        yield f"http://{fields['listen']}", f"http://{admin}"
        assert child.poll() is None, "`tidegate dev` ended under the requests"
        drain.terminate()
    finally:
        child.terminate()
        child.wait()


def requests_as_taken(description):
    """Request bodies as loose as ProtoJSON takes them: `null` for an absent field, 64-bit integers as numbers, too."""
    schemas = description["components"]["schemas"]

    def loose(schema):
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            taken = f"{name}.taken"
            if not name.startswith("google.protobuf.") and taken not in schemas:
                schemas[taken] = {}
                schemas[taken] = loose(schemas[name])
            return schema if name.startswith("google.protobuf.") else {"$ref": f"#/components/schemas/{taken}"}
        schema = dict(schema)
        if schema.get("format") in ("int64", "uint64"):
            schema["type"] = ["string", "integer"]
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), dict):
                schema[key] = loose(schema[key])
        for name, member in schema.get("properties", {}).items():
            schema["properties"] = {**schema["properties"], name: {"anyOf": [loose(member), {"type": "null"}]}}
        return schema

    for item in description["paths"].values():
        for verb in VERBS:
            content = item.get(verb, {}).get("requestBody", {}).get("content", {}).get("application/json")
            if content:
                content["schema"] = loose(content["schema"])


def streams(description):
    """Operations that answer with events alone: id, path, verb."""
    for path, item in description["paths"].items():
        for verb in VERBS:
            content = item.get(verb, {}).get("responses", {}).get("200", {}).get("content", {})
            if "text/event-stream" in content and "application/json" not in content:
                yield item[verb]["operationId"], path, verb


def events(answer):
    """The first events of a stream as (name, data)."""
    name, data, count = "", [], 0
    with contextlib.suppress(requests.exceptions.ConnectionError):
        for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
            if line.startswith("event:"):
                name = line.removeprefix("event:").strip()
            elif line.startswith("data:"):
                data.append(line.removeprefix("data:").lstrip())
            elif not line and data:
                yield name, json.loads("\n".join(data))
                name, data, count = "", [], count + 1
                if count == EVENTS:
                    return


def stream_cases(description, base, operation, path, verb, examples):
    """Sends requests to one stream; every answer must be one that the description knows."""
    schema = {"components": description["components"]}
    responses = description["paths"][path][verb]["responses"]
    kinds = responses["200"]["content"]["text/event-stream"]["x-itemSchema"]["oneOf"]
    by_name = {kind["properties"].get("event", {}).get("const", ""): kind for kind in kinds}
    seen = collections.Counter()

    @seed(SEED)
    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def check(case):
        sent = case.as_transport_kwargs(base_url=base)
        try:
            answer = requests.request(**sent, stream=True, timeout=(5, SILENCE))
        except requests.exceptions.ReadTimeout:
            # A watch on which nothing happens: no head is sent before the first event.
            seen["silent"] += 1
            return
        with answer:
            told = f"{verb.upper()} {answer.request.url}"
            assert answer.status_code < 500, f"{told}: {answer.status_code} {answer.text}"
            if answer.status_code == 204:
                return
            if answer.status_code != 200:
                assert str(answer.status_code) in responses, f"{told}: {answer.status_code} is not described"
                return
            assert answer.headers["content-type"] == "text/event-stream", told
            seen["opened"] += 1
            for name, data in events(answer):
                kind = by_name[name]["properties"]["data"]["contentSchema"]
                jsonschema.validate(data, {**schema, **kind}, jsonschema.Draft202012Validator)
                assert name != "error" or data["error"]["code"] not in ("INTERNAL", "UNKNOWN"), f"{told}: {data}"
                seen["events"] += 1

    check()
    return seen


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=10, help="requests a route beyond the systematic ones")
    examples = parser.parse_args().examples
    warnings.simplefilter("ignore")
    with dev() as (base, admin), tempfile.TemporaryDirectory() as folder:
        description = requests.get(f"{admin}/openapi.json", timeout=10).json()
        OpenAPIV31SpecValidator(description).validate()
        print(f"valid OpenAPI {description['openapi']}: {len(description['paths'])} paths")
        # A request's own timeout of a millisecond is answered with 504, as it should be: it is not sent.
        timeout = {"$ref": "#/components/parameters/TimeoutMs"}
        for operation in (item[verb] for item in description["paths"].values() for verb in VERBS if verb in item):
            operation["parameters"].remove(timeout)
        requests_as_taken(description)
        only_streams = list(streams(description))
        config, file = pathlib.Path(folder, "schemathesis.toml"), pathlib.Path(folder, "openapi.json")
        config.write_text(CONFIG)
        file.write_text(json.dumps(description))
        excluded = [word for row in only_streams for word in ("--exclude-operation-id", row[0])]
        command = [
            pathlib.Path(sys.executable).parent / "schemathesis", "--config-file", config, "run",
            file, "--url", base, "--checks", CHECKS, "--phases", "coverage,fuzzing",
            "--max-examples", str(examples), "--workers", "1", "--seed", str(SEED), "--request-timeout", "20",
            "--continue-on-failure", "--no-shrink", "--warnings", "off", "--generation-database", "none", *excluded,
        ]
        result = subprocess.run(command, cwd=folder, check=False, text=True, capture_output=True)
        print(result.stdout[-20_000:] if result.returncode else result.stdout[result.stdout.find("=== SUMMARY"):])
        if result.returncode:
            sys.exit(result.returncode)
        schema = schemathesis.openapi.from_dict(description)
        totals = collections.Counter()
        for _, path, verb in only_streams:
            totals += stream_cases(description, base, schema[path][verb.upper()], path, verb, max(5, examples // 2))
        print(f"{len(only_streams)} routes that stream: {dict(totals)}, all as described")
        assert min(totals["opened"], totals["events"]) > len(only_streams) // 3, "too few streams were opened"


if __name__ == "__main__":
    main()
