"""Run configuration: schema, run files, overrides, path checks."""

from unsee.config.overrides import (
    MOST_NODES,
    dump_yaml,
    merge,
    name_and_settings,
    parse_overrides,
    parse_yaml,
    read_mapping,
)
from unsee.config.run import (
    RECORD,
    SEEDS,
    EvalConfig,
    Run,
    RunOptions,
    benchmark_of,
    commit,
    read,
    require_answered,
    require_ended,
    require_judged,
    versions,
    write,
)
from unsee.config.schema import build, convert, plain, settings_of

__all__ = [
    "MOST_NODES",
    "RECORD",
    "SEEDS",
    "EvalConfig",
    "Run",
    "RunOptions",
    "benchmark_of",
    "build",
    "commit",
    "convert",
    "dump_yaml",
    "merge",
    "name_and_settings",
    "parse_overrides",
    "parse_yaml",
    "plain",
    "read",
    "read_mapping",
    "require_answered",
    "require_ended",
    "require_judged",
    "settings_of",
    "versions",
    "write",
]
