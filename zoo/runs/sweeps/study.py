"""A sweep's study: what Optuna knows of the trials, and what it draws for the next one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.options import as_text
from zoo.runs.sweeps.config import Parameter, SweepConfig

if TYPE_CHECKING:
    import optuna


def open_study(config: SweepConfig, out: Path) -> optuna.Study:
    """Open a sweep's study in its folder, or make it.

    Raises:
        ValueError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ValueError(
            "zoo sweep: expected the package optuna, found none; "
            "install it with: pip install 'maskzoo[sweep]'"
        ) from None
    prune = config.pruner
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if prune.name == "median":
        pruner = optuna.pruners.MedianPruner(prune.startup, prune.warmup)
    elif prune.name == "halving":
        pruner = optuna.pruners.SuccessiveHalvingPruner(max(1, prune.warmup), reduction_factor=3)
    return optuna.create_study(
        storage=f"sqlite:///{out.resolve() / 'study.db'}",
        study_name="sweep",
        direction="maximize",
        pruner=pruner,
        load_if_exists=True,
    )


def sampler_of(config: SweepConfig, number: int) -> optuna.samplers.BaseSampler:
    """Return what draws the values of the trial of a number, counted from 0."""
    import optuna

    seed = int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0])
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def distributions_of(config: SweepConfig) -> dict[str, optuna.distributions.BaseDistribution]:
    """Return the space as Optuna has it."""
    return {key: _distribution(parameter) for key, parameter in config.space.items()}


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    from optuna import distributions

    if parameter.kind == "choice":
        # Optuna keeps choices as plain values only; a size is a list.
        return distributions.CategoricalDistribution([as_text(v) for v in parameter.values])
    low, high = parameter.values
    if parameter.kind == "int":
        return distributions.IntDistribution(low, high, step=int(parameter.step or 1))
    is_log = parameter.kind == "log"
    return distributions.FloatDistribution(low, high, log=is_log, step=parameter.step)


def values_of(config: SweepConfig, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was drawn as the config has it."""
    found = {}
    for key, value in drawn.items():
        parameter = config.space[key]
        texts = {as_text(v): v for v in parameter.values} if parameter.kind == "choice" else {}
        found[key] = texts[value] if texts else value
    return found


def folder_of(trial: optuna.trial.FrozenTrial) -> str:
    """Return the name of a trial's run folder."""
    return str(trial.user_attrs.get("folder") or f"trial-{trial.number:04d}")


def _latest(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials; of those that were begun again, the last one."""
    found = {folder_of(trial): trial for trial in study.get_trials(deepcopy=False)}
    return list(found.values())


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that have ended, whichever way, in order."""
    return [trial for trial in _latest(study) if trial.state.is_finished()]


def requeue(study: optuna.Study) -> None:
    """Put the trial during which the sweep was killed first in the queue, with its run folder."""
    from optuna.trial import TrialState

    # Queued again before it is given up: a kill between the two loses nothing.
    for trial in _latest(study):
        if trial.state == TrialState.RUNNING:
            study.enqueue_trial(trial.params, user_attrs={"folder": folder_of(trial)})
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's lines about every trial off the screen; errors stay."""
    # Its logger is given a level when it is imported.
    with suppress(ImportError):
        import optuna  # noqa: F401
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"optuna\.")
            yield
    finally:
        logger.setLevel(level)
