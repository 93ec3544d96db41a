"""Speech codes to mel frames, chunk by chunk at constant cost (contract E).

The sequence is prompt + reply, cut into chunks of 5 codes (20 frames) from the start of the prompt.
A chunk runs as soon as the 3 codes after it are known: once through the encoder, then ten Euler
steps. Inside it everything sees everything; between chunks only the past is seen, and that is kept:
keys, values and convolution tails, once for the encoder and once per Euler step. So each chunk
equals the streaming decode of the whole prefix, at the cost of one chunk, for as long as all of it
is kept. Of the Euler steps that would be 4.6 MB per frame at the published size: there they look
back on the prompt and a window, by default of 180 frames, and a reply is exact for its first 200
frames (4 s) and an approximation of unknown quality behind them, the training having had no limit.

The last chunk keeps the streaming mask, where upstream switches to full attention (E.10): its first
frames then agree with the chunk before. The prompt's state is computed once and returned to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backend import Engine
from .bundle import Bundle
from .errors import CapacityError, ConfigError
from .kv_ring import CacheLayout, KVRing

Codes = NDArray[np.int64]
Floats = NDArray[np.float32]

REPLY_STATE_BYTES = 1 << 30  # of all Euler steps, beside the prompt; the 9B model's: 3.6 s
_SPARE_CHUNKS = 12  # room beside the prompt at first: 4.8 s of reply until the caches grow
_ENCODER_TAILS = ("lookahead_tail", "up_tail")


def step_times(steps: int) -> list[float]:
    """Times 0 … 1 of the Euler steps, cosine-spaced: `steps` + 1 values (E.6)."""
    return [1.0 - math.cos(k / steps * 0.5 * math.pi) for k in range(steps + 1)]


@dataclass(slots=True)
class _Chunk:
    """A chunk on its way through the Euler steps."""

    x: Floats  # [1, M, F]
    fixed: dict[str, Floats]  # mu, speaker, cond
    steps: int = 0  # done


@dataclass(frozen=True, slots=True)
class _Tails:
    """Convolution tails at a chunk border. They are replaced, never written into."""

    encoder: dict[str, Floats]
    steps: tuple[Floats, ...]


class FlowDecoder:
    """One voice, one reply at a time. After `finish` or `reset` the next reply may begin.

    `push` and `finish` do all the work there is. Who wants to stay interruptible calls `feed` and
    `end` instead, and `step` (one engine call) while `ready`.
    """

    def __init__(
        self,
        bundle: Bundle,
        voice: str | None = None,
        *,
        window_frames: int | None = None,
        threads: int = 1,
        exact: bool = False,
    ) -> None:
        """Load both engines and compute the prompt's state.

        voice          its name; the bundle's first one unless named
        window_frames  frames of reply before a chunk that its Euler steps look back on, a multiple
                       of a chunk. None: all of them, which is exact, unless the state of the
                       longest reply passes REPLY_STATE_BYTES: then as many as fit into that
        exact          float products instead of int8 ones, for parity tests
        """
        self.sizes = sizes = bundle.manifest.flow
        self.code_count = bundle.manifest.tokens.eosp
        self.voice, self._noise = bundle.voice(voice), bundle.noise
        self._encoder = bundle.engine("flow_encoder", threads=threads, exact=exact)
        self._step = bundle.engine("flow_step", threads=threads, exact=exact)
        self.chunk_frames = sizes.chunk_tokens * sizes.mel_per_token
        self._times = step_times(sizes.steps)
        self._prompt_frames = self.voice.prompt_mel.shape[1]
        self._most_frames: int = self._noise.shape[1] // self.chunk_frames * self.chunk_frames
        self.max_codes = self._most_codes - len(self.voice.prompt_codes)
        if self.max_codes < 1:
            raise CapacityError(
                f"a prompt of {self._prompt_frames} frames leaves no room for a reply: there is "
                f"start noise for {self._most_frames}; use a shorter prompt"
            )
        self._tokens = self._linear(self._encoder, sizes.chunk_tokens, "token_")
        self._frames = self._linear(self._encoder, self.chunk_frames, "frame_")
        self.window_frames = self._affordable() if window_frames is None else window_frames
        self._steps = [self._step_ring(self.window_frames) for _ in range(sizes.steps)]
        self._run_prompt()

    @property
    def _most_codes(self) -> int:
        """Codes of prompt and reply that there is start noise for."""
        return self._most_frames // self.sizes.mel_per_token

    def _run_prompt(self) -> None:
        """Compute the state that every reply starts from: all but the prompt's last chunk."""
        zeros = _zeros(self._step, ("tails",))["tails"]
        self._tails = _Tails(_zeros(self._encoder, _ENCODER_TAILS), (zeros,) * self.sizes.steps)
        self._waiting: Codes = self.voice.prompt_codes  # of the next chunk on
        self._chunk: _Chunk | None = None
        self._received, self._ending = 0, False
        while self.ready:
            self.step()
        self._prompt = (self._tokens.length, self._tails, self._waiting)

    @property
    def nbytes(self) -> int:
        """Size of the state."""
        return sum(ring.nbytes for ring in (self._tokens, self._frames, *self._steps))

    @property
    def ready(self) -> bool:
        """Whether `step` has work."""
        wanted = self.sizes.chunk_tokens + self.sizes.lookahead_tokens
        enough = len(self._waiting) >= (1 if self._ending else wanted)
        return self._chunk is not None or enough

    def push(self, codes: Codes) -> Floats:
        """Codes [n] of the reply -> the mel frames [M, 4k] that have become final."""
        self.feed(codes)
        return self._drain()

    def finish(self) -> Floats:
        """The frames still owed: 4 per code in all. Raises ConfigError if there were no codes."""
        self.end()
        mel = self._drain()
        self.reset()
        return mel

    def feed(self, codes: Codes) -> None:
        """Accept codes [n] of the reply; nothing is computed.

        Raises ConfigError for a code that does not exist, CapacityError for a reply that is too
        long, and then accepts none of them.
        """
        assert not self._ending, "the reply has ended"
        codes = np.asarray(codes, np.int64)
        wrong = codes[(codes < 0) | (codes >= self.code_count)]
        if len(wrong):
            raise ConfigError(
                f"speech code {wrong[0]} is outside 0 … {self.code_count - 1}; end the reply at "
                "the end-of-speech id and keep other ids away from the voice"
            )
        if self._received + len(codes) > self.max_codes:
            raise CapacityError(
                f"a reply of more than {self.max_codes} codes does not fit behind this voice's "
                f"prompt of {len(self.voice.prompt_codes)}; end the reply earlier"
            )
        self._received += len(codes)
        self._waiting = np.concatenate((self._waiting, codes))

    def end(self) -> None:
        """No more codes will come; what waits may now run without its look-ahead."""
        if not self._received:
            raise ConfigError("a reply without codes has no sound; feed at least one code")
        self._ending = True

    def reset(self) -> None:
        """Drop the reply wherever it is. Costs nothing: the prompt's rows are still in place."""
        tokens, self._tails, self._waiting = self._prompt
        for ring in (self._tokens, self._frames, *self._steps):
            ring.reset()
            ring.advance(tokens if ring is self._tokens else tokens * self.sizes.mel_per_token)
        self._chunk, self._received, self._ending = None, 0, False

    def step(self) -> Floats:
        """One engine call. Returns mel [M, n]: n = 0 until the last step of a chunk."""
        assert self.ready, "no work"
        if self._chunk is None:
            self._chunk = self._encode()
        else:
            self._euler(self._chunk)
        if self._chunk.steps < self.sizes.steps:
            return self._chunk.x[0, :, :0]
        mel: Floats = self._chunk.x[0]
        start = self._frames.length - mel.shape[1]
        self._chunk = None
        return mel[:, max(0, self._prompt_frames - start) :]  # without the prompt's own frames

    def _drain(self) -> Floats:
        mel = [np.zeros((self.sizes.mel_bins, 0), np.float32)]
        while self.ready:
            mel.append(self.step())
        return np.concatenate(mel, axis=1)

    def _encode(self) -> _Chunk:
        """Run the encoder over the next chunk and set up its Euler steps."""
        sizes, rate = self.sizes, self.sizes.mel_per_token
        codes, ahead = np.split(self._waiting, [sizes.chunk_tokens])
        ahead = ahead[: sizes.lookahead_tokens]
        gap = (0, sizes.lookahead_tokens - len(ahead))  # zero vectors after the end (E.3 step 4)
        first = self._tokens.length
        feeds: dict[str, NDArray[Any]] = {
            "codes": codes[None],
            "lookahead": np.pad(ahead, gap)[None],
            "lookahead_gain": np.pad(np.ones(len(ahead)), gap)[None],
            "embedding": self.voice.embedding[None],
            "token_index": np.array([first]),
            **self._tails.encoder,
        }
        for name, ring, rows in (
            ("token", self._tokens, len(codes)),
            ("frame", self._frames, len(codes) * rate),
        ):
            feeds[f"{name}_mask"] = ring.mask(ring.length, rows, causal=False)
            feeds[f"{name}_write"] = np.array([ring.slot(ring.length)])
        out = self._encoder.run(feeds, (self._tokens, self._frames))
        self._tokens.advance(len(codes))
        self._frames.advance(len(codes) * rate)
        tails = {name: out[f"{name}_out"] for name in _ENCODER_TAILS}
        self._tails = _Tails(tails, self._tails.steps)
        self._waiting = self._waiting[len(codes) :]
        return self._begin(first * rate, out["mu"], out["speaker"])

    def _begin(self, first: int, mu: Floats, speaker: Floats) -> _Chunk:
        """Start noise and prompt mel of the frames from `first` on (E.6)."""
        end = first + mu.shape[2]
        known = self.voice.prompt_mel[:, first:end]
        cond = np.pad(known, ((0, 0), (0, end - first - known.shape[1])))[None]
        x = np.asarray(self._noise[None, :, first:end])
        return _Chunk(x, {"mu": mu, "speaker": speaker, "cond": cond})

    def _euler(self, chunk: _Chunk) -> None:
        """One Euler step; each has caches and tails of its own."""
        k, rows = chunk.steps, chunk.x.shape[2]
        ring, t = self._steps[k], self._times[k]
        feeds = {
            "x": chunk.x,
            "t": np.array([t]),
            "dt": np.array([self._times[k + 1] - t]),
            "tails": self._tails.steps[k],
            **chunk.fixed,
            **ring.feeds(ring.length, rows, causal=False),
        }
        out = self._step.run(feeds, (ring,))
        ring.advance(rows)
        done = (*self._tails.steps[:k], out["tails_out"], *self._tails.steps[k + 1 :])
        self._tails = _Tails(self._tails.encoder, done)
        chunk.x, chunk.steps = out["x_out"], k + 1

    # storage

    @property
    def _chunks(self) -> int:
        """Chunks to make room for at first: the prompt's and the first seconds of a reply."""
        return len(self.voice.prompt_codes) // self.sizes.chunk_tokens + _SPARE_CHUNKS

    def _linear(self, engine: Engine, rows: int, prefix: str = "") -> KVRing:
        """A cache with `rows` rows per chunk that never forgets."""
        most, initial = self._most_frames // self.chunk_frames * rows, self._chunks * rows
        return KVRing.for_engine(engine, most, pinned=most, initial=initial, prefix=prefix)

    def _affordable(self) -> int | None:
        """The window whose state fits into REPLY_STATE_BYTES; None if that of all frames does."""
        frame_bytes = CacheLayout.of(self._step).row_bytes * self.sizes.steps
        frames = REPLY_STATE_BYTES // frame_bytes
        if self._prompt_frames + frames >= self._most_frames:
            return None
        return self.chunk_frames * max(1, frames // self.chunk_frames - 2)

    def _step_ring(self, window: int | None) -> KVRing:
        """Caches of one Euler step: linear, or the prompt and a ring behind it."""
        chunk = self.chunk_frames
        if window is None:
            return self._linear(self._step, chunk)
        if window < chunk or window % chunk:
            raise ConfigError(
                f"window_frames is {window}, expected a multiple of a chunk, {chunk} frames"
            )
        prompt = -(-self._prompt_frames // chunk) * chunk
        # Whole chunks, so that none is cut in two where the ring wraps; two of them beside the
        # window, so that every row of a chunk sees all of it.
        size = min(prompt + window + 2 * chunk, self._most_frames)
        pinned, initial = min(prompt, size - chunk), self._chunks * chunk
        return KVRing.for_engine(self._step, size, pinned=pinned, chunk=chunk, initial=initial)


def _zeros(engine: Engine, names: tuple[str, ...]) -> dict[str, Floats]:
    """Tails at the start of a sequence: the left padding."""
    shapes = {name: engine.inputs[name].shape for name in names}
    return {n: np.zeros([int(d) for d in shape], np.float32) for n, shape in shapes.items()}
