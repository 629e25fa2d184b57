"""``python -m runs explain RUN``: every setting of a run, the file that set it and its origin."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from core.command import run_command
from core.settings import merged, read_yaml
from runs.explain import explain_run
from runs.main_config import check_main

DEFAULT = Path("config/config.yaml")


def _explain(arguments) -> None:
    folder = Path(arguments.run)  # a run's folder or its name
    main = [DEFAULT, *arguments.configfile]
    config: dict = {}
    for path in main:
        config = merged(config, read_yaml(path))
    config = check_main(config)
    print(explain_run(folder.name, main, config, arguments.results / "runs" / folder.name), end="")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m runs", description=__doc__)
    commands = parser.add_subparsers(required=True)
    explained = commands.add_parser("explain", help="print a run's settings and where they come from")
    explained.add_argument("run", help="BASE__TASK__METHOD__sSEED, or the folder of such a run")
    explained.add_argument(
        "--configfile", type=Path, action="append", default=[], help="laid on config/config.yaml"
    )
    explained.add_argument("--results", type=Path, default=Path("results"))
    explained.set_defaults(call=_explain)
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
