"""A recording becomes a voice: prompt codes, prompt mel, speaker vector (contract E.8, G).

As upstream does it, so far as upstream agrees with itself: the codes come of the recording at its
own rate, under the offline rule of the log-mel (the loudest bin of each 30 s); the mel of the same
at 24 kHz; the speaker vector of that, resampled once more, over the whole recording. Ours is that
silence at both ends is left out, and that the prompt ends with a chunk of the flow: replies then
start on a chunk border, and the first sound of a reply takes one chunk of codes (E.10).

A model without a speaker encoder was trained on the vectors of its own voices and knows no others:
it is refused, because a borrowed vector would be somebody else's voice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .bundle_files import Voice
from .errors import AudioError, BundleError, CapacityError, ConfigError
from .fbank import BINS, speaker_features
from .flow_mel import HOP_SAMPLES, RATE_HZ, flow_mel
from .log_mel import CODE_SAMPLES, StreamingLogMel
from .manifest import FlowSizes, VocoderSizes
from .resample import resample

Pcm = NDArray[np.float32]
Floats = NDArray[np.float32]

SPEAKER = "speaker"  # the engine
SHORTEST_S, LONGEST_S = 1.0, 40.0  # of a recording; the official prompts have up to 36 s
ADVISED_S = (3.0, 10.0)
ADVICE = f"take {ADVISED_S[0]:g} to {ADVISED_S[1]:g} s of one person speaking"
FULL_BAND_HZ = 16_000  # the mel and the codes reach up to 8 kHz
_HEARD_HZ = 16_000
_FRAME_S = 0.02  # in which loudness is measured
_MARGIN_S = 0.2  # kept around the speech
_BELOW_LOUDEST_DB = 40.0  # what is quieter than that counts as silence
_SILENCE_DB, _QUIET_DB = -60.0, -35.0  # RMS of the loudest frame, re full scale
_FULL_SCALE = 0.999
_CLIPPED, _RUINED = 1e-4, 1e-2  # share of samples at full scale: worth saying; useless
_LEAST_SPEECH = 0.5  # share of the prompt
_LOWEST_POWER = -10.0  # log10; no bin of a log-mel is below


@dataclass(frozen=True, slots=True)
class Recording:
    """One channel of a sound file, as it was recorded."""

    name: str  # of the file, for messages
    pcm: Pcm  # [S] in ±1
    rate_hz: int


@dataclass(frozen=True, slots=True)
class Speech:
    """The part of a recording from which a voice is made."""

    recording: Recording  # cut to it
    notes: tuple[str, ...]  # what its owner should know

    @property
    def duration_s(self) -> float:
        """Seconds of prompt there can be."""
        return len(self.recording.pcm) / self.recording.rate_hz


def check_length(name: str, duration_s: float) -> None:
    """Raise AudioError unless a recording of that length can become a voice."""
    if not SHORTEST_S <= duration_s <= LONGEST_S:
        raise AudioError(
            f"{name}: {duration_s:.1f} s of sound, expected {SHORTEST_S:g} to {LONGEST_S:g} s; "
            f"{ADVICE}"
        )


def find_speech(recording: Recording) -> Speech:
    """Leave out silence at both ends. Raises AudioError when what stays cannot be a prompt."""
    name, rate = recording.name, recording.rate_hz
    check_length(name, len(recording.pcm) / rate)
    if not np.isfinite(recording.pcm).all():
        raise AudioError(f"{name}: samples are not finite; record or convert it again")
    levels = _levels_db(recording)
    loudest = float(levels.max())
    if loudest < _SILENCE_DB:
        raise AudioError(f"{name}: silent, expected somebody speaking; record it again")
    clipped = float((np.abs(recording.pcm) >= _FULL_SCALE).mean())
    if clipped > _RUINED:
        raise AudioError(
            f"{name}: too loud, {clipped:.1%} of it is cut off at full scale; record it again "
            "with less gain"
        )
    spoken = np.flatnonzero(levels > loudest - _BELOW_LOUDEST_DB)
    frame, margin = int(rate * _FRAME_S), int(rate * _MARGIN_S)
    first = max(0, int(spoken[0]) * frame - margin)
    pcm = recording.pcm[first : (int(spoken[-1]) + 1) * frame + margin]
    check_length(name, len(pcm) / rate)
    share = len(spoken) * frame / len(pcm)
    notes = [*_length_notes(recording, len(pcm)), *_sound_notes(rate, loudest, clipped, share)]
    return Speech(replace(recording, pcm=pcm), tuple(f"{name}: {note}" for note in notes))


def _levels_db(recording: Recording) -> NDArray[np.float64]:
    """RMS of every frame of 20 ms, re full scale; a constant offset is no sound."""
    frame = int(recording.rate_hz * _FRAME_S)
    pcm = recording.pcm[: len(recording.pcm) // frame * frame].astype(np.float64)
    power = np.square((pcm - pcm.mean()).reshape(-1, frame)).mean(axis=1)
    levels: NDArray[np.float64] = 10 * np.log10(np.maximum(power, 1e-20))
    return levels


def _length_notes(recording: Recording, kept: int) -> Iterator[str]:
    """What to know about a prompt of `kept` samples of the recording."""
    seconds, left_out = (n / recording.rate_hz for n in (kept, len(recording.pcm) - kept))
    if left_out > _FRAME_S:
        yield f"left out {left_out:.1f} s of silence at its ends"
    if seconds < ADVISED_S[0]:
        yield f"only {seconds:.1f} s to learn a voice from; {ADVICE}"
    if seconds > ADVISED_S[1]:
        yield f"{seconds:.1f} s of prompt cost memory and time in every reply; {ADVICE}"


def _sound_notes(rate_hz: int, loudest_db: float, clipped: float, spoken: float) -> Iterator[str]:
    """What to know about how it sounds; `clipped` and `spoken` are shares of the samples."""
    if spoken < _LEAST_SPEECH:
        yield f"{1 - spoken:.0%} of it is silence; cut long pauses out"
    if loudest_db < _QUIET_DB:
        yield f"quiet, {loudest_db:.0f} dB where it is loudest; the voice may be quiet too"
    if clipped > _CLIPPED:
        yield f"{clipped:.2%} of it is cut off at full scale; the voice may sound harsh"
    if rate_hz < FULL_BAND_HZ:
        yield f"nothing above {rate_hz // 2} Hz in it, the model uses up to {FULL_BAND_HZ // 2} Hz"


def prompt_codes(speech: Speech, flow: FlowSizes) -> int:
    """Codes of the prompt: as many as there are mel frames for, in whole chunks of the flow."""
    pcm, rate = speech.recording.pcm, speech.recording.rate_hz
    frames = ceil(len(pcm) * RATE_HZ / rate) // HOP_SAMPLES
    codes = ceil(ceil(len(pcm) * _HEARD_HZ / rate) / CODE_SAMPLES)
    count = min(frames // flow.mel_per_token, codes)
    return count - count % flow.chunk_tokens


def check_room(speech: Speech, flow: FlowSizes, noise_frames: int) -> None:
    """Raise CapacityError if the prompt would take more than half of the start noise (E.6).

    And AudioError if it would not fill one chunk of the flow.
    """
    frames = prompt_codes(speech, flow) * flow.mel_per_token
    if not frames:
        raise AudioError(
            f"{speech.recording.name}: {speech.duration_s:.1f} s, shorter than one chunk of this "
            f"model, {flow.chunk_tokens} codes; {ADVICE}"
        )
    if 2 * frames > noise_frames:
        second = RATE_HZ / HOP_SAMPLES
        raise CapacityError(
            f"{speech.recording.name}: {frames / second:.1f} s of prompt, but prompt and reply "
            f"share {noise_frames / second:.1f} s in this bundle; use at most "
            f"{noise_frames / second / 2:.1f} s, or export with more --noise-frames"
        )


def check_front_end(flow: FlowSizes, vocoder: VocoderSizes) -> None:
    """Raise ConfigError if the model's mel is not that of `flow_mel`."""
    got = (vocoder.sample_rate_hz, vocoder.samples_per_frame)
    if got != (RATE_HZ, HOP_SAMPLES):
        raise ConfigError(
            f"a voice of {got[1]} samples per frame at {got[0]} Hz, expected {HOP_SAMPLES} at "
            f"{RATE_HZ}; this version cannot make prompts for it"
        )


