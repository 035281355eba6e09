"""The command line: `python -m reprolib`, installed as `reprolib`."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from reprolib.checks import unknown_name

BAD_USAGE = 2
FAILED = 1


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of leaving the process, and names the nearest valid choice."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> argparse.Namespace:
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            options = self.commands.choices[found.command]._option_string_actions
            raise unknown_name(f"argument of {found.command}", rest[0], options)
        return found

    def error(self, message: str) -> None:
        raise ValueError(f"{message}\n{self.format_usage().strip()}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise unknown_name(action.metavar or action.dest, value, action.choices)


def parse_value(text: str) -> Any:
    """Read the value of `-p name=value` as YAML, with the floats that YAML 1.1 misses.

    >>> [parse_value(t) for t in ("3", "1e-3", "true", "usps", "null", "1,762")]
    [3, 0.001, True, 'usps', None, '1,762']
    """
    # YAML 1.1 wants a dot and a sign: 1e-3 would be the string "1e-3"
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", text):
        return float(text)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} is not a value that YAML can read ({error}).") from error
    return value if isinstance(value, int | float | bool | list | dict | None) else text


def parse_parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `name=value` texts into a dict; settings that are text, as tag=1, stay text.

    Raises ValueError for a pair without `=` and for a name given twice.
    """
    from reprolib.experiments.plan import OPTIONAL_SETTINGS, TEXT_SETTINGS

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"-p takes name=value, as in -p dataset=usps; got {pair!r}.")
        if name in found:
            raise ValueError(f"-p {name} is given twice.")
        found[name] = text if name in (*TEXT_SETTINGS, *OPTIONAL_SETTINGS) else parse_value(text)
    return found


def _data(args: argparse.Namespace) -> int:
    from reprolib.data import load

    rows = load.available(args.root)
    if args.action == "list":
        print(f"data root: {load.data_root(args.root)}")
        for row in rows:
            size = f"{row['n']:>6} x {'x'.join(map(str, row['shape']))}" if row["n"] else ""
            print(f"{row['name']:<14} {size:<18} {row['found'] or 'not here; ' + row['how']}")
        return 0
    here = [row["name"] for row in rows if row["found"]]
    failed = False
    for name in args.names or here:
        try:
            print(getattr(load, args.action)(name, root=args.root))
        except (OSError, ConnectionError) as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
    return FAILED if failed else 0


def _run(args: argparse.Namespace) -> int:
    from reprolib.experiments import run as experiment

    parameters = parse_parameters(args.parameters)
    if args.seeds < 1 or args.jobs < 1:
        raise ValueError(f"--seeds and --jobs must be at least 1; got {args.seeds}, {args.jobs}.")
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    options = {"jobs": args.jobs, "force": args.force}
    options["runs_dir"] = parameters.pop("runs_dir", None)
    # a queue or a service stops with SIGTERM: end the notebooks too, as after ctrl-c
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        paths = experiment.run(args.paper, parameters, seeds, **options)
    except experiment.RunFailed as error:
        print(f"reprolib: {error}", file=sys.stderr)
        return FAILED
    for path in paths:
        print(_record_line(path))
    return 0


def _record_line(path: Any) -> str:
    from reprolib.experiments import records

    entry = records.read(path)
    scores = ", ".join(
        f"{name} NMI {m['nmi_geometric']:.3f} ACC {m['acc']:.3f}"
        for name, m in entry["metrics"].items()
    )
    return f"{scores or 'no labels'}; {sum(entry['seconds'].values()):.1f} s; {path}"


def _classify(args: argparse.Namespace) -> int:
    from reprolib.experiments import records
    from reprolib.studies import classification

    if args.seeds < 1:
        raise ValueError(f"--seeds must be at least 1; got {args.seeds}.")
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        options = {"device": args.device, "force": args.force}
        for path in classification.run(args.paper, args.profile, seed, **options):
            found = ", ".join(
                f"{n}: {a:.4f}" for n, a in classification.rescore(records.read(path)).items()
            )
            print(f"{found}; {path}")
    return 0


def _results(args: argparse.Namespace) -> int:
    from reprolib.experiments.paper import paper_folder
    from reprolib.report import compare as results

    paper_folder(args.paper)
    print(results.text(args.paper, profile=args.profile))
    return 0


