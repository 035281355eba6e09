"""A paper in the book: its printed tables, profiles, deviations, claims and records, read from files.

`book/<paper>/profiles.yml` holds `method` (the paper's own), `default` (its parameters on every data set),
`baselines` (the methods it is compared with, and their parameters), `shared` (parameters that these take over
from the paper's own) and `profiles`: smoke | cpu | paper, by data set. `published.yml` holds the printed
numbers, `deviations.yml` where paper, released code and book differ; `book/claims.yml` what all papers claim.
What these files must hold is checked by tests/experiments/test_paper.py.
"""

import ast
import inspect
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from reprolib.checks import check_name, unknown_name
from reprolib.data.load import is_own
from reprolib.experiments import records
from reprolib.files import BOOK, load_yaml

# Beside the parameters, an entry may say how the data set is loaded, who says so, what was reduced, which
# ImageNet network gives the features, and what other methods than the paper's take
ABOUT = ("load", "source", "reduced", "features", "others")
# Scores that a published table may hold, as printed
METRICS = {"acc": "ACC"} | {f"nmi_{mean}": f"NMI ({mean})" for mean in ("geometric", "arithmetic", "max")}
METRICS["ari"] = "ARI"


class Paper:
    """One paper's files and records, each read when first asked for, and once: do not change them.

    name: a folder of the book, or an id of claims.yml; root: folder of the records, if not book/<name>/runs.
    """

    def __init__(self, name: str, root: Path | None = None) -> None:
        self.name, self.root = name, root

    @property
    def folder(self) -> Path:
        """book/<name>; ValueError for a paper without one."""
        return paper_folder(self.name)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """All records, sorted by file name."""
        return records.load_records(self.name, profile=None, tag=None, task=None, root=self.root)

    def select(self, *, profile: Any, tag: Any, task: Any = "clustering", **filters: Any) -> list[dict[str, Any]]:
        """Return the records that match every filter, as `records.load_records` takes them."""
        filters |= {"profile": profile, "tag": tag, "task": task}
        return [e for e in self.records if records.matches(e, filters)]

    @cached_property
    def profiles(self) -> dict[str, Any]:
        """Contents of profiles.yml; see `profiles`."""
        return profiles(self.name)

    @cached_property
    def published(self) -> dict[str, dict[str, Any]]:
        """The printed tables that compare methods on data sets, by id.

        `metrics` are keys of METRICS; a row has its printed `name`, `values` {data set: number or None, or a list of
        one for each metric} and, where we run the same, `method`, `result`, `variant` and `tag`; `reported` holds
        numbers that the table quotes from other papers, `range` {data set: [lowest, highest] run for each metric},
        `spread` {data set: standard deviation over runs for each metric}.
        """
        return {entry["id"]: entry for entry in self._printed.get("tables", [])}

    def printed(self, table: str, metric: str | None = None) -> list[dict[str, Any]]:
        """A table's rows with the numbers of one metric, by default its first; ValueError for unknown ones."""
        check_name("table", table, self.published)
        metrics, rows = self.published[table]["metrics"], self.published[table]["rows"]
        check_name(f"metric of {table}", metric or metrics[0], metrics)
        at = metrics.index(metric or metrics[0])
        found = []
        for row in rows:
            one = {"values": {k: v[at] if isinstance(v, list) else v for k, v in row["values"].items()}}
            for key in ("range", "spread"):
                if key in row:
                    one[key] = {k: values[at] for k, values in row[key].items()}
            found.append(row | one)
        return found

    @cached_property
    def others(self) -> dict[str, dict[str, Any]]:
        """Other printed tables, by id: a row has `name`, `values`, one for each of `columns`, and maybe `parameter`."""
        return {entry["id"]: entry for entry in self._printed.get("others", [])}

    @cached_property
    def names(self) -> dict[str, str]:
        """Names of the data sets as the paper prints them, in its order, by our name."""
        return self._printed.get("names", {})

    @cached_property
    def headline(self) -> str:
        """The metric by which the pages tell what a setting changes, by default "nmi_geometric"."""
        return self._printed.get("headline", "nmi_geometric")

    @cached_property
    def deviations(self) -> list[dict[str, Any]]:
        """Where paper, released code and this book differ, from deviations.yml.

        `effect` says in words what is known of it; or `runs` are tags whose records measure it against those of the
        tag `base`, by default "main". {name} in `ours` stands for a parameter of the method, as the variant "paper"
        and the profiles' defaults set it; ValueError for an unknown one.
        """
        settings = defaults(self.profiles["method"]) | self.profiles["default"]
        entries = []
        for entry in load_yaml(self.folder / "deviations.yml")["deviations"]:
            try:
                ours = entry["ours"].format(**settings)
            except KeyError as error:
                raise unknown_name(f"parameter in deviations.yml, {entry['id']}", error.args[0], settings) from None
            entries.append({"runs": [], "base": "main", **entry, "ours": ours})
        return entries

    @cached_property
    def claims(self) -> list[dict[str, Any]]:
        """What the paper claims: `claim`, `where`, and `check` or `open`; see `claimed`."""
        known = {entry["id"]: entry["claims"] for entry in claimed()}
        check_name("paper", self.name, known)
        return known[self.name]

    @cached_property
    def _printed(self) -> dict[str, Any]:
        path = self.folder / "published.yml"
        return load_yaml(path) if path.is_file() else {}


