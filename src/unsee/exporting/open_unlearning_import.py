"""Import of open-unlearning experiments: trainer names, settings, `retain_logs_path`.

Read from the resolved config of one of its runs (`.hydra/config.yaml`) or from the overrides of its command line. Its data sets are
text and its models language models, so that model and data are to be given anew.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from unsee import config
from unsee.api import Training, registry
from unsee.config import Run
from unsee.errors import UserError, short_repr, unknown_name

METHODS: Final = {
    "GradAscent": "ga",
    "GradDiff": "grad_diff",
    "NPO": "npo",
    "SimNPO": "simnpo",
    "RMU": "rmu",
    "UNDIAL": "undial",
    "SatImp": "satimp",
    "WGA": "wga",
    "DPO": "dpo",
    "PDU": "pdu",
    "CEU": "ceu",
}
"""open-unlearning's trainer -> ours; for those that unsee lacks, the error lists its methods."""
_RENAMED: Final[Mapping[str, Mapping[str, str]]] = {
    "simnpo": {"delta": "margin"},
    "undial": {"beta": "gamma"},
    "pdu": {"retain_loss_eps": "retain_bound", "dual_step_size": "dual_step"},
    "rmu": {"steering_coeff": "coefficient"},
}
"""Method -> its settings under other names there."""
_METHOD_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "SimNPO": {"gamma": 0.125, "alpha": 1.0},
    "UNDIAL": {"gamma": 1.0, "alpha": 0.0},
    "SatImp": {"gamma": 0.1, "alpha": 1.0},
    "RMU": {"steering_coeff": 2.0, "trainable_params_regex": [".*"]},
}
"""Arguments in configs/trainer/*.yaml that differ from ours or, as weights of forget and retain terms, from 1."""
_LAYER: Final = re.compile(r"model\\?\.layers\\?\.(\d+)")
"""RMU's `module_regex` of one decoder layer."""
_TRAINING: Final = {
    "learning_rate": "lr",
    "num_train_epochs": "epochs",
    "max_steps": "max_steps",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulate",
    "weight_decay": "weight_decay",
    "max_grad_norm": "clip",
    "lr_scheduler_type": "scheduler",
    "warmup_steps": "warmup_steps",
    "gradient_checkpointing": "gradient_checkpointing",
    "report_to": "report_to",
}
_IRRELEVANT: Final = re.compile(
    r"(per_device_)?eval_\w+|logging_\w+|save_\w+|do_\w+|ddp_\w+|(overwrite_)?output_dir|run_name|disable_tqdm|bf16(_full_eval)?|optim|seed"
)
"""Training arguments without effect on the weights, or read apart from the table above."""
_READ: Final = frozenset(
    {"trainer", "model", "data", "task_name", "retain_logs_path", "experiment"}  # read, or to be given anew
    | {"collator", "eval", "mode", "paths", "hydra"}  # without effect on the weights
)
"""Parts of an experiment that need no remark of their own."""
_DEFAULTS: Final[Mapping[str, Any]] = {
    "learning_rate": 1e-5,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
    "num_train_epochs": 10,
    "weight_decay": 0.0,
    "bf16": True,
}
"""Defaults of open-unlearning's command line, from `configs/trainer/finetune.yaml`
(https://github.com/locuslab/open-unlearning/blob/247bd13/configs/trainer/finetune.yaml)."""
_OWN_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "UNDIAL": {"learning_rate": 1e-4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8},
    "WGA": {"num_train_epochs": 5},
    "SatImp": {"num_train_epochs": 5},
}
"""Defaults that `configs/trainer/*.yaml` override (UNDIAL of 5a7dfb4, WGA of 2757110, SatImp of 423c6f2)."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Run, and parts of the experiment that were not converted."""

    run: Run
    retain_logs_path: str
    """For `unsee export --to open-unlearning --retain-logs-path`; empty if the experiment names none."""
    remarks: tuple[str, ...]


def read_experiment(place: Path | str, *, model: str = "", data: str = "", out: str = "") -> Imported:
    """Read a resolved config file of open-unlearning.

    Args:
        place: YAML file with every reference resolved, as Hydra writes it beside an experiment.
        model: Model of the run. Empty: left open, with a remark.
        data: Data of the run. Empty: left open, with a remark.
        out: Run folder. Empty: `runs/` and the experiment's task name.
    """
    return _import_experiment(config.read_mapping(Path(place)), model=model, data=data, out=out)


