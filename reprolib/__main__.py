"""The command line: `python -m reprolib`, installed as `reprolib`. Commands import what they need."""

import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from reprolib.checks import check_name

FAILED, BAD_USAGE, STOPPED = 1, 2, 130
ACTIONS = ("list", "fetch", "verify")
PARAMETERS = "a setting of the paper's run.md, or a hyper-parameter; may be repeated"


def parse_value(text: str) -> Any:
    """Read the value of `-p name=value` as YAML, with floats such as 1e-3; dates and the like stay text."""
    # YAML 1.1 wants a dot and a sign: 1e-3 would be the string "1e-3"
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", text):
        return float(text)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is not a value that YAML can read ({error}).") from error
    return value if isinstance(value, int | float | bool | list | dict | None) else text


def parse_parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `name=value` texts into a dict; settings that are text, as tag=1, stay text."""
    from reprolib.experiments.plan import SETTINGS

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"-p takes name=value, as in -p dataset=usps; got {pair!r}.")
        if name in found:
            raise ValueError(f"-p {name} is given twice.")
        found[name] = text if name in SETTINGS else parse_value(text)
    return found


class _Commands(click.Group):
    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        check_name("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, no_args_is_help=False)
def cli() -> None:
    """Data, runs and results of the book."""


@cli.command()
@click.argument("action", metavar="|".join(ACTIONS))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--root", help="data folder, by default $REPROLIB_DATA or ~/.cache/reprolib")
def data(action: str, names: Sequence[str], root: str | None) -> int:
    """List, fetch or verify the data sets.

    By default all that are here.
    """
    from reprolib.data import load

    check_name("action", action, ACTIONS)
    rows, status = load.available(root), 0
    if action == "list":
        print(f"data root: {load.data_root(root)}")
        for row in rows:
            size = f"{row['n']:>6} x {'x'.join(map(str, row['shape']))}" if row["n"] else ""
            print(f"{row['name']:<15} {size:<18} {row['found'] or 'not here; ' + row['how']}")
        return 0
    for name in names or [row["name"] for row in rows if row["found"]]:
        try:
            print(getattr(load, action)(name, root=root))
        except OSError as error:
            print(f"{name}: {error}", file=sys.stderr)
            status = FAILED
    return status


def _seconds(text: str) -> float:
    """Seconds of "8m", "1.5h" or "90s"."""
    if not (found := re.fullmatch(r"(\d+\.?\d*|\.\d+)([smh])", text)):
        raise ValueError(f"--budget takes a time, as in 8m, 1.5h or 90s; got {text!r}.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@cli.command()
@click.argument("paper")
@click.option("-p", "--parameters", multiple=True, metavar="name=value", help=PARAMETERS)
@click.option("--seeds", default=1, help="number of seeds (default 1)")
@click.option("--first-seed", default=0, help="first random_state (default 0)")
@click.option("--jobs", default=1, help="seeds at a time (default 1)")
@click.option("--force", is_flag=True, help="run even where a record is there")
@click.option("--profile", help="smoke, cpu or paper, as -p profile=")
@click.option("--plan", "only_plan", is_flag=True, help="show what it will cost; start nothing")
def run(
    paper: str,
    parameters: Sequence[str],
    seeds: int,
    first_seed: int,
    profile: str | None,
    only_plan: bool,
    **options: Any,
) -> None:
    """Run a paper's experiment, one record a seed.

    PAPER is the chapter to run: jule or dcss.
    """
    from reprolib.experiments import run as experiment
    from reprolib.experiments.records import read, told

    given = parse_parameters([*parameters, *([f"profile={profile}"] if profile else [])])
    if only_plan:
        from reprolib.experiments.reproduce import asked

        return _show(asked(paper, given, range(first_seed, first_seed + seeds)))
    options["runs_dir"] = given.pop("runs_dir", None)
    # a queue or a service stops with SIGTERM: end the notebooks too, as after ctrl-c
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for path in experiment.run(paper, given, range(first_seed, first_seed + seeds), **options):
        print(f"{told(read(path))}; {path}")


@cli.command()
@click.argument("names", nargs=-1, metavar="[PAPER]...")
@click.option("--profile", default="paper", show_default=True, help="smoke, cpu or paper")
@click.option("--budget", metavar="TIME", help="8m, 1.5h or 90s; by default no end")
@click.option("--jobs", default=1, show_default=True, help="processes at a time")
@click.option("--plan", "only_plan", is_flag=True, help="show runs and their cost; start nothing")
@click.option("--list", "path", type=click.Path(path_type=Path), help="JSON list of runs, instead of what is missing")
@click.option("--root", type=click.Path(path_type=Path), help="folder for records, by default the book")
def reproduce(
    names: Sequence[str],
    profile: str,
    budget: str | None,
    jobs: int,
    only_plan: bool,
    path: Path | None,
    root: Path | None,
) -> int | None:
    """Run what the tables and figures lack at a profile.

    The cheapest first, within a budget; the same command goes on where it stopped.
    """
    began, seconds = time.monotonic(), _seconds(budget) if budget else float("inf")
    from reprolib.experiments import reproduce as experiments
    from reprolib.experiments.cost import this_device
    from reprolib.experiments.workers import run_all

    tasks = experiments.listed(path, root) if path else experiments.gaps(names, profile, root)
    if not path and (absent := experiments.absent(names, profile)):
        print(f"not here, and left out: {', '.join(absent)}")
    if only_plan:
        return _show(tasks)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    left = seconds - (time.monotonic() - began)
    return None if run_all(tasks, jobs, this_device(), left) else FAILED


@cli.command("import")
@click.argument("paths", nargs=-1, required=True, metavar="ARCHIVE...", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="replace records that are there and differ")
def take(paths: Sequence[Path], force: bool) -> None:
    """Check what `make gpu` packed elsewhere and put it into the book.

    ARCHIVE: the .tar.gz, or all its parts.
    """
    from reprolib.experiments.archive import take as take_in

    print(*take_in(paths, force=force), sep="\n")


def _show(tasks: Sequence[Any]) -> None:
    """Print what runs will cost."""
    from reprolib.experiments.reproduce import table
    from reprolib.report.tables import Table

    print(Table(*table(tasks)))


@cli.command()
@click.argument("paper")
@click.option("--profile", help="smoke, cpu or paper; default: paper, else cpu")
def results(paper: str, profile: str | None) -> None:
    """Show the paper's numbers beside the records'."""
    from reprolib.experiments.paper import Paper
    from reprolib.report.tables import overview

    print(*overview(Paper(paper), profile), sep="\n\n")


@cli.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="the built-in digits, few repeats")
@click.option("--json", type=click.Path(path_type=Path), help="also write the results there")
@click.option("--device", help="kernels and training steps there: cuda or cpu")
def bench(names: Sequence[str], quick: bool, json: Path | None, device: str | None) -> None:
    """Time the kernels against the roofline.

    NAME: knn, methods (these two by default), growth, family, adversarial, views, contrastive, rounds, device.
    """
    from reprolib.bench.run import run

    run(names, quick, json, device)


@cli.group(invoke_without_command=True)
@click.pass_context
def probe(context: click.Context) -> int | None:
    """Compare what the methods do with book/probes.yml."""
    from reprolib.experiments import probes

    return FAILED if context.invoked_subcommand is None and probes.report_changes() else None


@probe.command()
@click.argument("name")
@click.option("--why", required=True, help="the reason, kept beside it")
def accept(name: str, why: str) -> None:
    """Take today's behaviour of NAME, as JULE/paper: its records age."""
    from reprolib.experiments import probes

    entry = probes.accept(name, why)
    print(f"{name}: behaviour {entry['id']}; records of the ones before are stale now")


@cli.command()
@click.argument("paper")
@click.option("--sample", default=1, show_default=True, help="number of records")
@click.option("--method", help="of one method only")
@click.option("--dataset", help="of one data set only")
@click.option("--seed", default=0, show_default=True, help="of the draw")
def replay(paper: str, sample: int, **drawn: str | int | None) -> None:
    """Fit drawn records again in full; add to book/replays.yml."""
    from reprolib.experiments import replay as replays

    replays.run(paper, sample, **drawn)


@cli.command()
def doctor() -> None:
    """Tell device, versions, data found, what will run where."""
    from reprolib.experiments.doctor import report

    print(report())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 asked for wrongly."""
    try:
        return cli.main(argv, prog_name="reprolib", standalone_mode=False) or 0
    except click.Abort:
        said, status = "stopped; the same command goes on from the checkpoint", STOPPED
    except OSError as error:
        said, status = error, FAILED
    except click.UsageError as error:
        usage = f"\n{error.ctx.get_usage()}" if error.ctx else ""
        said, status = error.format_message() + usage, BAD_USAGE
    except (ValueError, TypeError) as error:
        said, status = error, BAD_USAGE
    print(f"reprolib: {said}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
