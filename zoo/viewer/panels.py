"""Parts of the page beside the canvas: corrections, what an audit has found, a run's curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from converters.audit.findings import KINDS, Finding
from converters.edits.entries import Edit, subset_of
from zoo.report.audit.page import edit_text
from zoo.report.audit.page import rank as rank_findings
from zoo.run_files.metrics import read_rows
from zoo.runs.table import RunSummary, tabulate
from zoo.viewer.collection import Collection, describe_fields
from zoo.viewer.words import plain

# --- corrections of an image

_EXCLUDE, _GROUP = "exclude the image", "exclude the patient"
_SWAP, _RELABEL, _DROP, _REGROUP = "swap two classes", "relabel", "drop", "move to a patient"
_WHOLE = "all of it"


def show_corrections_of(collection: Collection, key: str) -> None:
    """Show what the file says of an image, and a form for one more correction."""
    sample = collection.samples.get(key)
    if sample is None:
        return
    picked = st.session_state.get("picked") or {}
    is_picked = picked.get("id") == key and "label" in picked
    about = [e for e in collection.edits.entries if _speaks_of(e, key, sample.group)]
    title = "Correct" + (f": {picked['label']}, part {picked['part']}" if is_picked else "")
    title += f" ({len(about)} made)" if about else ""
    with st.expander(plain(title), expanded=bool(is_picked or about)):
        st.caption(plain(f"Entries of {collection.edits_path}; the data set stays as it is."))
        for entry in about:
            _entry(collection, entry, of_image=True)
        kinds = [_DROP, _RELABEL, _SWAP] if sample.instances else []
        kinds += [_EXCLUDE, *([_GROUP] if sample.group else []), _REGROUP]
        kind = st.selectbox("Correction", kinds, key="edit_kind")
        asked = _ASK[kind](collection, key, picked if is_picked else {})
        why = st.text_input("Why", key="edit_why", placeholder="for people; may be empty")
        if st.button("Add to edits", key="edit_add", type="primary", disabled=asked is None):
            section, fields = asked or ("", {})
            _add(collection, section, fields | ({"why": why.strip()} if why.strip() else {}))


def _speaks_of(entry: Edit, key: str, group: str) -> bool:
    return (
        entry.key == key
        or key in entry.fields.get("keys", ())
        or (entry.section == "exclude_groups" and entry.fields["group"] == group)
    )


def _add(collection: Collection, section: str, entry: dict[str, Any]) -> None:
    try:
        collection.edit(section, entry)
    except (OSError, ValueError) as error:
        st.error(plain(str(error)))
        return
    st.rerun()


def _entry(collection: Collection, entry: Edit, of_image: bool = False) -> None:
    text, button = st.columns([5, 2] if of_image else [7, 1], vertical_alignment="center")
    fields = {n: v for n, v in entry.fields.items() if not (of_image and n in ("key", "keys"))}
    values = describe_fields(fields)
    why = f" ({entry.why})" if entry.why else ""
    text.markdown(plain(f"{entry.section}: {values}{why}" if values else f"{entry.section}{why}"))
    # The file may have changed since the button was drawn: it takes back what stood beside it.
    if button.button("Undo", key=f"undo {entry} {values}"):
        try:
            collection.undo(entry.section, entry.number)
        except (OSError, ValueError) as error:
            st.error(plain(str(error)))
            return
        st.rerun()


def undo_if_asked(collection: Collection) -> None:
    """Take the newest correction back, where its key was pressed on the canvas; say which."""
    if st.session_state.pop("undo", False):
        try:
            taken = collection.undo_last()
        except (OSError, ValueError) as error:
            st.error(plain(str(error)))
            return
        st.session_state["told"] = f"taken back: {taken}" if taken else "nothing to take back"
        st.rerun()
    if told := st.session_state.pop("told", ""):
        st.toast(plain(told))


_Asked = tuple[str, dict[str, Any]] | None


def _counts(collection: Collection, key: str) -> dict[str, int]:
    """Polygons of each class, as they were read: what corrections speak of."""
    counts: dict[str, int] = {}
    for one in collection.samples[key].instances:
        counts[one.label] = counts.get(one.label, 0) + len(one.parts)
    return counts


def _ask_label(
    collection: Collection, key: str, picked: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    counts = _counts(collection, key)
    labels = [name for name in collection.labels.names if name in counts]
    # Another object chosen on the canvas makes other widgets, which begin with it.
    mark = f"{key} {picked.get('label')} {picked.get('part')}"
    index = labels.index(picked["label"]) if picked.get("label") in labels else 0
    label = st.selectbox("Class", labels, index=index, key=f"edit_label {mark}")
    parts = [_WHOLE, *map(str, range(counts[label]))]
    at = 1 + int(picked["part"]) if picked.get("label") == label and counts[label] > 1 else 0
    part = st.selectbox("Part", parts, index=at, key=f"edit_part {mark} {label}")
    return label, ({} if part == _WHOLE else {"part": int(part)})


def _drop(collection: Collection, key: str, picked: dict[str, Any]) -> _Asked:
    label, part = _ask_label(collection, key, picked)
    return "drop", {"key": key, "label": label, **part}


def _relabel(collection: Collection, key: str, picked: dict[str, Any]) -> _Asked:
    label, part = _ask_label(collection, key, picked)
    others = [name for name in collection.labels.names if name != label]
    to = st.selectbox("It is", others, index=None, key="edit_to", placeholder="a class")
    return None if to is None else ("relabel", {"key": key, "label": label, **part, "to": to})


def _swap(collection: Collection, key: str, picked: dict[str, Any]) -> _Asked:
    counts = _counts(collection, key)
    labels = [name for name in collection.labels.names if name in counts]
    if len(labels) < 2:
        return None
    index = labels.index(picked["label"]) if picked.get("label") in labels else 0
    a = st.selectbox("Class", labels, index=index, key=f"edit_a {key} {picked.get('label')}")
    b = st.selectbox("and", [name for name in labels if name != a], key="edit_b")
    return "swap_labels", {"key": key, "labels": [a, b]}


def _exclude(collection: Collection, key: str, picked: dict[str, Any]) -> _Asked:
    return "exclude_images", {"key": key}


def _exclude_group(collection: Collection, key: str, picked: dict[str, Any]) -> _Asked:
    group = collection.samples[key].group
    entry = {"group": group}
    if not any(s.group == group and subset_of(k) == "train" for k, s in collection.samples.items()):
        # It is looked for where its images are read.
        entry["subset"] = "test"
    return "exclude_groups", entry


def _regroup(collection: Collection, key: str, picked: dict[str, Any]) -> _Asked:
    group = st.text_input("Patient", key=f"edit_group {key}").strip()
    return ("regroup", {"key": key, "group": group}) if group else None


_ASK: dict[str, Callable[[Collection, str, dict[str, Any]], _Asked]] = {
    _DROP: _drop,
    _RELABEL: _relabel,
    _SWAP: _swap,
    _EXCLUDE: _exclude,
    _GROUP: _exclude_group,
    _REGROUP: _regroup,
}


def show_corrections(collection: Collection) -> None:
    """Show the whole file: each entry with a way back."""
    path = collection.edits_path
    entries = collection.edits.entries
    st.subheader(f"{len(entries)} correction{'' if len(entries) == 1 else 's'}")
    st.caption(plain(f"{path}: give it to any command with --edits"))
    for entry in entries:
        _entry(collection, entry)
    problems = {
        k: text for k, s in collection.samples.items() if (text := collection.correct(s)[1])
    }
    for key, text in problems.items():
        st.error(plain(f"{key}: {text}"))
    if path.is_file():
        st.code(path.read_text(encoding="utf-8"), language="yaml")


# --- findings


def ask_findings(collection: Collection) -> list[Finding]:
    """Return the findings of the chosen kinds, the surest first; offer an audit without any."""
    if not collection.findings:
        st.info("No findings. Give the folder that `zoo audit` has written, or look now.")
        if st.button("Look for mistakes now", key="audit"):
            with st.spinner(f"looking at {len(collection.samples)} images"):
                from converters.audit import audit

                samples = list(collection.samples.values())
                collection.findings = audit(samples, collection.problems, collection.labels)
            if not collection.findings:
                st.success("Nothing looks wrong.")
                return []
            st.rerun()
        return []
    kinds = [kind for kind in KINDS if any(f.kind == kind for f in collection.findings)]
    chosen = st.sidebar.multiselect("Kinds", kinds, key="findings_kinds")
    text = st.sidebar.text_input("Search", key="findings_text")
    return [
        finding
        for kind in KINDS
        for finding in rank_findings([f for f in collection.findings if f.kind == kind])
        if (not chosen or kind in chosen)
        and text.casefold() in f"{finding.key} {finding.what}".casefold()
    ]


def list_findings(findings: Sequence[Finding]) -> int | None:
    """Show findings as a list; return the one that is chosen there."""
    table = {
        "kind": [f.kind for f in findings],
        "score": [f.score for f in findings],
        "image": [f.key.rpartition("/")[2] for f in findings],
        "what": [f.what for f in findings],
    }
    found = st.dataframe(
        table,
        key="findings_list",
        on_select="rerun",
        selection_mode="single-row",
        hide_index=True,
    )
    rows = found["selection"]["rows"]
    return rows[0] if rows and rows[0] < len(findings) else None


def describe_finding(collection: Collection, finding: Finding, number: int) -> str:
    """Say what was found, offer its correction; return the image to look at."""
    st.caption(plain(f"{KINDS[finding.kind]}; sure to {finding.score:.2f}"))
    st.markdown(plain(f"{finding.key}: {finding.what}" if finding.key else finding.what))
    if finding.edit:
        text, button = st.columns([6, 1], vertical_alignment="center")
        text.code(edit_text(finding), language="yaml")
        if button.button("Add to edits", key=f"finding_{number}"):
            for section, entry in finding.edit.items():
                _add(collection, section, dict(entry))
    others = [key for key in finding.others if key in collection.entries]
    if not others:
        return finding.key
    return str(st.radio("Image", [finding.key, *others], format_func=plain, key=f"twin_{number}"))


# --- runs


def show_runs(collection: Collection) -> None:
    """Show runs beside each other: their settings and scores, and their curves."""
    runs = collection.runs
    columns, rows = tabulate(runs)
    st.dataframe(
        {c: [row[i] for row in rows] for i, c in enumerate(columns)},
        hide_index=True,
        placeholder="",
    )
    names = [run.name for run in runs]
    wanted = st.session_state.get("runs_chosen", names[:6])
    st.session_state["runs_chosen"] = [name for name in wanted if name in names]
    chosen = st.multiselect("Runs", names, key="runs_chosen")
    curves = {run.name: _curves(run) for run in runs if run.name in chosen}
    measures = list(dict.fromkeys(name for curve in curves.values() for name in curve))
    usual = [name for name in ("train_loss", "loss", "val_dice") if name in measures]
    shown = st.multiselect("Curves", measures, default=usual or measures[:2], key="runs_curves")
    for name in shown:
        points = [
            {"epoch": epoch, "value": value, "run": run}
            for run, curve in curves.items()
            for epoch, value in curve.get(name, ())
        ]
        st.caption(plain(name))
        # A line of one point is none: each has a mark. A name with dots would be a path to Vega.
        axes = {"x": "epoch", "y": "value", "color": "run"}
        kinds = {"epoch": "quantitative", "value": "quantitative", "run": "nominal"}
        spec = {
            "mark": {"type": "line", "point": True},
            "encoding": {a: {"field": c, "type": kinds[c]} for a, c in axes.items()},
            "height": 260,
        }
        st.vega_lite_chart({c: [point[c] for point in points] for c in kinds}, spec)


def _curves(run: RunSummary) -> dict[str, list[tuple[int, float]]]:
    """Measure -> epoch and value of each epoch that has one."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in read_rows(run.path / "metrics.csv"):
        for name, text in row.items():
            if name != "epoch" and text:
                try:
                    curves.setdefault(name, []).append((int(row["epoch"]), float(text)))
                except ValueError:
                    continue
    return curves
