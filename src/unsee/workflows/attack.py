"""Workflow of `attack`: recovery of forgotten answers, compared with the gold model."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from unsee import __version__, config
from unsee.api import Attack, Benchmark, Finding, Victim, registry
from unsee.api.fast_paths import PLAIN, Engine, engine_named
from unsee.api.idle import require_effect
from unsee.config import RECORD, Run, paths
from unsee.config.plugins import naming_plugins
from unsee.data import shared_cache
from unsee.data.fingerprint import fingerprint
from unsee.data.open import open_benchmark
from unsee.data.splits import only
from unsee.distributed import processes
from unsee.distributed.file_lock import owner
from unsee.errors import UnseeError, UserError, short_repr
from unsee.evaluation import recovery
from unsee.evaluation.attack_file import ATTACKS, path_beside, put_aside
from unsee.metrics.statistics import bootstrap_interval
from unsee.models import builtin
from unsee.models.identity import lineage_hash
from unsee.models.location import folder_of
from unsee.report.attacked import BACK, COLLAPSED, NO_GOLD
from unsee.scoring.rules import rules
from unsee.utils.files import atomic_write_json
from unsee.utils.parsing import read_object
from unsee.utils.progress import Bar
from unsee.utils.terminal import note, note_once

_DECIDING: Final = ("settings", "code", "models")
"""What the description of an attack must have in common with an earlier one, for its findings to stand."""
_UNJUDGED: Final = (
    "no answer can be judged: the questions say what they ask for, or the answers are in another script than the private strings "
    "(write these in both)"
)
_NO_NUMBER: Final = "the model's output is not a number: its weights are damaged, or too large for their type"


def attack(
    model: Path | str,
    data: Path | str = "",
    *,
    gold: Path | str = "",
    attacks: Sequence[str | Attack] = (),
    benchmark: str | Mapping[str, Any] = "",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    quick: bool = False,
    seed: int = 0,
    out: Path | str = "",
    original: Path | str = "",
    split: str = "all",
    engine: str = "",
) -> dict[str, Any]:
    """Attack a model and return the results by attack.

    The findings are written to `attacks.json` after every attack. Those that are there already, of the same weights, data, seed,
    settings and plugin, are not made again, unless their version did not count cut answers; an attack that could not be made is
    tried again, and leaves what it found with other settings there. The findings on a gold model are kept in the shared cache too
    (`unsee.data.shared_cache`), for all runs that stand beside it.

    Args:
        model: Run folder, folder, hub id or packaged model.
        data: Data of the deletion request; empty = those of the run.
        gold: Model that never saw the forget set. Success of an attack is what it brings back above this model.
        attacks: Names (`unsee list attacks`) or instances; empty = all.
        benchmark: Layout of the data; empty = recognise it.
        settings: Attack -> settings that differ from its defaults.
        quick: Fewer variants of each attack.
        seed: Start of every random stream.
        out: Folder of attacks.json; empty = the run folder.
        original: Model before unlearning, which activation patching needs; empty = the one that the run names.
        split: Part of the questions to test (`unsee.data.splits`): "attacks" has none that settings were chosen on.
        engine: `fast`, or `plain` for no fast paths; empty = that of the run.

    Raises:
        UserError: Model, data, names or settings are wrong, or two different attacks share a name; nothing has been attacked
            then.
    """
    processes.require_single("unsee attack")
    folder = Path(model)
    is_run = str(model) not in builtin.PACKAGED and (folder / RECORD).is_file()
    run = config.read(folder / RECORD) if is_run else Run()
    if is_run:
        config.require_ended(folder)
    attacks_by_name = _by_name(attacks or registry.names("attacks"), settings or {}, quick=quick)
    out_folder = Path(out or folder)
    if not (data or run.data) or not (out or is_run):
        option = "--out" if data or run.data else "--data"
        raise UserError(f"Give {option}: {model} is no run folder that records it.")
    paths.require_own(folder_of(model), out_folder)
    set_models = (model for chosen_attack in attacks_by_name.values() for model in chosen_attack.named_models())
    for other_model in filter(None, map(str, (gold, original, *set_models))):
        folder_of(other_model)
    layout = config.benchmark_of(Run(data=str(data), benchmark=benchmark), run)
    with naming_plugins(run):
        opened_data = only(open_benchmark(str(data or run.data), layout), split)
    given_models = {"model": model, "gold": gold, "original": original or run.model}
    models = {model_role: str(path) for model_role, path in given_models.items() if path}
    facts = {
        "data": fingerprint(opened_data),
        "seed": seed,
        **{model_role: lineage_hash(path) for model_role, path in models.items()},
    }
    if not data and split == "all" and config.data_hash_of(folder) not in ("", facts["data"]):
        note(config.changed_data(folder))
    switches = engine_named(engine or run.engine)
    facts |= {"split": split} if split != "all" else {}
    facts |= {"engine": "plain"} if switches == PLAIN else {}
    if run.model:
        _tell_of_other_gold(folder, str(gold))
    openers = {model_role: _opener(path, switches) for model_role, path in models.items()}
    out_folder.mkdir(parents=True, exist_ok=True)
    with owner(out_folder):
        results = _finished_attacks(out_folder / ATTACKS, facts)
        outcomes = dict(results)
        for name, chosen_attack in attacks_by_name.items():
            earlier, description = results.get(name, {}), _description(chosen_attack)
            if not _stands(earlier, description):
                named = {"models": description["models"]} if "models" in description else {}
                gold_rows = _GoldRows(out_folder, chosen_attack, {"attack": name, **facts, **named}, switches)
                with registry.faults("attacks", name):
                    outcome = _run_attack(name, chosen_attack, opened_data, openers, seed, gold_rows)
                outcomes[name] = {**description, **outcome}
                if "findings" in outcome or "findings" not in earlier:
                    results[name] = outcomes[name]
                    atomic_write_json(out_folder / ATTACKS, {"facts": facts, "attacks": results})
                else:
                    note(f"{name} could not be made; {ATTACKS} keeps what an earlier call found.")
    return {name: outcomes[name] for name in attacks_by_name}


def _tell_of_other_gold(folder: Path, gold: str) -> None:
    """Print a note if the packaged gold model does not match the run's promise."""
    picture_gold = f"{gold}-picture"
    if picture_gold in builtin.PACKAGED and config.result_of(folder).get("promise") == "picture":
        note(f"This run promises to forget pictures only; gold for that is {picture_gold}.")


