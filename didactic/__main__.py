"""``python -m didactic run | report | map-run | map-report | theorem | theorem-report``: runs of the small
experiments, and what they show."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from safetensors.torch import save_file

from core.command import run_command, seed, set_threads
from core.files import replacing
from core.settings import ConfigError
from didactic import grid, map_report, policy, report, theorem
from didactic.configuration import load
from didactic.experiment import run


def _run(arguments) -> None:
    set_threads(1)
    config = load(arguments.config)
    if arguments.method not in config.rows:
        raise ConfigError(f"unknown method {arguments.method!r}; valid: {', '.join(config.rows)}")
    base = policy.pretrain(arguments.seed)
    outcome = run(base, config.rows[arguments.method], config.setting, arguments.seed)
    with replacing(arguments.out) as temporary:
        temporary.mkdir()
        scores = outcome.scores.assign(method=arguments.method, seed=arguments.seed)
        scores.to_parquet(temporary / "scores.parquet", index=False)
        save_file({"samples": outcome.samples}, temporary / "samples.safetensors")


def _report(arguments) -> None:
    report.write(arguments.folders, load(arguments.config), arguments.out)


def _map_run(arguments) -> None:
    set_threads(1)
    with replacing(arguments.out) as temporary:
        scores = grid.train(load(arguments.config), arguments.grid, arguments.learning_rate, arguments.seed)
        scores.to_parquet(temporary, index=False)


def _map_report(arguments) -> None:
    map_report.write(arguments.files, load(arguments.config), arguments.out)


def _theorem(arguments) -> None:
    set_threads(1)
    with replacing(arguments.out) as temporary:
        theorem.run(arguments.method, arguments.dimensions, arguments.seed).to_parquet(temporary)


def _theorem_report(arguments) -> None:
    report.write_theorem(arguments.files, arguments.out)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m didactic", description=__doc__)
    commands = parser.add_subparsers(required=True)
    single = commands.add_parser("run", help="one method and seed")
    single.set_defaults(call=_run)
    single.add_argument("--method", required=True)
    single.add_argument("--seed", type=seed, required=True)
    many = commands.add_parser("report", help="table and figure of all runs")
    many.set_defaults(call=_report)
    many.add_argument("folders", type=Path, nargs="+")
    one = commands.add_parser("map-run", help="all rows and settings of one learning rate and seed")
    one.set_defaults(call=_map_run)
    one.add_argument("--grid", required=True, help="a key of map.grids")
    one.add_argument("--learning-rate", type=float, required=True)
    one.add_argument("--seed", type=seed, required=True)
    whole = commands.add_parser("map-report", help="table and figure of the map")
    whole.set_defaults(call=_map_report)
    whole.add_argument("files", type=Path, nargs="+")
    for added in (single, many, one, whole):
        added.add_argument("--config", type=Path, default=Path("config/gaussian_mixture.yaml"))
    exact = commands.add_parser("theorem", help="distance to DDRL's optimum over training")
    exact.set_defaults(call=_theorem)
    exact.add_argument("--method", choices=theorem.LOSSES, required=True)
    exact.add_argument("--dimensions", type=int, choices=(1, 2), required=True)
    exact.add_argument("--seed", type=seed, required=True)
    drawn = commands.add_parser("theorem-report", help="table and figure of the distances")
    drawn.set_defaults(call=_theorem_report)
    drawn.add_argument("files", type=Path, nargs="+")
    for added in (single, many, one, whole, exact, drawn):
        added.add_argument("--out", type=Path, required=True)
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