def claimed() -> list[dict[str, Any]]:
    """Papers of book/claims.yml, each with `id`, `number`, `cite`, `title` and `claims`."""
    return load_yaml(BOOK / "claims.yml")["papers"]


def papers() -> list[str]:
    """Name the papers that have an experiment: folders of the book with a profiles.yml."""
    return sorted(path.parent.name for path in BOOK.glob("*/profiles.yml"))


def paper_folder(paper: str) -> Path:
    """book/<paper>; ValueError for an unknown paper, naming the nearest ones."""
    check_name("paper", paper, papers())
    return BOOK / paper


def profiles(paper: str) -> dict[str, Any]:
    """Contents of book/<paper>/profiles.yml; ValueError for an unknown paper."""
    return {"shared": ["n_clusters"]} | load_yaml(paper_folder(paper) / "profiles.yml")


def methods(paper: str) -> list[str]:
    """Name the methods of a paper's experiment: its own, and those it is compared with."""
    declared = profiles(paper)
    return [declared["method"], *declared["baselines"]]


def profile_entry(paper: str, dataset: str, profile: str) -> dict[str, Any]:
    """A data set's entry of a profile; ValueError for unknown names.

    The user's own images take the schedule of the digits where the profile has one, and else the defaults.
    """
    by_profile = profiles(paper)["profiles"]
    check_name("profile", profile, by_profile)
    if dataset in by_profile[profile]:
        return by_profile[profile][dataset]
    if is_own(dataset):
        digits = by_profile[profile].get("digits", {})
        schedule = {k: v for k, v in digits.items() if k not in {*ABOUT, "n_clusters"} or k == "others"}
        told = {"source": "defaults of profiles.yml; the data set is the user's own"}
        return schedule | told | ({"reduced": f"the schedule of the digits in profile {profile}"} if schedule else {})
    elsewhere = [p for p, entries in by_profile.items() if dataset in entries]
    if not elsewhere:
        raise unknown_name("data set", dataset, {d for e in by_profile.values() for d in e})
    have = f"{' and '.join(elsewhere)} have one: add -p profile={elsewhere[0]}."
    raise ValueError(f"profile {profile!r} has no setting for {dataset!r}; {have}")