def _by_name(
    names: Sequence[str | Attack], settings: Mapping[str, Mapping[str, Any]], *, quick: bool
) -> dict[str, Attack]:
    """Return the attacks by name, or raise if two share one or settings are for none of them."""
    attacks_by_name: dict[str, Attack] = {}
    for name_or_attack in names:
        name, chosen_attack = attack_of(name_or_attack, settings, quick=quick)
        if attacks_by_name.setdefault(name, chosen_attack) != chosen_attack:
            raise UserError(
                f"Two attacks with different settings are called {name}, and {ATTACKS} keeps one of each name. Call "
                "`attack` for each of them, with another `out`."
            )
    if unused_names := set(settings) - attacks_by_name.keys():
        raise UserError(
            f"Settings are given for the attack {min(unused_names)}, which is not among {', '.join(attacks_by_name)}."
        )
    return attacks_by_name


def attack_of(name: str | Attack, settings: Mapping[str, Mapping[str, Any]], *, quick: bool) -> tuple[str, Attack]:
    """Return an attack with its name. Settings win over `quick`.

    Args:
        name: Name of the attack, or the attack itself.
        settings: Attack -> settings that differ from its defaults.
        quick: Whether its quick form is what they differ from.

    Raises:
        UserError: A setting can have no effect, or is given beside an attack that is an object.
    """
    if isinstance(name, Attack):
        attack_name = registry.name_of("attacks", type(name)) or type(name).__name__.lower()
        if quick or attack_name in settings:
            option = "quick" if quick else f"settings of {attack_name}"
            raise UserError(
                f"{option}: the attack {attack_name} is an object and has its settings. Give its name, or leave them out."
            )
        return attack_name, name
    cls, own_settings = registry.load("attacks", name), settings.get(name, {})
    if not isinstance(own_settings, Mapping):
        raise UserError(
            f"attack {name}: expected settings by name, such as {name}.NAME=VALUE, got {short_repr(own_settings)}."
        )
    defaults = cls().quick() if quick else cls()
    chosen_attack = config.build(cls, {**config.plain(asdict(defaults)), **own_settings}, where=f"attack {name}")
    require_effect({"attack": chosen_attack}, chosen_attack.idle(), only={f"attack.{key}" for key in own_settings})
    return name, chosen_attack


def _description(chosen_attack: Attack) -> dict[str, Any]:
    """Return what is written of an attack beside its results.

    That includes the hash of its code if it is not one of unsee, and those of the models that its settings name.
    """
    own = type(chosen_attack).__module__.partition(".")[0] == __name__.partition(".")[0]
    code = "" if own else _hash_of(type(chosen_attack))
    models = [lineage_hash(model) for model in chosen_attack.named_models()]
    return {
        "settings": config.plain(asdict(chosen_attack)),
        **({"code": code} if code else {}),
        **({"models": models} if models else {}),
        "needs": chosen_attack.needs,
        "finds": chosen_attack.finds,
        "axis": chosen_attack.axis,
    }


