"""`antiphon reply`: one question from a file or a text, answered into a file or on stdout."""

from __future__ import annotations

import argparse

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.session import Session

from . import audio_file
from .exchange import (
    configure,
    describe,
    finish,
    hear,
    load_question,
    note,
    printable,
    report,
    to_json,
)


def run(args: argparse.Namespace) -> int:
    """Answer the question; everything that can be refused early is."""
    if args.reply is not None:
        audio_file.check_output(args.reply, args.question)
    facts = None if args.question is None else audio_file.inspect(args.question)
    bundle = Bundle.open(args.bundle)
    pcm = None if facts is None else load_question(facts, bundle.manifest, args.capacity_rows)
    session = Session(bundle, configure(args, bundle.manifest, spoken=args.reply is not None))
    if pcm is None:
        session.say(args.text)
    else:
        if facts is not None and not args.fast:
            note(f"hearing {facts.duration_s:.1f} s as they play; --fast does not wait")
        hear(session, pcm, realtime=not args.fast)
    reply = session.run_reply()
    finish(reply, args.reply, bundle.manifest)
    if args.json:
        asked = {"text": args.text} if facts is None else describe(facts)
        print(to_json(args, bundle.manifest, asked, reply))
    elif args.reply is None:
        print(printable(reply.text))
    report(reply)
    return 0
