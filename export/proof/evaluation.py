"""Put the same questions to a bundle and to its reference, and compare all there is to compare.

For each question: the reference hears it and answers; every one of its engine calls is made by the
candidate's engine too (`shadow`). Then the candidate alone reads the reference's reply row by row,
says the reference's codes, hears the question itself and answers it freely.
"""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.flow_mel import RATE_HZ

from ..progress import Progress, Silence
from .dialogues import (
    SPEECH,
    WRITTEN,
    Codes,
    Dialogue,
    Floats,
    Question,
    Respondent,
    check_questions,
    kinds,
)
from .heads import compare_row
from .report import Exchange, Report, Scored, Subject
from .shadow import ShadowedBundle
from .sound import Listener, mel_distance_db

HEARD = 20
_FACTS = ("lm", "encoder", "flow", "vocoder", "tokens", "tokenizer", "sources")


def evaluate(
    bundle: Bundle,
    questions: Sequence[Question],
    reference: Bundle | None = None,
    *,
    listener: Listener | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Ask both; without a reference only what one bundle can tell of itself.

    listener   hears the first spoken replies, as many as `HEARD`: seconds of work for each
    Raises ConfigError before any work for another model's reference or without a question,
    CapacityError for a question that does not fit.
    """
    check_questions(questions)
    tell = progress or Silence()
    tell.step("loading", 0, 2)
    examiner = _Examiner(bundle, reference, threads)
    examiner.listen(listener)
    tell.step(f"{len(questions)} questions", 1, 2)
    for count, question in enumerate(questions):
        tell.advance(count, len(questions))
        examiner.put(question)
    tell.advance(len(questions), len(questions))
    return examiner.report


def check_same_model(bundle: Bundle, reference: Bundle) -> None:
    """Raise ConfigError unless both are of one model."""
    for fact in _FACTS:
        mine, other = (getattr(b.manifest, fact) for b in (bundle, reference))
        if mine != other:
            raise ConfigError(
                f"{reference.path} is no reference for {bundle.path}: {fact} is {other}, expected "
                f"{mine}; name a bundle or a checkpoint of the same model"
            )


class _Examiner:
    """Both bundles, loaded, and the report that grows."""

    def __init__(self, bundle: Bundle, reference: Bundle | None, threads: int) -> None:
        if reference:
            check_same_model(bundle, reference)
        self.report = Report(Subject.of(bundle), Subject.of(reference) if reference else None)
        self._mine = Respondent(bundle, threads=threads)
        self._reference = self._mine
        if reference:
            shadowed = ShadowedBundle(reference, bundle)
            self._reference = Respondent(shadowed, threads=threads)
            self.report.engines = shadowed.errors
        self._known = bundle.manifest.vocoder.sample_rate_hz == RATE_HZ  # what sound is judged at
        self._listener: Listener | None = None
        self._heard = 0  # replies, by the listener

    def listen(self, listener: Listener | None) -> None:
        """Let somebody judge the first replies."""
        self._listener = listener if self._known else None
        self.report.listener = self._listener is not None

    def put(self, question: Question) -> None:
        """Ask in every way there is."""
        exact = measured = None
        if question.pcm is not None:
            exact = self._reference.hear(question.pcm)
            measured = exact if self._alone else self._mine.hear(question.pcm)
            self.report.codes.append((exact == measured).astype(float).tolist())
        for asked, answered in kinds(question):
            exchange = self._exchange(question, (asked, answered), exact, measured)
            if asked == answered == SPEECH or (question.pcm is None and answered == SPEECH):
                self._compare_voices(exchange)
            self.report.exchanges.append(exchange)
        self.report.questions += 1

    @property
    def _alone(self) -> bool:
        return self._reference is self._mine

    def _exchange(
        self,
        question: Question,
        kind: tuple[str, str],
        exact: Codes | None,
        measured: Codes | None,
    ) -> Exchange:
        """The reference's reply, the candidate's logits along it, and the candidate's own reply."""
        dialogue, logits = self._reference.ask(question, *kind, exact)
        if self._alone:
            return Exchange(dialogue, self._score(dialogue, logits, logits), dialogue)
        along = list(self._mine.replay(dialogue))
        rows = self._score(dialogue, logits, along)
        return Exchange(dialogue, rows, self._mine.ask(question, *kind, measured)[0])

    def _score(
        self, dialogue: Dialogue, exact: Sequence[Floats], measured: Sequence[Floats]
    ) -> list[Scored]:
        tokens, found = self._mine.manifest.tokens, []
        for row, spoken in enumerate(dialogue.spoken(tokens.modality_pad)):
            head = SPEECH if spoken else WRITTEN
            score = compare_row(exact[row], measured[row], head, tokens)
            last = dialogue.complete and row == len(exact) - 1
            found.append(Scored(head, score, last))
        return found

    def _compare_voices(self, exchange: Exchange) -> None:
        """Both say what the reference answered."""
        tokens = self._mine.manifest.tokens
        codes = exchange.dialogue.codes(tokens.modality_pad, tokens.eosp)
        if not len(codes):
            return
        exact = self._reference.speak(codes)
        measured = exact if self._alone else self._mine.speak(codes)
        if self._known and not self._alone:
            exchange.mel_distance_db = mel_distance_db(exact, measured)
        if self._listener and self._heard < HEARD:
            self._heard += 1
            exchange.opinion = self._listener.opinion(exact)
            exchange.opinion_measured = (
                exchange.opinion if self._alone else self._listener.opinion(measured)
            )
