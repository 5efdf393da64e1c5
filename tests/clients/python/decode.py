"""Stored bytes with a spliced resource version decode as the stored object plus that version.

usage: decode.py FOLDER   (the generated code is on PYTHONPATH)
"""

import importlib
import json
import pathlib
import sys

from forestay.api.v1 import object_pb2


def message_class(full_name):
    package, _, name = full_name.rpartition(".")
    return getattr(importlib.import_module(package + "_pb2"), name)


def check(facts_file):
    facts = json.loads(facts_file.read_text())
    case = str(facts_file)[: -len(".json")]
    read = lambda form: pathlib.Path(f"{case}.{form}.bin").read_bytes()
    stored, spliced = message_class(facts["message"])(), message_class(facts["message"])()
    stored.ParseFromString(read("stored"))
    spliced.ParseFromString(read("spliced"))

    meta = spliced.metadata
    assert meta.name == facts["name"] and len(meta.labels) == facts["labels"], f"{case}: metadata was lost"
    assert meta.resource_version == facts["resourceVersion"], f"{case}: resource version {meta.resource_version!r}"
    stored.metadata.resource_version = facts["resourceVersion"]
    assert stored == spliced, f"{case}: the objects differ"
    # What we write is what Python writes: fields in number order, nothing twice.
    assert spliced.SerializeToString(deterministic=True) == read("spliced"), f"{case}: Python writes other bytes"

    wrapped = object_pb2.Object()
    wrapped.ParseFromString(read("object"))
    arm = wrapped.WhichOneof("object")
    assert getattr(wrapped, arm) == spliced, f"{case}: the arm {arm} differs"


def main():
    cases = sorted(pathlib.Path(sys.argv[1]).glob("*.json"))
    assert cases, f"no cases in {sys.argv[1]}"
    for facts_file in cases:
        check(facts_file)
    print(f"python: {len(cases)} objects decode alike")


main()