def enrol(bundle: Bundle, speech: Speech, *, threads: int = 1) -> Voice:
    """Make a voice, with the float kernels of the bundle's encoder and speaker engines.

    Of the bundle, only these two engines and the sizes in the manifest are used. Raises ConfigError
    when it has no speaker encoder or another mel, CapacityError when memory is short, BundleError
    when an engine does not do what it should.
    """
    m, recording = bundle.manifest, speech.recording
    check_front_end(m.flow, m.vocoder)
    check_speaker(bundle)
    count = prompt_codes(speech, m.flow)
    codes = _codes(bundle, resample(recording.pcm, recording.rate_hz, _HEARD_HZ), threads)
    voiced = resample(recording.pcm, recording.rate_hz, RATE_HZ)
    mel = flow_mel(voiced, m.flow.mel_bins)
    return Voice(
        prompt_codes=codes[:count],
        prompt_mel=np.ascontiguousarray(mel[:, : count * m.flow.mel_per_token]),
        embedding=_embedding(bundle, resample(voiced, RATE_HZ, _HEARD_HZ), threads),
    )


def check_speaker(bundle: Bundle) -> None:
    """Raise ConfigError unless the bundle can tell one speaker from another."""
    if SPEAKER not in bundle.manifest.engines:
        raise ConfigError(
            f"{bundle.path}: no {SPEAKER} engine, so this model has only the voices it was made "
            f"with ({', '.join(bundle.voices)}); use a bundle exported from a checkpoint with "
            "flow/campplus.onnx"
        )


