"""Results are written whole or not at all."""

import json

import pytest

from antiphon.apps.results import write_json
from antiphon.runtime.errors import ConfigError


def test_numbers_are_written(tmp_path):
    write_json(tmp_path / "found.json", {"points": 0.5})
    assert json.loads((tmp_path / "found.json").read_text()) == {"points": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_a_file_that_cannot_be_replaced_is_named_and_nothing_is_left(tmp_path):
    (tmp_path / "found.json").mkdir()
    with pytest.raises(ConfigError, match=r"found\.json: cannot be written: "):
        write_json(tmp_path / "found.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
