"""What real tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.images import Image, built
from tests.support.llama import Tiny, trained
from tests.support.triton import Triton, running_triton

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """Guard's image, built from deploy/docker/Dockerfile."""
    with built() as made:
        yield made


@pytest.fixture(scope="session")
def model_image() -> Iterator[Image]:
    """The image of deploy/compose.yaml's model."""
    with built("model") as made:
        yield made


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A running Triton with the models of tests/real/servers/triton/serve.py."""
    with running_triton(tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_model() -> Tiny:
    """The tiny GPT-2 with canaries; trained the first time, some 15 seconds of one core."""
    return trained()
