"""One checkpoint of the published layout for all tests of this folder. Never written to."""

import lookalike
import pytest
import torch


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Folder of a small look-alike; its name has a space and letters outside ASCII."""
    torch.set_num_threads(1)
    return lookalike.make_lookalike(tmp_path_factory.mktemp("checkpoint") / "Modell für 你好")
