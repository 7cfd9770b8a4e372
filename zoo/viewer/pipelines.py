"""The page's view of `zoo run`: its steps, how far they are, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from zoo.pipeline.display import duration
from zoo.pipeline.status import StepStatus, count_states, list_steps
from zoo.runs.table import RunSummary
from zoo.viewer.collection import Collection
from zoo.viewer.words import plain

_SECONDS, _ROW_PX = 3.0, 35
_MARKS = {"done": "✓", "begun": "…", "failed": "✗", "waiting": "·"}


def show_pipelines(collection: Collection) -> None:
    """Show each pipeline's steps; it is looked at again every few seconds."""
    collection.renew_runs()
    for number, folder in enumerate(collection.pipelines):
        st.subheader(plain(folder.name), help=plain(str(folder)))
        _watch(folder)
        _offer_curves(collection.runs, list_steps(folder), number)


@st.fragment(run_every=_SECONDS)
def _watch(folder: Path) -> None:
    try:
        steps = list_steps(folder)
    except (OSError, ValueError) as error:
        st.error(plain(str(error)))
        return
    st.caption(plain(f"steps: {count_states(steps)}"))
    if not steps:
        return
    table: dict[str, list[str]] = {
        "step": [step.name for step in steps],
        "state": [f"{_MARKS[step.state]} {step.state}" for step in steps],
        "time": ["" if step.state == "waiting" else duration(step.seconds) for step in steps],
    }
    if any(told := [step.progress or step.message for step in steps]):
        table["last words"] = told
    table["command"] = [f"zoo {' '.join(step.command)}" for step in steps]
    st.dataframe(table, hide_index=True, height=_ROW_PX * (len(steps) + 1) + 3)
    for step in steps:
        if step.state == "failed":
            took = duration(step.seconds)
            st.error(plain(f"{step.name} failed after {took}: {step.message}"))
            st.code("\n".join(step.last_lines) or "its log is empty", language=None)
        elif step.state == "begun" and step.last_lines:
            with st.expander(plain(f"{step.name}: {step.progress or 'works, or was stopped'}")):
                st.code("\n".join(step.last_lines), language=None)


def _offer_curves(runs: Sequence[RunSummary], steps: Sequence[StepStatus], number: int) -> None:
    found = {step.name: [run.name for run in runs if is_of(run, step)] for step in steps}
    linked = {name: names for name, names in found.items() if names}
    if not linked:
        return
    st.caption("Curves")
    columns = st.columns(min(4, len(linked)))
    for place, (name, names) in enumerate(linked.items()):
        columns[place % len(columns)].button(
            plain(name), key=f"curves {number} {name}", on_click=_open_runs, args=(names,)
        )


def is_of(run: RunSummary, step: StepStatus) -> bool:
    """Tell whether a step trains a run: by the end of the path that its command writes."""
    if step.out is None or step.command[:1] != ("train",):
        return False
    # Of all folds it is the folder that holds them.
    place, wanted = run.path.resolve(), step.out.parts[-2:]
    return any(home.parts[-len(wanted) :] == wanted for home in (place, place.parent))


def _open_runs(names: Sequence[str]) -> None:
    st.session_state["view"] = "Runs"
    st.session_state["runs_chosen"] = list(names)
