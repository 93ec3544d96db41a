"""One question and its reply, as `reply` and `demo` handle it, and what `talk` shares with them.

A recorded question goes through the same session as a microphone's, in blocks of 10 ms as they
would come, so the times reported are those of a conversation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from antiphon.runtime.errors import AntiphonError, CapacityError, ConfigError
from antiphon.runtime.lm import capacity_of
from antiphon.runtime.manifest import Manifest, SamplingConfig
from antiphon.runtime.reply import Ending, Reply
from antiphon.runtime.scheduler import Job
from antiphon.runtime.session import Session
from antiphon.runtime.session_config import SessionConfig

from . import audio_file, waterfall
from .audio_file import Pcm, SoundFacts

BLOCK_MS = 10
FRAME_ROWS = 40  # at least, of a conversation that are not speech: system turn, openings, closings


def load_question(facts: SoundFacts, manifest: Manifest, capacity_rows: int | None) -> Pcm:
    """The recording as the model hears it. Raises CapacityError, unread, if it is too long."""
    rate = manifest.encoder.sample_rate_hz
    rows = capacity_of(manifest.lm, capacity_rows)
    longest_s = max(0, rows - FRAME_ROWS) * manifest.encoder.samples_per_code / rate
    if facts.duration_s > longest_s:
        raise CapacityError(
            f"{facts.path}: {facts.duration_s:.1f} s long, {longest_s:.1f} s fit into {rows} rows; "
            "cut the recording, or raise --capacity-rows (this model was trained with "
            f"{manifest.lm.context_rows})"
        )
    if facts.channels > 1:
        note(f"{facts.path} has {facts.channels} channels; only the first is heard")
    pcm = audio_file.read(facts, rate)
    if not pcm.any():
        note(f"{facts.path} is silent")
    return pcm


def configure(args: argparse.Namespace, manifest: Manifest, *, spoken: bool) -> SessionConfig:
    """The options common to all conversations."""
    return SessionConfig(
        reply="speech" if spoken else "text",
        voice=args.voice,
        sampling=sampling(args, manifest.sampling),
        seed=args.seed,
        capacity_rows=args.capacity_rows,
        threads=args.threads,
    )


def sampling(args: argparse.Namespace, default: SamplingConfig) -> SamplingConfig:
    """The bundle's defaults, with the options given in their place.

    Options of drawing have a greedy bundle draw. Raises ConfigError when --greedy forbids it.
    """
    draws = any(option is not None for option in (args.temperature, args.top_p, args.top_k))
    if draws and args.greedy:
        raise ConfigError(
            "--greedy always takes the likeliest; leave out --temperature, --top-p and --top-k"
        )
    given = {
        "do_sample": draws if draws or args.greedy else None,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "top_k": args.top_k,
        "repetition_penalty": args.repetition_penalty,
        "max_new_tokens": args.max_tokens,
    }
    changed: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return replace(default, **changed)


def hear(
    session: Session,
    pcm: Pcm,
    *,
    realtime: bool,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Give pcm [S] to the session as a microphone would, and end the turn.

    Each block comes when its last sample would have been recorded, counted from the start, so
    late blocks do not add up. realtime=False: blocks come as fast as they are worked in.
    """
    rate = session.manifest.encoder.sample_rate_hz
    block = rate * BLOCK_MS // 1000
    start = clock()
    for first in range(0, len(pcm), block):
        piece = pcm[first : first + block]
        due = start + (first + len(piece)) / rate
        while realtime and (early := due - clock()) > 0:
            if session.step() is Job.WAIT:
                sleep(early)
        session.listen(piece)
    while not realtime and session.step() is not Job.WAIT:
        pass
    session.end_turn()


def finish(reply: Reply, path: Path | None, manifest: Manifest) -> None:
    """Write a spoken reply. Raises AntiphonError when the model said nothing."""
    if path is None:
        return
    if not reply.codes:
        raise AntiphonError("the model said nothing; ask again, or with another --seed")
    audio_file.write(path, reply.pcm, manifest.vocoder.sample_rate_hz)


def report(reply: Reply) -> None:
    """Say on stderr what the turn cost, and whether the reply is whole."""
    if reply.ending is Ending.TRUNCATED:
        note("the reply was cut off; allow more with --max-tokens, if the context has room")
    print("\n".join(waterfall.lines(reply.metrics)), file=sys.stderr)


def printable(text: str) -> str:
    """The text without what would steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def note(text: str) -> None:
    """Something worth knowing that is no error."""
    print(f"note: {text}", file=sys.stderr)


def describe(facts: SoundFacts) -> dict[str, Any]:
    """A recording, in plain values."""
    return asdict(facts) | {"path": str(facts.path), "duration_s": facts.duration_s}


def to_json(
    args: argparse.Namespace, manifest: Manifest, asked: dict[str, Any], reply: Reply
) -> str:
    """All about one exchange in one line."""
    ending = reply.ending.value if reply.ending else None
    answer: dict[str, Any] = {"ending": ending}
    if args.reply is None:
        answer["text"] = reply.text
    else:
        duration_s = len(reply.pcm) / manifest.vocoder.sample_rate_hz
        answer |= {"path": str(args.reply), "codes": len(reply.codes), "duration_s": duration_s}
    facts = {
        "bundle": manifest.name,
        "seed": args.seed,
        "question": asked,
        "reply": answer,
        "metrics": reply.metrics.as_dict(),
    }
    return json.dumps(facts, ensure_ascii=False, allow_nan=False)
