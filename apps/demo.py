"""`antiphon demo`: asks one of the questions recorded in the bundle and says what came of it."""

from __future__ import annotations

import argparse
import json

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.session import Session

from . import audio_file, questions
from .exchange import configure, describe, finish, hear, load_question, report, to_json
from .questions import Question


def run(args: argparse.Namespace) -> int:
    """Ask, in real time; print the question, the answer expected and where the reply is."""
    found = questions.load(args.bundle)
    if args.list:
        _list(found, as_json=args.json)
        return 0
    question = questions.find(found, args.question)
    audio_file.check_output(args.reply)
    facts = audio_file.inspect(question.path)
    bundle = Bundle.open(args.bundle)
    pcm = load_question(facts, bundle.manifest, args.capacity_rows)
    if not args.json:
        print(f"asking ({facts.duration_s:.1f} s): {question.text}", flush=True)
    session = Session(bundle, configure(args, bundle.manifest, spoken=True))
    hear(session, pcm, realtime=True)
    reply = session.run_reply()
    finish(reply, args.reply, bundle.manifest)
    if args.json:
        asked = describe(facts) | {"name": question.name, "text": question.text}
        print(to_json(args, bundle.manifest, asked, reply))
    else:
        if question.reply is not None:
            print(f"a right answer says: {question.reply}")
        print(f"the reply is in {args.reply}", flush=True)
    report(reply)
    return 0


def _list(found: list[Question], *, as_json: bool) -> None:
    if as_json:
        rows = [{"name": q.name, "text": q.text, "reply": q.reply} for q in found]
        print(json.dumps(rows, ensure_ascii=False))
        return
    width = max((len(question.name) for question in found), default=0)
    for number, question in enumerate(found, 1):
        print(f"{number:>3}  {question.name:<{width}}  {question.text}")
