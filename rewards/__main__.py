"""Command line of the rewards: what there is, what it needs, and getting it.

python -m rewards                  the table of docs/rewards.md
python -m rewards page             write it there
python -m rewards check NAME...    are the weights here?
python -m rewards fetch NAME...    download the weights into the hub cache
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import rewards
from core.files import write_text
from rewards.features import feature_names, get_features_class
from rewards.published import hub
from rewards.weights import WeightsError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "rewards.md"
BLOCK = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end -->)", re.DOTALL)
COLUMNS = ("name", "role", "scale", "untrained base", "licence", "weights")
ROLES = ("proxy", "auxiliary", "unseen", "diversity", "gold", "artefact")


def get_plugin(name: str) -> type:
    """The class of a reward or of a feature encoder. Raises ``ValueError`` with the valid names."""
    if name in feature_names():
        return get_features_class(name)
    if name not in rewards.names():
        raise ValueError(
            f"unknown reward or encoder {name!r}; valid: {', '.join(rewards.names() + feature_names())}"
        )
    return rewards.get_class(name)


def _weights(plugin: type) -> str:
    """Files and commits, and the environment where there is one of its own."""
    parts = [f"`resources/{name}`" for name in plugin.weights]
    for source in plugin.hub:
        commit = f"at `{source.revision[:7]}`" if source.revision else "(commit to be pinned)"
        parts.append(f"{source.repository} {commit}{', gated' if source.gated else ''}")
    if plugin.environment:
        parts.append(f"environment `{plugin.environment}`")
    return "; ".join(parts) or "none"


def table() -> str:
    """Every reward and encoder as a Markdown table, in the order of the roles."""
    plugins = [get_plugin(name) for name in rewards.names() + feature_names()]
    plugins.sort(key=lambda plugin: (ROLES.index(plugin.role), plugin.name))
    lines = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS)]
    for plugin in plugins:
        expected = "; ".join(f"{base}: {value:g}" for base, value in plugin.expected_base.items())
        source = f" ({plugin.expected_source})" if expected else ""
        row = (
            f"`{plugin.name}`",
            plugin.role,
            plugin.scale,
            expected + source,
            plugin.licence,
            _weights(plugin),
        )
        lines.append(" | ".join(row))
    return "".join(f"| {line} |\n" for line in lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m rewards", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=("table", "page", "check", "fetch"), default="table")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args(arguments)
    try:
        plugins = [get_plugin(name) for name in options.names]
        if options.command == "table":
            print(table(), end="")
        elif options.command == "page":
            write_text(PAGE, BLOCK.sub(lambda _: f"\n{table()}", PAGE.read_text()))
        elif options.command == "check":
            hub.check(plugins)
        else:
            for plugin in plugins:
                hub.fetch(plugin)
    except (WeightsError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