def from_overrides(words: Sequence[str], *, model: str = "", data: str = "", out: str = "") -> Imported:
    """Parse its command line: `trainer=NPO trainer.method_args.beta=0.1 ...`.

    Arguments that it does not name get open-unlearning's own defaults, and a remark lists them. What the file of an
    `experiment=` sets is not read, and a remark says so.

    Args:
        words: Words behind the command, as Hydra takes them (`+` in front is ignored).
        model: Model of the run. Empty: left open, with a remark.
        data: Data of the run. Empty: left open, with a remark.
        out: Run folder. Empty: `runs/` and the experiment's task name.
    """
    values: dict[str, Any] = {}
    for word in words:
        name, _, value = word.lstrip("+").partition("=")
        name = "trainer.handler" if name == "trainer" else name
        values = config.merge(values, config.parse_overrides([f"{name}={value}"]))
    trainer = _mapping(values, "trainer")
    given_args, trainer_defaults = _mapping(trainer, "args"), _OWN_DEFAULTS.get(str(trainer.get("handler")), {})
    default_args = {key: value for key, value in {**_DEFAULTS, **trainer_defaults}.items() if key not in given_args}
    imported = _import_experiment(
        config.merge(values, {"trainer": {"args": default_args}}), model=model, data=data, out=out
    )
    listing = ", ".join(f"{key}={value}" for key, value in default_args.items())
    remarks = [f"not named, so as in open-unlearning's configs/trainer: {listing}"] if default_args else []
    if experiment := values.get("experiment"):
        remarks.append(
            f"experiment={experiment}: the arguments in this file are not read; give the .hydra/config.yaml of the run instead"
        )
    return replace(imported, remarks=(*imported.remarks, *remarks))


def _import_experiment(values: Mapping[str, Any], *, model: str = "", data: str = "", out: str = "") -> Imported:
    """Return the run of an experiment, with remarks."""
    trainer = _mapping(values, "trainer")
    if "handler" not in trainer:
        raise UserError(f"This is no experiment of open-unlearning: it names no trainer. Known: {', '.join(METHODS)}.")
    remarks: list[str] = []
    method, settings = _method(str(trainer["handler"]), _mapping(trainer, "method_args"), remarks)
    training = _training(_mapping(trainer, "args"), remarks)
    config.build(Training, training, where="training")
    task = Path(str(values.get("task_name", "") or "experiment")).name
    run = Run(
        model=model,
        data=data,
        method=method,
        out=out or f"runs/{task}",
        seed=_seed(_mapping(trainer, "args").get("seed", 0)),
        settings=settings,
        training={"tune": "full", "stop": "never", **training},
    )
    remarks += _left_out(values, _READ)
    remarks += _left_out(trainer, {"handler", "args", "method_args"})
    for name, location in (("model", model), ("data", data)):
        if not location:
            remarks.append(f"{name}: open-unlearning's are for text only; say `{name}:` yourself")
    return Imported(run=run, retain_logs_path=str(values.get("retain_logs_path") or ""), remarks=tuple(remarks))


def _method(handler: str, arguments: Mapping[str, Any], remarks: list[str]) -> tuple[str, dict[str, Any]]:
    """Return the method and its settings."""
    if handler not in METHODS:
        raise unknown_name("trainer of open-unlearning", handler, METHODS)
    arguments = {**_METHOD_DEFAULTS.get(handler, {}), **arguments}
    name = METHODS[handler]
    if name == "rmu":
        arguments = _rmu_arguments(arguments)
    default_loss = "EMBED_DIFF" if name == "rmu" else "NLL"
    retain_loss = arguments.get("retain_loss_type", default_loss)
    if name == "grad_diff" and retain_loss == "KL":
        name = "kl"
        remarks.append("retain_loss_type=KL: over all positions in open-unlearning, over those of the answer here")
    elif retain_loss != default_loss:
        term = "the distance of states" if name == "rmu" else "cross-entropy"
        remarks.append(f"retain_loss_type={retain_loss}: {name} has {term} on retain only")
    method_names = registry.names("methods")
    if name not in method_names:
        raise UserError(f"unsee has no method for open-unlearning's {handler}; it has {', '.join(method_names)}.")
    method_class = registry.load("methods", name)
    settings = _settings(name, {setting.name for setting in fields(method_class)}, arguments, remarks)
    config.build(method_class, settings, where=f"method {name}")
    return name, settings


