"""The only file that knows ONNX Runtime: engines, and the buffers they read and write in place."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from .errors import AntiphonError, BundleError, CapacityError, ConfigError
from .tensors import TensorSpec

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
IN_PLACE = "_out"  # the output `key_0_out` shares the memory of the input `key_0`
WARNING, ERROR = 2, 3  # log levels of the library

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    MemoryError,
    *(e for e in vars(ort_state).values() if isinstance(e, type) and issubclass(e, Exception)),
)
_NO_MEMORY = ("allocate memory", "bad_alloc", "bad allocation", "out of memory", "ALLOC_FAILED")
_MAX_BINDINGS = 32  # one per set of caches; a flow decoder has ten


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def give_back_heap() -> None:
    """Return freed memory to the system; glibc would keep it. Takes 0.2 ms in a process of nano's.

    Repacking the weights takes as much memory again as they do, and blocks of ever new sizes
    leave holes between each other.
    """
    trim = getattr(_c_library(), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class Buffer:
    """One tensor of an engine's state: zeros at first, changed in place by the engines.

    device  "cpu" or "cuda"
    Raises CapacityError when there is no memory for it.
    """

    def __init__(self, shape: Sequence[int], dtype: DTypeLike, device: str = "cpu") -> None:
        try:
            zeros = np.zeros(shape, dtype)
            self.value = ort.OrtValue.ortvalue_from_numpy(zeros, device)
        except _ERRORS as error:
            raise CapacityError(
                f"no memory for state of {list(shape)} {dtype} on {device} ({_one_line(error)}); "
                "remember fewer rows, take shorter turns, or close other programs"
            ) from error
        self.nbytes = zeros.nbytes
        # On the CPU the engine works in numpy's own memory; elsewhere numpy only sees copies.
        self._memory = zeros if device == "cpu" else None

    def numpy(self) -> NDArray[Any]:
        """The contents: the memory itself on the CPU, a copy on any other device."""
        if self._memory is not None:
            return self._memory
        copy: NDArray[Any] = self.value.numpy()
        return copy

    def set_rows(self, rows: NDArray[Any]) -> None:
        """Overwrite the first rows of axis 2 with rows [B, G, n, D]."""
        contents = self.numpy()
        contents[:, :, : rows.shape[2]] = rows
        if self._memory is None:
            self.value.update_inplace(contents)


class Cache(Protocol):
    """State that an engine reads as input `name` and writes as output `name_out`, in place."""

    @property
    def buffers(self) -> Mapping[str, Buffer]:
        """By input name. A new mapping whenever a buffer in it is replaced."""


class Engine:
    """One compiled graph. Weights inside, state outside: `run` changes nothing but the caches."""

    def __init__(self, name: str, session: ort.InferenceSession) -> None:
        self.name = name
        self._session = session
        self.inputs = {s.name: s for s in _specs(name, session.get_inputs())}
        self.outputs = {s.name: s for s in _specs(name, session.get_outputs())}
        self._bindings: dict[tuple[int, ...], _Binding] = {}

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        threads: int = 1,
        exact: bool = False,
        providers: Sequence[str] = (CPU,),
        log_level: int = ERROR,
    ) -> Self:
        """Compile the graph at `path`.

        exact   quantized products with float activations (parity) instead of int8 ones (speed)
        Raises ConfigError when a provider cannot be had, BundleError when the file is no good,
        CapacityError when there is no memory for it.
        """
        missing = sorted(set(providers) - set(ort.get_available_providers()))
        if missing:
            raise _no_provider(missing, ort.get_available_providers())
        try:
            session = ort.InferenceSession(
                str(path), _options(threads, exact, log_level), providers=list(providers)
            )
        except _ERRORS as error:
            what = f"{path.name}: onnxruntime {ort.__version__} cannot load this engine"
            raise _failure(what, error) from error
        missing = sorted(set(providers) - set(session.get_providers()))
        if missing:
            raise _no_provider(missing, session.get_providers())
        give_back_heap()
        return cls(path.stem, session)

    @property
    def device(self) -> str:
        """Where the caches of this engine must live: "cpu" or "cuda"."""
        return "cuda" if CUDA in self._session.get_providers() else "cpu"

    def run(
        self, feeds: Mapping[str, NDArray[Any]], caches: Sequence[Cache] = ()
    ) -> dict[str, NDArray[Any]]:
        """Run once; returns the outputs that are not caches, by name.

        Feeds are converted to the declared dtype. Names and ranks are ours to get right
        (assert); sizes come from the bundle, so a mismatch raises BundleError. CapacityError when
        memory is short.
        """
        binding = self._bind(caches)
        missing = self.inputs.keys() - binding.cached - feeds.keys()
        unknown = feeds.keys() - self.inputs.keys()
        assert not unknown, f"{self.name}: unknown {unknown}"
        assert not missing, f"{self.name}: missing {missing}"
        try:
            for name, value in feeds.items():
                spec = self.inputs[name]
                assert value.ndim == len(spec.shape), f"{self.name}: {name} is {value.shape}"
                binding.io.bind_cpu_input(name, np.ascontiguousarray(value, spec.dtype))
            for name in binding.outputs:  # anew: a bound output keeps the shape of its last run
                binding.io.bind_output(name)
            self._session.run_with_iobinding(binding.io)
        except _ERRORS as error:
            raise _failure(f"{self.name}: the engine failed", error) from error
        values = binding.io.get_outputs_as_ortvaluevector()  # in bind order
        first = len(binding.cached)
        return {name: values[first + i].numpy() for i, name in enumerate(binding.outputs)}

    def _bind(self, caches: Sequence[Cache]) -> _Binding:
        """The binding of these caches. Binding is slower than a small engine, so it is kept."""
        held = [cache.buffers for cache in caches]
        key = tuple(map(id, caches))
        binding = self._bindings.get(key)
        if binding is None or any(a is not b for a, b in zip(binding.held, held, strict=True)):
            self._bindings.pop(key, None)
            if len(self._bindings) >= _MAX_BINDINGS:
                self._bindings.pop(next(iter(self._bindings)))
            binding = self._bindings[key] = _Binding(self, held)
        return binding


class _Binding:
    """Caches bound once as input and output, so that scattering into them copies nothing."""

    def __init__(self, engine: Engine, held: list[Mapping[str, Buffer]]) -> None:
        self.held = held
        self.io = engine._session.io_binding()
        self.cached: set[str] = set()
        for buffers in held:
            for name, buffer in buffers.items():
                assert name in engine.inputs, f"{engine.name} has no cache {name}"
                self.io.bind_ortvalue_input(name, buffer.value)
                self.io.bind_ortvalue_output(name + IN_PLACE, buffer.value)
                self.cached.add(name)
        in_place = {name + IN_PLACE for name in self.cached}
        self.outputs = [name for name in engine.outputs if name not in in_place]


def _options(threads: int, exact: bool, log_level: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = log_level
    # Spinning threads would steal the cores that audio and the other engines need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(
        "session.qdq_matmulnbits_accuracy_level", "0" if exact else "4"
    )
    return options


def _specs(engine: str, nodes: Sequence[Any]) -> list[TensorSpec]:
    for node in nodes:
        if node.type not in _DTYPES:
            raise BundleError(
                f"{engine}: {node.name} has type {node.type}, expected one of {sorted(_DTYPES)}; "
                "export the bundle again"
            )
    return [
        TensorSpec(name=n.name, dtype=_DTYPES[n.type], shape=tuple(d or "?" for d in n.shape))
        for n in nodes
    ]


def _failure(what: str, error: Exception) -> AntiphonError:
    """The engine library tells an unusable file from a full memory by words only."""
    words = _one_line(error)
    if isinstance(error, MemoryError) or any(sign in words for sign in _NO_MEMORY):
        return CapacityError(
            f"{what}, out of memory: {words}; use a smaller model, remember fewer rows, or close "
            "other programs"
        )
    return BundleError(f"{what}: {words}; export the bundle again")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _no_provider(missing: list[str], got: list[str]) -> ConfigError:
    return ConfigError(
        f"{', '.join(missing)} cannot be used here, only {', '.join(got)}; install the extra for "
        "your device (antiphon[cuda] without antiphon[cpu]) or choose target cpu"
    )