def _stands(earlier: Mapping[str, Any], description: Mapping[str, Any]) -> bool:
    """Tell whether the findings of an earlier call stand. Some versions did not count cut answers."""
    counted = "recovered" not in earlier or "cut" in earlier or description["finds"] != "answers"
    return "findings" in earlier and counted and all(earlier.get(key) == description.get(key) for key in _DECIDING)


def _run_attack(
    name: str,
    chosen_attack: Attack,
    data: Benchmark,
    openers: Mapping[str, Callable[[], Any]],
    seed: int,
    gold_rows: _GoldRows,
) -> dict[str, Any]:
    """Return the findings of an attack on all models, and their summary."""
    start = time.perf_counter()
    findings_by_model: dict[str, list[Finding]] = {}
    try:
        for model_role in [role for role in ("model", "gold") if role in openers]:
            if model_role == "gold" and (cached_findings := gold_rows.read()):
                findings_by_model[model_role] = cached_findings
                continue
            with TemporaryDirectory() as work_folder:
                victim = Victim(
                    open=openers[model_role],
                    benchmark=data,
                    work=Path(work_folder),
                    seed=seed,
                    original=openers.get("original"),
                    gold=openers.get("gold"),
                )
                findings_by_model[model_role] = list(_with_progress(chosen_attack.run(victim), f"{name}: {model_role}"))
            if model_role == "gold":
                gold_rows.write(findings_by_model[model_role])
    except UnseeError as error:
        return {"why": str(error)}
    return {
        "seconds": round(time.perf_counter() - start, 1),
        **worst_summary(findings_by_model["model"], findings_by_model.get("gold")),
        "findings": {
            model_role: [{**asdict(finding), "mean": finding.mean} for finding in findings]
            for model_role, findings in findings_by_model.items()
        },
    }


class _GoldRows:
    """Findings of one attack on a gold model, in the shared cache of the run folders."""

    def __init__(self, folder: Path, chosen_attack: Attack, facts: Mapping[str, Any], engine: Engine) -> None:
        """Open the cache, with everything that the findings depend on in its key.

        That includes the code that attacks (perhaps a plugin's), generates and judges.
        """
        key_parts = {key: value for key, value in facts.items() if key != "model"}
        key_parts |= {"settings": config.plain(asdict(chosen_attack)), "code": _hash_of(type(chosen_attack))}
        key_parts |= {"asking": _hash_of(recovery), "rules": rules()}
        self.key = json.dumps({**key_parts, "unsee": __version__}, sort_keys=True)
        cacheable = "gold" in facts and key_parts["code"]
        self.rows = shared_cache.shared_rows(folder, "attacks.jsonl", engine) if cacheable else None

    def read(self) -> list[Finding]:
        """Return the findings of an earlier run, empty if there are none."""
        rows = self.rows.get(self.key) if self.rows else None
        return [Finding(**row) for row in rows or ()]

    def write(self, findings: Sequence[Finding]) -> None:
        """Keep the findings."""
        if self.rows:
            self.rows.put({self.key: [asdict(finding) for finding in findings]})


def _hash_of(cls: Any) -> str:
    """Return the hash of the source file of a class or module.

    Empty if there is no file, as in a notebook.
    """
    try:
        return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
    except (TypeError, OSError):
        return ""


def worst_summary(model: Sequence[Finding], gold: Sequence[Finding] | None) -> dict[str, Any]:
    """Return the worst variant of an attack, with its recovery above gold and the interval.

    The worst variant recovers most above gold (without gold: most), over the entities that both models could be judged for. Mostly
    degenerate answers prove nothing about what was not recovered, so a variant with such answers counts only if it recovers at
    least `BACK` above gold, and never if most answers of the gold model are degenerate too. The worst is chosen among all
    variants, so that its interval (bootstrap over entities, paired with gold) is too narrow by that choice. `cut` and `unjudged`
    are the largest shares of cut answers, and of ones that cannot be judged, in a variant that counts.
    """
    gold_by_variant = {(finding.variant, finding.at): finding for finding in gold or ()}
    pairs = [
        _Pair.of(
            finding,
            None if gold is None else gold_by_variant.get((finding.variant, finding.at), _unjudged(finding)),
        )
        for finding in model
    ]
    usable = [pair for pair in pairs if pair.gaps and (pair.gold is None or pair.gold.degenerate < COLLAPSED)]
    sound = [pair for pair in usable if pair.finding.degenerate < COLLAPSED or pair.above_gold >= BACK]
    if not sound:
        return {"collapsed": True, "why": _why_collapsed(model, pairs, usable)}
    worst = max(sound, key=lambda pair: pair.above_gold)
    interval = bootstrap_interval(worst.gaps)
    return {
        "collapsed": False,
        "worst": worst.finding.variant,
        "at": worst.finding.at,
        "recovered": worst.finding.mean,
        "gold": None if worst.gold is None else worst.gold.mean,
        "above_gold": worst.above_gold if worst.gold else None,
        "interval": list(interval) if worst.gold and interval else None,
        "questions": worst.finding.questions,
        **{name: max(pair.finding.further.get(name, 0.0) for pair in sound) for name in ("cut", "unjudged")},
    }