def _settings(
    name: str, setting_names: Collection[str], arguments: Mapping[str, Any], remarks: list[str]
) -> dict[str, Any]:
    """Return a method's settings, with forget weight 1, since only the ratio counts."""
    gamma, alpha = _number(arguments, "gamma"), _number(arguments, "alpha")
    if gamma <= 0:
        raise UserError(f"method_args.gamma must be above 0, got {gamma:g}: it is the weight of the forget term.")
    weight_key = "weight" if name == "kl" else "retain_weight"
    settings: dict[str, Any] = {weight_key: alpha / gamma} if weight_key in setting_names else {}
    if gamma != 1 and settings:
        remarks.append(f"gamma={gamma:g}: the forget term has weight 1, retain {alpha / gamma:g}; scale the rate")
    new_names = _RENAMED.get(name, {})
    for key, value in arguments.items():
        if key in new_names:
            settings[new_names[key]] = value
        elif key in setting_names and key not in ("gamma", "alpha"):
            settings[key] = value
        elif key not in ("gamma", "alpha", "retain_loss_type"):
            remarks.append(f"{key}={value}: {name} has no such setting; left out")
    return settings


def _rmu_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return RMU's arguments with layer and trained weights as settings of ours, where there are such."""
    converted = dict(arguments)
    layer = _LAYER.fullmatch(str(arguments.get("module_regex", r"model\.layers\.7")))
    if layer and "module_regex" in arguments:
        converted["layer"] = int(layer[1])
        del converted["module_regex"]
    updates = {"['.*']": "all"}
    if layer:
        trained = "|".join(str(int(layer[1]) - below) for below in (2, 1, 0))
        updates[str([rf"model\.layers\.({trained})\.mlp\.down_proj\.weight"])] = "down_proj"
    if update := updates.get(str(arguments["trainable_params_regex"])):
        converted["update"] = update
        del converted["trainable_params_regex"]
    return converted


def _number(arguments: Mapping[str, Any], name: str) -> float:
    """Return a weight of open-unlearning, 1 by default."""
    value: float = config.convert(arguments.get(name, 1.0), float, where=f"method_args.{name}")
    if not math.isfinite(value):
        raise UserError(f"method_args.{name} must be a finite number, got {value}.")
    return value


def _seed(value: Any) -> int:
    """Return the seed of an experiment."""
    seed: int = config.convert(value, int, where="trainer.args.seed")
    return seed


def _training(arguments: Mapping[str, Any], remarks: list[str]) -> dict[str, Any]:
    """Return the training settings for its TrainingArguments, without irrelevant ones.

    Of all others that it cannot convert it adds a remark.
    """
    settings = {ours: arguments[theirs] for theirs, ours in _TRAINING.items() if theirs in arguments}
    if isinstance(max_steps := settings.get("max_steps"), int) and max_steps <= 0:  # there: no limit
        del settings["max_steps"]
    if settings.get("scheduler") not in (None, "linear", "cosine", "constant"):
        remarks.append(f"lr_scheduler_type={settings.pop('scheduler')}: linear, cosine or constant here; left out")
    if "report_to" in settings:
        settings["report_to"] = list(
            config.convert(settings["report_to"], tuple[str, ...], where="trainer.args.report_to")
        )
    if "bf16" in arguments:
        settings["precision"] = "bf16" if arguments["bf16"] else "auto"
    if "adamw" not in str(arguments.get("optim", "adamw")):
        remarks.append(f"optim={arguments['optim']}: AdamW here")
    warmups = [name for name in ("warmup_epochs", "warmup_ratio") if arguments.get(name)]
    remarks += [f"{name}={arguments[name]}: set training.warmup_steps" for name in warmups]
    known = {*_TRAINING, *warmups, *filter(_IRRELEVANT.fullmatch, arguments)}
    remarks += _left_out(arguments, known)
    return settings


def _left_out(values: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Return a remark on each value that is given, not off, and not known."""
    others = {key: value for key, value in values.items() if value and key not in known}
    return [f"{key}={short_repr(value)}: not converted; left out" for key, value in others.items()]


def _mapping(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    mapping = values.get(key) or {}
    if not isinstance(mapping, Mapping):
        raise UserError(f"{key!r} must be a mapping in an experiment of open-unlearning, got {short_repr(mapping)}.")
    return dict(mapping)
