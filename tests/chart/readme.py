"""Writes charts/tidegate/README.md: its head stays, the table of values comes from the `# --` comments of values.yaml."""

import json
import pathlib
import re
import sys

import yaml

MARK = "## Values\n"


def written(chart):
    """The README as it should be. Fails where a value has no description, or a description no value."""
    text = (chart / "README.md").read_text()
    head, mark, _ = text.partition(MARK)
    if not mark:
        raise SystemExit(f"{chart / 'README.md'} has no `{MARK.strip()}`")
    source = (chart / "values.yaml").read_text()
    described = descriptions(source)
    leaves = list(leaves_of(yaml.safe_load(source), (), described))
    if lost := set(described) - {path for path, _ in leaves}:
        raise SystemExit(f"described, but no value: {sorted(lost)}")
    rows = [f"| `{'.'.join(path)}` | {shown(value)} | {described[path]} |\n" for path, value in leaves]
    return f"{head}{MARK}\n| Key | Default | Description |\n|---|---|---|\n{''.join(rows)}"


def descriptions(source):
    """Path of keys → the comment above it."""
    found, comment, path = {}, [], []
    for line in source.splitlines():
        text = line.strip()
        if text.startswith("# -- "):
            comment = [text[5:]]
        elif text.startswith("# ") and comment:
            comment.append(text[2:])
        elif key := re.match(r"^( *)([A-Za-z]\w*):", line):
            depth = len(key[1]) // 2
            path = [*path[:depth], key[2]]
            if comment:
                found[tuple(path)] = " ".join(comment).replace("|", "\\|")
            comment = []
        else:
            comment = []
    return found


def leaves_of(value, path, described):
    if path in described:
        yield path, value
    elif isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves_of(inner, (*path, key), described)
    else:
        raise SystemExit(f"values.yaml: `{'.'.join(path)}` has no description (a comment that begins with `# --`)")


def shown(value):
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if len(text) <= 80 else "see values.yaml"


if __name__ == "__main__":
    chart = pathlib.Path(sys.argv[1])
    (chart / "README.md").write_text(written(chart))
