"""The schemas for editors: those of the code, and true of every shipped file."""

from __future__ import annotations

import json
import re

import pytest

from deit_ablate import files
from deit_ablate.sweep.schema import SCHEMAS


@pytest.mark.parametrize(
    ("kind", "path"), [("sweep", "sweep.schema.json"), ("profile", "profiles/profile.schema.json")]
)
def test_the_schemas_are_those_of_the_code(kind: str, path: str) -> None:
    stored = json.loads((files.shipped("sweeps") / path).read_text())
    assert stored == json.loads(json.dumps(SCHEMAS[kind]())), "stale: `make names` writes it anew"


def test_an_editor_would_accept_every_shipped_file() -> None:
    from jsonschema import Draft202012Validator

    from deit_ablate.sweep.yaml import load

    validators = {kind: Draft202012Validator(SCHEMAS[kind]()) for kind in ("sweep", "profile")}
    for validator in validators.values():
        validator.check_schema(validator.schema)
    for path in files.shipped("sweeps").rglob("*.yaml"):
        kind = "profile" if path.parent.name == "profiles" else "sweep"
        validators[kind].validate(load(path).plain())
        named = re.match(r"# yaml-language-server: \$schema=(\S+)", path.read_text())
        assert named
        assert (path.parent / named[1]).exists()
    assert not validators["sweep"].is_valid({"recipe": {"optimizer": {"bas_lr": 1}}, "variants": {"a": {}}})