def _bench(args: argparse.Namespace) -> int:
    from reprolib.bench import run as bench

    return int(bench.main(args.rest) or 0)


def _probe(args: argparse.Namespace) -> int:
    from reprolib.experiments import probes

    if args.action is None:
        return FAILED if probes.report_changes() else 0
    entry = probes.accept(args.name, args.why)
    print(f"{args.name}: behaviour {entry['id']}; records of the ones before are stale now")
    return 0


def _replay(args: argparse.Namespace) -> int:
    from reprolib.experiments import replay

    options = {"method": args.method, "dataset": args.dataset, "seed": args.seed}
    replay.run(args.paper, args.sample, **options)
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from reprolib.experiments import doctor

    print(doctor.report())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="reprolib", description="Data, runs and results of the book.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    parser.commands = commands

    def command(name: str, action: Callable, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        added.set_defaults(action_function=action)
        return added

    data = command("data", _data, "list, fetch or verify the data sets")
    data.add_argument("action", metavar="action", choices=("list", "fetch", "verify"))
    data.add_argument("names", nargs="*", metavar="NAME", help="data sets; default: those here")
    data.add_argument("--root", help="data folder, by default $REPROLIB_DATA or ~/.cache/reprolib")

    run = command("run", _run, "run a paper's experiment, one record a seed")
    run.add_argument("paper", help="folder of the book, as jule")
    run.add_argument(
        *("-p", "--parameters"),
        action="append",
        default=[],
        metavar="name=value",
        help="a parameter of the paper's run.md; may be repeated",
    )
    run.add_argument("--seeds", type=int, default=1, help="number of seeds (default 1)")
    run.add_argument("--first-seed", type=int, default=0, help="first random_state (default 0)")
    run.add_argument("--jobs", type=int, default=1, help="seeds at a time (default 1)")
    run.add_argument("--force", action="store_true", help="run even where a record is there")

    classify = command(
        "classify", _classify, "codes of patches and a linear SVM, one record a code"
    )
    classify.add_argument("paper", help="folder of the book, as jule")
    classify.add_argument("--profile", default="cpu", help="of classification.yml (default cpu)")
    classify.add_argument("--seeds", type=int, default=1, help="number of seeds (default 1)")
    classify.add_argument(
        "--first-seed", type=int, default=0, help="first random_state (default 0)"
    )
    classify.add_argument("--device", default="auto", help="auto, cpu or cuda")
    classify.add_argument("--force", action="store_true", help="run even where a record is there")

    results = command("results", _results, "the paper's numbers beside the records'")
    results.add_argument("paper", help="folder of the book, as jule")
    results.add_argument("--profile", help="smoke, cpu or paper; default: paper, else cpu")

    bench = command("bench", _bench, "time the kernels against the roofline")
    bench.add_argument("rest", nargs=argparse.REMAINDER, help="options of reprolib.bench.run")

    probe = command("probe", _probe, "compare what the methods do with book/probes.yml")
    accepted = probe.add_subparsers(dest="action", metavar="action")
    accept = accepted.add_parser("accept", help="take today's behaviour of NAME: its records age")
    accept.add_argument("name", metavar="NAME", help="method or method/variant, as JULE/paper")
    accept.add_argument("--why", required=True, help="the reason, kept beside it")

    replay = command("replay", _replay, "fit drawn records again in full; add to book/replays.yml")
    replay.add_argument("paper", help="folder of the book, as jule")
    replay.add_argument("--sample", type=int, default=1, help="number of records (default 1)")
    replay.add_argument("--method", help="of one method only")
    replay.add_argument("--dataset", help="of one data set only")
    replay.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")

    command("doctor", _doctor, "device, versions, data found, what will run where")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 2 asked for wrongly."""
    try:
        args = _parser().parse_args(argv)
        return args.action_function(args)
    except OSError as error:
        print(f"reprolib: {error}", file=sys.stderr)
        return FAILED
    except (ValueError, TypeError) as error:
        print(f"reprolib: {error}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt:
        print("reprolib: stopped; the same command goes on from the checkpoint", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