def resolve(
    paper: str, dataset: str, profile: str, overrides: dict | None = None, *, method: str = "", variant: str = "paper"
) -> dict[str, Any]:
    """Every parameter that a method, by default the paper's own, is built with, `random_state` excepted.

    The paper's own, and a study of it, take profiles.yml's `default` and the data set's entry; another what is `shared`
    of these, its `baselines`, and the entry's `others`. A variant's come before these, the overrides last. ValueError
    for unknown names and without n_clusters, TypeError for a value of the wrong type.
    """
    declared = profiles(paper)
    method = method or declared["method"]
    check_name(f"method of {paper}", method, methods(paper))
    known, variants = signature(method), estimator_class(method).VARIANTS
    check_name(f"variant of {method}", variant, variants)
    entry = profile_entry(paper, dataset, profile)
    chosen = declared["default"] | {k: v for k, v in entry.items() if k not in ABOUT}
    if not issubclass(estimator_class(method), estimator_class(declared["method"])):
        chosen = {k: chosen[k] for k in declared["shared"] if k in chosen and k in known}
        chosen |= declared["baselines"][method] or {}
        chosen |= {k: v for k, v in entry.get("others", {}).items() if k in known}
    for name, value in (chosen := chosen | (overrides or {})).items():
        check_name(f"parameter of {method}", name, known)
        expected = type(known[name])
        if type(value) is {float: int, tuple: list}.get(expected):
            chosen[name] = expected(value)
        elif not (known[name] is None or value is None or type(value) is expected):
            wanted = f"{name} of {method} must be {expected.__name__}, like {known[name]!r}"
            raise TypeError(f"{wanted}; got {value!r} ({type(value).__name__}).")
    if "n_clusters" not in chosen:
        raise ValueError(f"the number of clusters of {dataset!r} is not known: add -p n_clusters=...")
    return known | variants[variant] | {k: v for k, v in chosen.items() if v is not None}


def signature(method: str) -> dict[str, Any]:
    """A method's parameters and their defaults, `random_state` excepted; ValueError for an unknown one."""
    found = inspect.signature(estimator_class(method)).parameters
    return {k: p.default for k, p in found.items() if k != "random_state"}


@cache
def defaults(method: str) -> dict[str, Any]:
    """A method's parameters and their defaults as its text has them, without the seconds of torch."""
    texts = [path.read_text() for path in Path(__file__).parents[1].glob("methods/*.py")]
    classes = {n.name: n for text in texts for n in ast.parse(text).body if isinstance(n, ast.ClassDef)}

    def fields(name: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for base in (ast.unparse(node).rpartition(".")[2] for node in reversed(classes[name].bases)):
            found |= fields(base) if base in classes else {}
        typed = [n for n in classes[name].body if isinstance(n, ast.AnnAssign)]
        own = [n for n in typed if "ClassVar" not in ast.dump(n.annotation)]
        return found | {n.target.id: ast.literal_eval(n.value) for n in own}

    return fields(method)


@cache
def estimators() -> dict[str, type]:
    """The estimator classes by name; torch is imported with them, so only when asked for."""
    from reprolib import methods
    from reprolib.studies import clustpy
    from reprolib.studies.checkpoint_choice import AEKMeansByEpoch
    from reprolib.studies.classify import PatchCodes
    from reprolib.studies.graph_start import LatentPartitions
    from reprolib.studies.kept_start import DECSharp, StartPairs
    from reprolib.studies.kmeans_starts import DCSSByStart

    peers = (getattr(clustpy, f"ClustPy{name}") for name in ("DEC", "IDEC", "DCN", "DKM"))
    studies = PatchCodes, AEKMeansByEpoch, DCSSByStart, LatentPartitions, DECSharp, StartPairs
    own = (getattr(methods, name) for name in methods.__all__)
    return {kind.__name__: kind for kind in (*own, *studies, *peers)}


def estimator_class(method: str) -> type:
    """The estimator class of a method's name; ValueError for an unknown one."""
    check_name("method", method, estimators())
    return estimators()[method]
