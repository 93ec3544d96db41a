"""Markers that need something of the machine: each has a probe, which gives the reason to skip."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from tiny_session import make_bundle

from antiphon.runtime.bundle import Bundle

# A shared machine may stall for longer than any deadline on a single example. Examples are the same
# every time, so a red run is always about the change; `--hypothesis-profile explore` draws others.
settings.register_profile("antiphon", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile("antiphon")


def no_gpu(config: pytest.Config) -> str | None:
    """Why no CUDA engine can run here, or None."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no CUDA driver on this machine"
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return "onnxruntime has no CUDA provider; install the cuda extra instead of cpu"
    return None


def no_audio_device(config: pytest.Config) -> str | None:
    """Why nothing can be recorded or played here, or None."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: PortAudio itself is missing
        return f"sounddevice does not load: {error}"
    try:
        for kind in ("input", "output"):
            sounddevice.query_devices(kind=kind)
    except (sounddevice.PortAudioError, ValueError) as error:
        return f"no sound device: {error}"
    return None


def no_real_weights(config: pytest.Config) -> str | None:
    """Why the published checkpoint cannot be used, or None."""
    folder = config.getoption("--real-weights")
    if folder is None:
        return "name the checkpoint with --real-weights FOLDER"
    return None if folder.is_dir() else f"{folder} is not a folder"


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A whole bundle with random weights, for every test of the conversation. Never written to."""
    return make_bundle(tmp_path_factory.mktemp("random"))


PROBES: dict[str, Callable[[pytest.Config], str | None]] = {
    "gpu": no_gpu,
    "audio_device": no_audio_device,
    "real_weights": no_real_weights,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real-weights", type=Path, help="folder of the published checkpoint")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, probe in PROBES.items():
        if item.get_closest_marker(marker) and (reason := probe(item.config)):
            pytest.skip(reason)


@pytest.fixture(scope="session")
def real_weights(request: pytest.FixtureRequest) -> Path:
    """Folder of the published checkpoint; for tests marked real_weights."""
    return request.config.getoption("--real-weights")
