"""llama.cpp through its C interface: as many calls as it takes to time a decode step.

The shared libraries are those of any recent build. Prebuilt ones that hold a variant for every
kind of processor and choose the best are in the npm package @node-llama-cpp/linux-x64:

    npm pack @node-llama-cpp/linux-x64 && tar xzf node-llama-cpp-linux-x64-*.tgz
    pip install gguf            # writes the model
    ... --llama package/bins/linux-x64 --gguf model.gguf
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER, Structure, c_char, c_char_p, c_int32, c_uint32, c_void_p
from pathlib import Path
from typing import Any

from antiphon.runtime.errors import ConfigError

_BATCH = 512  # most tokens of one call


class _Params(Structure):
    """llama_model_params or llama_context_params: larger than either, passed and returned by value.

    Both lie in memory under the System V calling convention, so that the surplus is never read.
    """

    _fields_ = (("n_ctx", c_uint32), ("n_batch", c_uint32), ("rest", c_char * 1016))


class _Batch(Structure):
    """llama_batch."""

    _fields_ = (("n_tokens", c_int32), ("token", POINTER(c_int32)), ("others", c_void_p * 5))


_Log = CFUNCTYPE(None, c_int32, c_char_p, c_void_p)
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "llama_model_default_params": (_Params, []),
    "llama_context_default_params": (_Params, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, _Params]),
    "llama_model_n_layer": (c_int32, [c_void_p]),
    "llama_model_free": (None, [c_void_p]),
    "llama_init_from_model": (c_void_p, [c_void_p, _Params]),
    "llama_free": (None, [c_void_p]),
    "llama_set_n_threads": (None, [c_void_p, c_int32, c_int32]),
    "llama_batch_get_one": (_Batch, [POINTER(c_int32), c_int32]),
    "llama_decode": (c_int32, [c_void_p, _Batch]),
    "llama_synchronize": (None, [c_void_p]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_seq_rm": (ctypes.c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_print_system_info": (c_char_p, []),
    "llama_log_set": (None, [_Log, c_void_p]),
}


class LlamaCpp:
    """A model and one sequence of tokens."""

    def __init__(self, libraries: Path, model: Path, rows: int) -> None:
        """Load the libraries and the GGUF file `model`, with memory for `rows` tokens."""
        self._log: list[str] = []
        self._lib = lib = _load(libraries)
        self._listener = _Log(
            lambda level, text, user: self._log.append(text.decode("utf-8", "replace"))
        )
        lib.llama_log_set(self._listener, None)
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(bytes(model), lib.llama_model_default_params())
        if not self._model:
            raise ConfigError(
                f"{model}: llama.cpp cannot load it: {''.join(self._log[-5:]).strip()}"
            )
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch = rows, _BATCH
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise ConfigError(f"{model}: no context of {rows} tokens: {''.join(self._log[-5:])}")
        self.layers = int(lib.llama_model_n_layer(self._model))
        self.length = 0

    @property
    def system(self) -> str:
        """Which instructions the chosen kernels use."""
        return str(self._lib.llama_print_system_info().decode("ascii", "replace")).strip()

    @property
    def buffers(self) -> list[str]:
        """What it said about its memory: repacked weights show here."""
        return [line.strip() for line in self._log if "buffer size" in line]

    def threads(self, decode: int, prefill: int) -> None:
        """Threads of a call with one token, and of one with more."""
        self._lib.llama_set_n_threads(self._context, decode, prefill)

    def extend(self, length: int) -> None:
        """Run tokens until `length` of them are in memory, or forget the last ones."""
        if length < self.length:
            memory = self._lib.llama_get_memory(self._context)
            assert self._lib.llama_memory_seq_rm(memory, 0, length, -1)
            self.length = length
        while self.length < length:
            self._run(min(_BATCH, length - self.length))

    def step(self) -> None:
        """Run one token; its logits are there when this returns."""
        self._run(1)

    def _run(self, count: int) -> None:
        tokens = (c_int32 * count)(*((self.length + i) * 37 % 16000 for i in range(count)))
        status = self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(tokens, count))
        if status:
            raise ConfigError(f"llama.cpp: decode says {status}: {''.join(self._log[-5:]).strip()}")
        self._lib.llama_synchronize(self._context)
        self.length += count

    def close(self) -> None:
        """Free the memory."""
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)


def _load(folder: Path) -> Any:
    found = {name: sorted(folder.glob(f"lib{name}*.so*")) for name in ("llama", "ggml")}
    exact = {
        name: next((p for p in paths if p.name.startswith((f"lib{name}.so", f"lib{name}.v"))), None)
        for name, paths in found.items()
    }
    if exact["llama"] is None or exact["ggml"] is None:
        raise ConfigError(
            f"{folder}: no libllama and libggml there; see the top of benchmarks/llama_cpp.py for "
            "where to get them, or leave --llama out"
        )
    ggml = ctypes.CDLL(str(exact["ggml"]), ctypes.RTLD_GLOBAL)
    lib = ctypes.CDLL(str(exact["llama"]))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    ggml.ggml_backend_load_all_from_path(bytes(folder))
    return lib
