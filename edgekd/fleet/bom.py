"""The ML-BOM of a release, CycloneDX 1.6: the model, its data's checksum, its teacher, tools, licence.

Nothing in it depends on when or where it was written: the same model gives the same bytes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekd.errors import ArtifactError, ConfigError

SPEC = "1.6"
FILE = "bom.cdx.json"
NAMESPACE = uuid.UUID("6c0e1c0a-6d0f-5d0a-9b7e-0d3a2d2f7c11")  # of serial numbers: any fixed one


@dataclass(frozen=True)
class Origin:
    """Something that the model was made from: its name, the SHA-256 that vouches for it, what is known."""

    name: str
    sha256: str
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What a BOM says. model: its file's SHA-256 and how it was made; data, teachers: none or several;
    tools: name -> version; licence: an SPDX id or expression, or the name of another."""

    name: str
    version: str
    model: Origin
    data: tuple[Origin, ...]
    teachers: tuple[Origin, ...]
    tools: Mapping[str, str]
    licence: str


def write_bom(facts: Facts) -> bytes:
    """The BOM as JSON. Raises ConfigError where no licence is named, ArtifactError where no data are."""
    if not facts.licence:
        raise ConfigError("no licence is named for the model; add --licence SPDX-ID (or its name)")
    if not facts.data:
        raise ArtifactError(
            f"{facts.name}: the data that it was trained with are not known here; add --bom FILE with them"
        )
    from cyclonedx.model.bom import Bom
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    bom = Bom(serial_number=uuid.uuid5(NAMESPACE, facts.model.sha256 + facts.version))
    _describe(bom, facts)
    made = json.loads(
        make_outputter(bom, OutputFormat.JSON, SchemaVersion.from_version(SPEC)).output_as_string()
    )
    made["metadata"].pop("timestamp", None)
    data = (json.dumps(made, indent=1, sort_keys=True) + "\n").encode()
    check_bom(data, facts.name)
    return data


def _describe(bom: Any, facts: Facts) -> None:
    """Fill the BOM: the model as its subject; data and teachers as what it depends on; tools."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.component import ComponentType
    from cyclonedx.model.tool import ToolRepository

    licence = LicenseFactory().make_from_string(facts.licence)
    subject = _component(facts.model, ComponentType.MACHINE_LEARNING_MODEL, facts.version, [licence])
    data = [_component(each, ComponentType.DATA) for each in facts.data]
    teachers = [_component(each, ComponentType.MACHINE_LEARNING_MODEL) for each in facts.teachers]
    bom.metadata.component = subject
    bom.metadata.tools = ToolRepository(components=_tools(facts.tools))
    for each in (*data, *teachers):
        bom.components.add(each)
    bom.register_dependency(subject, [*data, *teachers])
    for teacher in teachers:
        bom.register_dependency(teacher, data)


def _component(origin: Origin, kind: Any, version: str | None = None, licences: Iterable[Any] = ()) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component

    return Component(
        name=origin.name,
        type=kind,
        version=version,
        bom_ref=f"{kind.value}:{origin.sha256}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=origin.sha256)],
        licenses=licences,
        properties=[Property(name=f"edgekd:{k}", value=v) for k, v in sorted(origin.properties.items())],
    )


def _tools(tools: Mapping[str, str]) -> list[Any]:
    from cyclonedx.model.component import Component, ComponentType

    return [
        Component(name=name, version=version, type=ComponentType.APPLICATION, bom_ref=f"tool:{name}")
        for name, version in sorted(tools.items())
    ]


def check_bom(data: bytes, where: str) -> None:
    """Raise ArtifactError where a BOM is no CycloneDX, or lacks what a release needs of it."""
    mend = "give a CycloneDX ML-BOM in JSON"
    try:
        table = json.loads(data)
        known = table["bomFormat"] == "CycloneDX" and str(table["specVersion"]) >= "1.5"
        subject = table["metadata"]["component"]
        parts = table.get("components", [])
        kind, licences = subject["type"], subject.get("licenses")
        sets = [each for each in parts if each["type"] == "data" and _has_hash(each)]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ArtifactError(f"{where}: the ML-BOM is damaged or says nothing of a model; {mend}") from None
    if not known:
        raise ArtifactError(f"{where}: the ML-BOM is no CycloneDX of 1.5 or later; {mend}")
    if kind != "machine-learning-model" or not _has_hash(subject):
        raise ArtifactError(f"{where}: the ML-BOM's subject is no model with its SHA-256; {mend}")
    if not licences:
        raise ArtifactError(f"{where}: the ML-BOM names no licence of the model; {mend}")
    if not sets:
        raise ArtifactError(f"{where}: the ML-BOM names no data with their SHA-256; {mend}")


def _has_hash(component: Mapping[str, Any]) -> bool:
    return any(each["alg"] == "SHA-256" for each in component.get("hashes", []))