def _unjudged(finding: Finding) -> Finding:
    """Return the finding of a gold model whose answers cannot be judged."""
    return replace(finding, recovered={})


@dataclass(frozen=True)
class _Pair:
    """A finding on the model beside that on the gold model, if there is one."""

    finding: Finding
    gold: Finding | None

    @classmethod
    def of(cls, finding: Finding, gold: Finding | None) -> _Pair:
        """Return the pair, with the entities that both could be judged for."""
        if gold is None:
            return cls(finding, None)
        shared = finding.recovered.keys() & gold.recovered.keys()
        model, beside = (
            replace(each, recovered={name: share for name, share in each.recovered.items() if name in shared})
            for each in (finding, gold)
        )
        return cls(model, beside)

    @property
    def gaps(self) -> list[float]:
        """Recovered share of each entity above gold."""
        gold_shares = self.gold.recovered if self.gold else {}
        return [share - gold_shares.get(entity, 0.0) for entity, share in self.finding.recovered.items()]

    @property
    def above_gold(self) -> float:
        """Mean over entities of the share above gold."""
        return sum(self.gaps) / len(self.gaps)


def _why_collapsed(model: Sequence[Finding], pairs: Sequence[_Pair], usable: Sequence[_Pair]) -> str:
    """Return why no variant counts."""
    if not model:
        return "the data have nothing that any variant could be tried on"
    if all(recovery.NOT_FINITE in finding.further for finding in model):
        return _NO_NUMBER
    if not any(finding.recovered for finding in model):
        return _UNJUDGED
    if not any(pair.gaps for pair in pairs):
        return "in no variant there is an entity that the answers of both models can be judged for"
    if not usable:
        return "in every variant most answers of the gold model are degenerate"
    lowest = min(pair.finding.degenerate for pair in usable)
    return f"in every variant at least {lowest:.0%} of the answers are degenerate"


def line(name: str, result: Mapping[str, Any]) -> str:
    """Return the outcome of an attack in one line."""
    if "recovered" not in result:
        return f"{name}: not measured: {result.get('why', 'no finding')}"
    axis = "" if result["at"] is None else f", {result['at']:g} {result['axis']}"
    is_trace = result.get("finds") == "traces"
    gold = "" if result["gold"] is None else f", gold {result['gold']:.0%}"
    verb = "left inside" if is_trace else "comes back"
    remark = f"; shows nothing: {NO_GOLD}" if is_trace and not gold else ""
    unsure = "".join(
        f"; up to {result[key]:.0%} of the answers {words}"
        for key, words in {"cut": "cut", "unjudged": "not to be judged"}.items()
        if result.get(key)
    )
    found = f"{result['recovered']:.0%} {verb}{gold}"
    return f"{name}: {found} ({result['worst']}{axis}{unsure}; {result['seconds']:.0f} s){remark}"


def _opener(path: str, engine: Engine) -> Callable[[], Any]:
    def opened() -> Any:
        from unsee.models.checkpoint import open_model

        loaded = replace(open_model(builtin.resolve(path)), engine=engine)
        loaded.model.to(processes.device())
        return loaded

    return opened


def _finished_attacks(file: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the finished attacks of the same weights, data, seed and split.

    Those of other facts are moved to a file beside it, for a later call with the same facts.
    """
    content = read_object(file) if file.is_file() else {}
    if content.get("facts") not in (None, facts):
        put_aside(file.parent)
    earlier_file = path_beside(file, facts)
    if earlier_file.is_file():
        content = read_object(earlier_file)
        earlier_file.replace(file)
    return dict(content.get("attacks", {})) if content.get("facts") == facts else {}


def _with_progress(findings: Iterator[Finding] | Sequence[Finding], label: str) -> Iterator[Finding]:
    """Yield the findings with a progress line.

    Raises:
        UserError: There are two of one variant at one place.
    """
    places = set()
    with Bar(label) as bar:
        for number, finding in enumerate(findings, start=1):
            if (finding.variant, finding.at) in places:
                raise UserError(f"the attack has two findings of the variant {finding.variant!r} at {finding.at}")
            places.add((finding.variant, finding.at))
            if finding.mean is None:
                reason = _NO_NUMBER if recovery.NOT_FINITE in finding.further else _UNJUDGED
                note_once(f"{label}: the variant {finding.variant} does not count: {reason}")
            else:
                bar.update(number, f"{finding.variant} {finding.mean:.0%}")
            yield finding
