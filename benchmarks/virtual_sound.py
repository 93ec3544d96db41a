"""Somebody beside the virtual microphone and loudspeaker of scripts/virtual_devices.sh.

Sound is played into the microphone with paplay and recorded from the loudspeaker with parec; every
recording knows the clock of its first sample, so that several can be laid side by side.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import soundfile
from numpy.typing import NDArray

Pcm = NDArray[np.float32]

RATE_HZ = 24_000  # of recordings
FEED, MICROPHONE = "vmicfeed", "vmicfeed.monitor"
SPEAKER, SECOND_SPEAKER = "vspk.monitor", "vspk2.monitor"
AUDIBLE = 0.005  # of ±1; the voice does not reach it between words for long
LATENCY_MS = 20
CHUNK_BYTES = 480  # 10 ms
KEPT_CHUNKS = 6_000  # of a recording that forgets: a minute


def check() -> None:
    """Exit unless there are virtual devices."""
    if "VIRTUAL_DEVICES" not in os.environ:
        raise SystemExit("run this with scripts/virtual_devices.sh COMMAND...")


def say(pcm: Pcm, rate_hz: int = 16_000, sink: str = FEED) -> subprocess.Popen[bytes]:
    """Play pcm [S] into the microphone; returns at once."""
    with tempfile.NamedTemporaryFile(suffix=".wav", delete=False) as file:
        path = Path(file.name)
    soundfile.write(path, pcm, rate_hz, subtype="PCM_16")
    command = f'paplay --latency-msec=50 -d {sink} "{path}"; rm -f "{path}"'
    return subprocess.Popen(["sh", "-c", command])


@contextlib.contextmanager
def noise(level_db: float, seconds: float = 60.0) -> Iterator[None]:
    """Pink noise in the microphone, again and again."""
    rng = np.random.default_rng(0)
    count = round(16_000 * seconds)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    pink = np.fft.irfft(spectrum, count)
    pink *= 10 ** (level_db / 20) / np.sqrt(np.mean(np.square(pink)))
    over = threading.Event()

    def play() -> None:
        while not over.is_set():
            player = say(pink.astype(np.float32))
            while player.poll() is None and not over.wait(0.1):
                pass
            player.terminate()
            player.wait()

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def echo(level_db: float, delay_ms: int) -> Iterator[None]:
    """What the loudspeaker plays is in the microphone, so much later and quieter."""
    load = ["load-module", "module-loopback", f"source={SPEAKER}", f"sink={FEED}"]
    settings = [f"latency_msec={delay_ms}", "source_dont_move=1", "sink_dont_move=1"]
    module = pactl(*load, *settings).strip()
    rows = [row.split("\t") for row in pactl("list", "short", "sink-inputs").splitlines()]
    for row in rows:
        if "loopback" in row[3]:
            pactl("set-sink-input-volume", row[0], f"{level_db:g}dB")
    try:
        yield
    finally:
        pactl("unload-module", module)


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other programs use the processor."""
    hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(processes)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def unplug(kind: str, pid: int) -> None:
    """The devices of a kind, sink-input or source-output, end under that process."""
    for stream in json.loads(pactl("-f", "json", "list", f"{kind}s")):
        if stream["properties"].get("application.process.id") == str(pid):
            with socket.socket(socket.AF_UNIX) as control:
                control.connect(f"{os.environ['VIRTUAL_DEVICES']}/cli")
                control.sendall(f"kill-{kind} {stream['index']}\n".encode())
                time.sleep(0.02)


def pactl(*words: str) -> str:
    """Ask the sound server."""
    done = subprocess.run(["pactl", *words], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


class Recording:
    """What a source gives, from now on; a context."""

    def __init__(self, source: str) -> None:
        form = ["--format=s16le", f"--rate={RATE_HZ}", "--channels=1"]
        command = ["parec", "-d", source, f"--latency-msec={LATENCY_MS}", *form]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._chunks: list[bytes] = []
        self._forgotten = 0  # chunks before the first one kept
        self._bytes = 0
        self._start: float | None = None  # clock of the first sample: the earliest it can be
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._thread.join()
        with self._process:
            pass  # wait for it, and close its pipe

    def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := self._process.stdout.read(CHUNK_BYTES):
            self._chunks.append(chunk)
            self._bytes += len(chunk)
            start = time.time() - self._bytes / 2 / RATE_HZ
            self._start = start if self._start is None else min(start, self._start)

    def between(self, start: float, end: float) -> Pcm:
        """The samples [S] between two readings of the clock, as far as they have come."""
        if self._start is None:
            return np.zeros(0, np.float32)
        first, last = (max(0, round((t - self._start) * RATE_HZ)) for t in (start, end))
        per = CHUNK_BYTES // 2
        if first // per < self._forgotten:
            raise ValueError("that part of the recording was forgotten")
        chunks = self._chunks[first // per - self._forgotten : last // per + 1 - self._forgotten]
        sound = np.frombuffer(b"".join(chunks), "<i2").astype(np.float32)
        sound *= 1 / 32768
        return sound[first % per : first % per + last - first]

    def forget(self) -> None:
        """Keep the last seconds only."""
        while len(self._chunks) > KEPT_CHUNKS:
            self._chunks.pop(0)
            self._forgotten += 1


class Listener:
    """Hears both loudspeakers as one; a context."""

    def __init__(self) -> None:
        self._recordings = [Recording(SPEAKER), Recording(SECOND_SPEAKER)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for recording in self._recordings:
            recording.__exit__()

    def between(self, start: float, end: float) -> Pcm:
        """The samples [S] between two readings of the clock, as far as they have come."""
        sounds = [recording.between(start, end) for recording in self._recordings]
        length = min(map(len, sounds))
        both: Pcm = np.sum([sound[:length] for sound in sounds], axis=0, dtype=np.float32)
        return both

    def forget(self) -> None:
        """Keep the last seconds only."""
        for recording in self._recordings:
            recording.forget()

    def first_sound(self, start: float, patience_s: float) -> float | None:
        """Wait for sound after `start`; returns its clock, None if none comes."""
        while True:
            now = time.time()
            loud = np.flatnonzero(np.abs(self.between(start, now)) > AUDIBLE)
            if len(loud):
                return start + float(loud[0]) / RATE_HZ
            if now - start > patience_s:
                return None
            time.sleep(0.01)

    def silence(self, start: float, silent_s: float, patience_s: float = 30.0) -> float:
        """Wait until it has been silent for so long; returns the clock of the last sound."""
        while True:
            now = time.time()
            loud = np.flatnonzero(np.abs(self.between(start, now)) > AUDIBLE)
            last = start + float(loud[-1]) / RATE_HZ if len(loud) else start
            if now - last > silent_s or now - start > patience_s:
                return last
            time.sleep(0.02)
