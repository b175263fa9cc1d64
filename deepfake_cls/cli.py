"""What every entry point shares: Hydra, typed configurations, errors in one line, exit statuses."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar
from uuid import uuid4

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from deepfake_cls import distributed, gpus, jobs
from deepfake_cls.config import SCHEMAS, RecipeConfig, TrainConfig, TrainerConfig, conf_dir
from deepfake_cls.data import source
from deepfake_cls.errors import InputError
from deepfake_cls.schema import check

Schema = TypeVar("Schema")
PATHS = ("run_dir", "checkpoint", "init", "output", "runs")
GROUPS = {"data", "model", "augment", "recipe", "trainer", "logger"}
# Keys may be new here, since each part has its own.
OPEN = ("augment.", "model.args.", "model.args=", "logger.args.", "logger.args=")
WITHOUT_ARGS = ("~model.args", "+model.args={}")


def register_schemas() -> None:
    """Give Hydra every key with its default, so that the files of ``conf/`` hold what differs.

    The nodes are plain: types and ranges are checked by :func:`typed`, whose messages name what was expected.
    """
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        known = fields(TrainConfig) if issubclass(schema, TrainConfig) and schema is not TrainConfig else ()
        inherited = {entry.name for entry in known}
        store.store(name=f"schema_{name}", node=_plain(schema, inherited | GROUPS))
    store.store(name="schema_recipe", node=_plain(RecipeConfig))
    store.store(name="schema_trainer", node=_plain(TrainerConfig))
    for name in source:
        keys = _plain(source[name].Config)
        store.store(name=f"schema_data_{name}", node={**keys, "name": name})
        if not (conf_dir() / "data" / f"{name}.yaml").is_file():  # a plugin's: data=NAME needs no file
            store.store(group="data", name=name, node={**keys, "name": name})


def _plain(schema: type[Any], without: Collection[str] = ()) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(OmegaConf.structured(schema))
    return {key: value for key, value in values.items() if key not in without}


def import_plugins(modules: Sequence[str]) -> None:
    """Import modules of the user's own; the current folder is searched too.

    Raises:
        InputError: If one cannot be imported.
    """
    here = str(Path.cwd())
    if modules and not {here, ""} & {*sys.path}:
        sys.path.append(here)
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InputError(
                f"plugins=[{module}]: cannot be imported ({error}); give the name of a module in the current folder or"
                " of an installed one, such as my_package.my_module."
            ) from error
    if modules:
        register_schemas()


def plugins_of(words: Sequence[str]) -> list[str]:
    """The modules that ``plugins=[a,b]`` names on a command line."""
    values = [word.split("=", 1)[1].strip("[]") for word in words if word.lstrip("+").startswith("plugins=")]
    return [module.strip(" '\"") for value in values for module in value.split(",") if module.strip()]


def expanded(words: Sequence[str]) -> list[str]:
    """The words of a command line, as Hydra has to be told them.

    Where ``model.name`` is another than that of the chosen file, the file's ``args`` are dropped: Hydra alone would
    merge them.
    """
    found = [f"++{word}" if word.startswith(OPEN) else word for word in words]
    files = [word.split("=", 1)[1] for word in words if word.startswith("model=")]
    names = [word.split("=", 1)[1] for word in words if word.startswith("model.name=")]
    file = conf_dir() / "model" / f"{(files or ['resnet'])[-1]}.yaml"
    if names and not (file.is_file() and OmegaConf.load(file).name == names[-1]) and "~model.args" not in words:
        place = next(index for index, word in enumerate(words) if word.startswith(("model.name=", "model.args")))
        found[place:place] = WITHOUT_ARGS
    return found


def given(overrides: Sequence[str]) -> list[str]:
    """The words of a command line, of which :func:`expanded` and Hydra made these overrides."""
    added = {WITHOUT_ARGS[0] + "=null", *WITHOUT_ARGS}
    words = [word for word in overrides if word not in added]
    return [word.removeprefix("++") if word.startswith(tuple(f"++{key}" for key in OPEN)) else word for word in words]


def typed(config: DictConfig, schema: type[Schema]) -> Schema:
    """Check a composed configuration against its schema, key by key.

    Args:
        config: What Hydra composed.
        schema: The dataclass of the entry point.

    Returns:
        An instance of the schema; its ``data`` has the schema of the chosen layout.

    Raises:
        InputError: If a key is unknown, missing, or of another type.
    """
    tree = OmegaConf.to_container(config, resolve=True)
    assert isinstance(tree, dict)
    for declared in ("experiment", "sweep"):  # what is swept and why, not a setting of one run
        tree.pop(declared, None)
    data = tree.pop("data", None)
    for key in PATHS:
        if str(tree.get(key) or "").startswith("~"):
            tree[key] = str(Path(tree[key]).expanduser())
    checked = build(schema, tree)
    if data is not None:
        checked.data = build(source[data.get("name")].Config, data, "data.")  # type: ignore[attr-defined]
    return checked


def build(schema: type[Schema], tree: Mapping[Any, Any], prefix: str = "") -> Schema:
    """An instance of a schema from plain values.

    Args:
        schema: A dataclass.
        tree: Values by field; those that are absent take their default.
        prefix: Of the keys in messages, such as ``data.``.

    Raises:
        InputError: If a key is unknown or missing, or a value is of another type or out of range.
    """
    try:
        built: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), dict(tree)))
    except MissingMandatoryValue as error:
        key = f"{prefix}{error.full_key}"
        raise InputError(f"{key}: missing; give it on the command line, as in {key}=VALUE.") from error
    except OmegaConfBaseException as error:
        own = fields(schema)  # type: ignore[arg-type]
        for entry in own:
            if entry.name in tree and "list" in str(entry.type) and isinstance(tree[entry.name], int | float | str):
                key, value, rule = f"{prefix}{entry.name}", tree[entry.name], entry.metadata.get("rule")
                if rule is not None and not rule.passes([value]):
                    raise InputError(f"{key}={value}: expected {rule.expected}.") from error
                raise InputError(f"{key}={value}: expected a list; write '{key}=[{value}]'.") from error
        known = ", ".join(entry.name for entry in own)
        raise InputError(f"{prefix}{error.full_key}: {str(error).splitlines()[0]} (keys here: {known})") from error
    check(built, prefix)
    return built  # type: ignore[no-any-return]


def refuse_foreign_experiment(entry: str, words: list[str]) -> None:
    """Refuse two experiments at once, and one that belongs to another entry point.

    Args:
        entry: Name of the entry point.
        words: The command line.

    Raises:
        InputError: Saying what to type.
    """
    chosen = [
        name for word in words if word.lstrip("+").startswith("experiment=") for name in word.split("=")[1].split(",")
    ]
    if not chosen or chosen == ["null"]:
        return
    if len(chosen) > 1:
        raise InputError(f"experiment={','.join(chosen)}: one at a time; call the command once for each.")
    file = conf_dir() / "experiment" / f"{chosen[0]}.yaml"
    if not file.is_file():
        return  # from a folder of the user's own, or unknown: Hydra says which there are
    owner = OmegaConf.load(file).experiment.entry
    if owner != entry:
        raise InputError(f"experiment={chosen[0]}: belongs to python -m deepfake_cls.{owner}.")


def refuse_unknown_choices(words: Sequence[str]) -> None:
    """Refuse files of a group that there are not; Hydra would take many lines and would not mention plugins.

    Raises:
        InputError: Naming those that there are.
    """
    if any(word.startswith(("--config-dir", "-cd", "hydra.searchpath")) for word in words):
        return  # the file may be in a folder of the user's own
    for word in words:
        group, _, values = word.lstrip("+").partition("=")
        files = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml")) if group.isalpha() else []
        for value in values.split(",") if files else []:
            if not value.replace("-", "_").isidentifier() or value in (*files, "null"):
                continue  # also what is no plain name, such as glob(*)
            if group == "data":
                source[value]
            elif group == "model":
                raise InputError(
                    f"model={value}: unknown; expected one of {', '.join(files)}. A network of your own needs"
                    f" plugins=[MODULE] and model.name={value}."
                )
            else:
                raise InputError(f"{group}={value}: unknown; expected one of {', '.join(files)}.")


def main(name: str, schema: type[Schema], job: Callable[[Schema, bool], None]) -> None:
    """Run an entry point: once, or once for each job of a sweep.

    Jobs of a sweep run here one after the other, or wherever a launcher of Hydra puts them. A job that fails or crashes
    does not end the sweep: its error is printed when it happens and again at the end, and the exit status is 1. A stop
    by signal ends it, with 128 plus the signal's number.

    Args:
        name: Name of the root configuration, without ``.yaml``.
        schema: Its dataclass.
        job: Called with the typed configuration, and whether this is one job of a sweep.
    """
    if sys.platform == "win32":
        sys.exit("error: deepfake_cls runs on Linux and macOS; on Windows use WSL.")
    jobs.configure_logging()
    jobs.enable_faulthandler()
    OmegaConf.register_new_resolver("jobs_at_a_time", gpus.jobs_at_a_time, replace=True)
    for flag in ("-m", "--multirun"):
        if flag in sys.argv[2:]:  # argparse takes overrides on one side of a flag only
            sys.argv.remove(flag)
            sys.argv.insert(1, flag)
    sweeping = bool({"-m", "--multirun"} & {*sys.argv}) or any(word.startswith("experiment=") for word in sys.argv)
    if distributed.rank() > 0:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
        logging.disable(logging.INFO)
    if distributed.world_size() > 1 and (sweeping or name != "train"):
        what = "a sweep" if sweeping else f"deepfake_cls.{name}"
        jobs.tell(
            f"error: torchrun shares one training over many devices, and {what} is none; start it without torchrun."
        )
        sys.exit(1)
    if sweeping:
        # Dying of the signal would leave a launcher's workers behind; while a job is under way, it gets the signal.
        signal.signal(signal.SIGTERM, _stop)
    home, here = os.getpid(), Path.cwd()
    failures: list[str] = []
    # What a worker, perhaps on another machine, has to say: a file for each failed job.
    told = here / "runs" / ".sweep" / f"failed-{uuid4().hex}"

    try:
        refuse_foreign_experiment(name, sys.argv[1:])
        import_plugins(plugins_of(sys.argv[1:]))
        refuse_unknown_choices(sys.argv[1:])
        sys.argv[1:] = expanded(sys.argv[1:])
        folder = str(conf_dir())
    except InputError as error:
        sys.exit(f"error: {error}")

    def task(config: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        sweep = hydra_config.mode == RunMode.MULTIRUN
        words = " ".join(word.lstrip("+") for word in given(hydra_config.overrides.task))
        launcher = str(hydra_config.launcher.get("_target_"))
        isolated = sweep and "submitit" not in launcher  # SLURM itself gives each job a process, and sends it signals
        away = os.getpid() != home
        if away:
            jobs.configure_logging()
            os.chdir(here)
        if sweep:
            print(f"\n── job {hydra_config.job.num + 1}: {words}", flush=True)

        def run(config: DictConfig, sweep: bool) -> jobs.Outcome | None:
            if away:
                import_plugins(config.get("plugins", []))
            checked: Any = typed(config, schema)
            if "ray" in launcher:
                gpus.warn_of_hidden_gpus(checked.trainer.device)
            if isolated:
                shared = gpus.visible_gpus(checked.trainer.device) if "joblib" in launcher else []
                return jobs.in_own_process(name, checked, words, shared)
            job(checked, sweep)
            return None

        outcome = jobs.attempt(run, config, sweep, words)
        if outcome.signal is not None and not away:
            raise SystemExit(128 + outcome.signal)
        if outcome.failure is not None and away:
            told.mkdir(parents=True, exist_ok=True)
            (told / str(hydra_config.job.num)).write_text(outcome.failure)
        elif outcome.failure is not None:
            failures.append(outcome.failure)
        if away and sys.stdout is not None:
            sys.stdout.flush()  # a worker may be ended without notice

    entry: Any = hydra.main(version_base="1.3", config_path=folder, config_name=name)(task)
    try:
        entry()
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr, flush=True)
        sys.exit(130)
    finally:
        if told.is_dir():
            failures += [file.read_text() for file in sorted(told.iterdir(), key=lambda file: int(file.name))]
            shutil.rmtree(told)
        if failures and (sweeping or len(failures) > 1):
            print(f"\n{len(failures)} job(s) failed:", *failures, sep="\n  ", file=sys.stderr, flush=True)
    if failures:
        sys.exit(1)


def _stop(number: int, _: FrameType | None) -> None:
    print("\nStopped.", file=sys.stderr, flush=True)
    sys.exit(128 + number)


register_schemas()
