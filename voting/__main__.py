"""``python -m voting serve | close``: people vote blindly between methods' images; votes are counted."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from core.command import count, run_command, whole_number

FOLDER, RESULTS = Path("results/votes"), Path("results")


def _serve(arguments) -> None:
    from voting import session as sessions
    from voting.server import serve

    if (arguments.folder / sessions.SESSION).exists():
        session = sessions.load(arguments.folder)
        print(f"goes on with {len(session.pairs)} pairs of {arguments.folder}")
    else:
        session = sessions.make(
            arguments.runs,
            arguments.base,
            arguments.task,
            arguments.methods,
            arguments.images_per_prompt,
            arguments.against,
        )
        arguments.folder.mkdir(parents=True, exist_ok=True)
        sessions.save(session, arguments.folder)
    serve(session, arguments.folder, arguments.port)


def _close(arguments) -> None:
    from core.tables import write_table
    from voting import count, report, store
    from voting import session as sessions

    votes = count.table(store.read(arguments.folder), sessions.load(arguments.folder))
    if votes.empty:
        raise ValueError(f"{arguments.folder / store.VOTES} holds no votes")
    write_table(votes, arguments.out / "votes.parquet")
    for path in report.write(votes, arguments.folder):
        print(path)
    print(arguments.out / "votes.parquet")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m voting", description=__doc__)
    commands = parser.add_subparsers(required=True)
    serve = commands.add_parser("serve", help="the page on which people vote, on 127.0.0.1")
    serve.set_defaults(call=_serve)
    serve.add_argument(
        "--methods", nargs="+", required=True, help="rows of finished runs whose images were kept"
    )
    serve.add_argument(
        "--against", nargs="+", help="compare each method with each of these, not with each other"
    )
    serve.add_argument("--base", default="tiny-sd3", help="default: %(default)s")
    serve.add_argument("--task", default="ocr", help="default: %(default)s")
    serve.add_argument("--images-per-prompt", type=count, default=1, help="that are compared (%(default)s)")
    serve.add_argument("--runs", type=Path, default=RESULTS / "runs", help="default: %(default)s")
    serve.add_argument("--port", type=whole_number(1, 65_535), default=5050, help="default: %(default)s")
    close = commands.add_parser(
        "close", help="count the votes: results/votes.parquet, and tables beside them"
    )
    close.set_defaults(call=_close)
    close.add_argument("--out", type=Path, default=RESULTS, help="default: %(default)s")
    for command in (serve, close):
        command.add_argument(
            "--folder", type=Path, default=FOLDER, help="of pairs and votes; default: %(default)s"
        )
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