def _codes(bundle: Bundle, pcm: Pcm, threads: int) -> NDArray[np.int64]:
    """The official codes of pcm [S] at 16 kHz.

    The encoder assumes, in every segment, the maximum that there really is (contract D.3).
    """
    from .encoder import SpeechEncoder  # loads the engine library

    encoder, codes = SpeechEncoder(bundle, threads=threads, exact=True), []
    length = bundle.manifest.encoder.segment_samples
    for first in range(0, len(pcm), length):
        segment = pcm[first : first + length]
        stream = StreamingLogMel(bundle.manifest.encoder.mel_bins, _LOWEST_POWER)
        stream.push(segment)
        stream.finish()
        encoder.reset(float(stream.maximum))
        codes += [encoder.push(segment), encoder.finish()]
    return np.concatenate(codes)


def _embedding(bundle: Bundle, pcm: Pcm, threads: int) -> Floats:
    """The speaker vector [192] of pcm [S] at 16 kHz."""
    engine = bundle.engine(SPEAKER, threads=threads, exact=True)
    features = speaker_features(pcm)
    (name,) = engine.inputs
    vector: Floats = next(iter(engine.run({name: features[None]}).values()))
    if vector.shape != (1, bundle.manifest.flow.speaker_dim) or not np.isfinite(vector).all():
        raise BundleError(
            f"the {SPEAKER} engine made {vector.dtype}{list(vector.shape)} of [1, {len(features)}, "
            f"{BINS}], expected {bundle.manifest.flow.speaker_dim} finite numbers; export the "
            "bundle again"
        )
    embedding: Floats = vector[0]
    return embedding
