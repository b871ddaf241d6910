"""The component that ships is what its source says, byte for byte, and the node takes it."""

from __future__ import annotations

from vedette.functions.admit import read_component
from vedette.verification import probe


def test_the_component_is_assembled_of_its_source() -> None:
    assert probe.assembled() == probe.COMPONENT.read_bytes()


def test_the_node_admits_it() -> None:
    assert read_component(probe.COMPONENT).size < 16_384
