"""The page: what is shown on the left, the canvas, and what is written of an image."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import streamlit as st
import streamlit.components.v1 as components

from zoo.viewer import panels, pipelines
from zoo.viewer.browsing import ORDERS, PQ, Filter, Line, browse
from zoo.viewer.collection import TRUTH, Collection
from zoo.viewer.desk import Desk
from zoo.viewer.drawing import focus_box, legend
from zoo.viewer.opening import open_desk
from zoo.viewer.words import plain

_CANVAS = Path(__file__).with_name("canvas")
_LIST_PX, _NAME_PX, _CLASS_PX = 400, 150, 100
_SHARES = (5, 13)
# A browser shows more of them slowly.
_MOST_ROWS = 2000
_STYLE = """<style>
[data-testid="stMainBlockContainer"] { padding: 2.4rem 1.5rem 1rem; }
[data-testid="stSidebarUserContent"] { padding-top: 0.5rem; }
[data-testid="stHeader"] { background: transparent; pointer-events: none; }
[data-testid="stHeader"] button { pointer-events: auto; }
</style>"""


def run() -> None:
    """Draw the page once."""
    st.set_page_config(page_title="zoo view", layout="wide")
    st.html(_STYLE)
    try:
        with st.spinner("reading"):
            desk = open_desk(sys.argv[1:])
        collection = desk.collection
        collection.measurements.touch()
        collection.refresh()
    except (ImportError, OSError, ValueError) as error:
        st.error(plain(str(error)))
        return
    views = _views(collection)
    st.sidebar.title("zoo view")
    name = st.sidebar.radio("View", list(views), key="view")
    views[name](collection, desk)
    _describe(collection)
    # Not before there is a page to look at.
    collection.measurements.start()


View = Callable[[Collection, Desk], None]


def _views(collection: Collection) -> dict[str, View]:
    views: dict[str, View] = {}
    if collection.entries:
        views["Images"] = _show_images
    if len(collection.sources) > 1:
        views["Two sources"] = _show_pair
    if collection.samples:
        views["Findings"] = _show_findings
        views["Corrections"] = lambda shown, desk: panels.show_corrections(shown)
    if collection.pipelines:
        views["Pipeline"] = lambda shown, desk: pipelines.show_pipelines(shown)
    if collection.runs:
        views["Runs"] = lambda shown, desk: panels.show_runs(shown)
    return views or {"Nothing": lambda shown, desk: st.write("Nothing to show.")}


def _describe(collection: Collection) -> None:
    facts = [f"{len(collection.entries)} images, {len(collection.names)} classes"]
    facts += [f"{source.kind}: {source.name}" for source in collection.sources]
    st.sidebar.caption(plain("\n".join([*facts, *collection.notes])))
    if collection.problems:
        with st.sidebar.expander(f"{len(collection.problems)} cannot be read"):
            for problem in collection.problems:
                st.caption(plain(str(problem)))


# --- images, and two sources beside each other


def _show_images(collection: Collection, desk: Desk) -> None:
    orders = [order for order in ORDERS if order != PQ]
    # Beside Dice.
    orders[5:5] = [PQ] if collection.has_several else []
    wanted = _ask(collection, "images", orders)
    _browse(collection, desk, wanted, "images")


def _show_pair(collection: Collection, desk: Desk) -> None:
    names = [source.name for source in collection.sources]
    with st.sidebar:
        a = st.selectbox("A", names, index=0, key="pair_a")
        b = st.selectbox("B", [name for name in names if name != a], key="pair_b")
    orders = [ORDERS[4], *([PQ] if collection.has_several else []), *ORDERS[:4]]
    wanted = _ask(collection, "pair", orders)
    pair = (a, b) if names.index(a) < names.index(b) else (b, a)
    both = {source.name: source.images for source in collection.sources}
    only = frozenset(key for key in both[a] if key in both[b])
    st.caption(plain(f"Dice and errors of {b} against {a}; the truth beside them where there is"))
    _browse(collection, desk, _with(wanted, pair=pair, only=only), "pair", (a, b, TRUTH), against=a)


def _with(wanted: Filter, **changes: Any) -> Filter:
    values = {name: getattr(wanted, name) for name in asdict(Filter())}
    return Filter(**{**values, **changes})


def _ask(collection: Collection, name: str, orders: Sequence[str]) -> Filter:
    patients = sorted(
        {patient for key in collection.entries if (patient := collection.patient(key))}
    )
    groups = {f"all of {group}": members for group, members in collection.labels.groups.items()}
    with st.sidebar:
        text = st.text_input("Search", key=f"{name}_text", placeholder="words of a key or name")
        order = st.selectbox("Sort by", orders, key=f"{name}_order")
        rows = st.radio("Rows", ["images", "structures"], horizontal=True, key=f"{name}_rows")
        chosen = st.multiselect("Patients", patients, key=f"{name}_patients") if patients else []
        labels = st.multiselect("Classes", [*groups, *collection.names], key=f"{name}_labels")
        hides = bool(collection.samples) and st.checkbox("Hide excluded", key=f"{name}_hides")
    return Filter(
        text=text,
        patients=frozenset(chosen),
        labels=frozenset(one for label in labels for one in groups.get(label, (label,))),
        by_structure=rows == "structures",
        order=order,
        hides_excluded=hides,
    )


def _browse(
    collection: Collection,
    desk: Desk,
    wanted: Filter,
    name: str,
    layers: Sequence[str] | None = None,
    against: str = TRUTH,
) -> None:
    lines = _lines(collection, wanted, name)
    # Its place is always there: where elements before it come and go, the canvas begins anew.
    with st.container():
        _show_progress(collection)
    if not lines:
        done, total = collection.measurements.progress
        st.info("Nothing fits." if done == total else "Nothing is measured yet.")
        return
    number = _turn(name, [(line.key, line.label) for line in lines])
    panels.undo_if_asked(collection)
    if st.session_state.get(f"{name}_wanted", wanted) != wanted:
        # Another order, or others: what is first is wanted.
        number = 0
    st.session_state[f"{name}_wanted"] = wanted
    left, right = st.columns(_SHARES, gap="small")
    with left:
        done, total = collection.measurements.progress
        is_measuring = bool(collection.sources) and done < total
        chosen = _list(lines[:_MOST_ROWS], name, is_measuring, collection.has_several)
        if len(lines) > _MOST_ROWS:
            st.caption(f"the first {_MOST_ROWS} of {len(lines)}: search or choose to see others")
        if chosen is not None and chosen != st.session_state.get(f"{name}_chosen"):
            number = chosen
        st.session_state[f"{name}_chosen"] = chosen
        line = lines[number]
        panels.show_corrections_of(collection, line.key)
    st.session_state[f"{name}_at"] = (line.key, line.label)
    with right:
        _head(collection, lines, number, name)
        only = sorted(wanted.labels or ([line.label] if line.label else []))
        drawn = _canvas(collection, desk, line.key, layers, against, only, zooms=bool(line.label))
    after = [lines[n].key for n in (number + 1, number - 1) if 0 <= n < len(lines)]
    if drawn:
        desk.prepare(after, layers, against)


def _lines(collection: Collection, wanted: Filter, name: str) -> list[Line]:
    """Return the rows of the list, made anew only where something has changed."""
    mark = wanted, collection.measurements.version, collection.edits.digest
    kept = st.session_state.get(f"{name}_lines")
    if kept is None or kept[0] != mark:
        kept = mark, browse(collection, wanted, collection.measurements.rows)
        st.session_state[f"{name}_lines"] = kept
    found: list[Line] = kept[1]
    return found


def _turn(name: str, places: Sequence[tuple[str, str]]) -> int:
    """Return which row is looked at, after what was pressed on the canvas or on a button."""
    at = st.session_state.get(f"{name}_at")
    number = places.index(at) if at in places else 0
    if at not in places and at is not None:
        # The order has changed from images to structures, or back.
        number = next((n for n, place in enumerate(places) if place[0] == at[0]), 0)
    step = st.session_state.pop("step", 0)
    said = st.session_state.get("canvas")
    if isinstance(said, dict) and said.get("n") != st.session_state.get("said"):
        st.session_state["said"] = said.get("n")
        if said.get("event") == "turn":
            step += 1 if said.get("step") == 1 else -1
        elif said.get("event") == "undo":
            st.session_state["undo"] = True
        elif said.get("event") == "pick":
            st.session_state["picked"] = said
    return min(max(number + step, 0), len(places) - 1)


def _list(lines: Sequence[Line], name: str, is_measuring: bool, has_pq: bool) -> int | None:
    by_structure = any(line.label for line in lines)
    # What it is sorted by stands where it is seen, from the start: long names come after the
    # numbers, which come in while others are measured.
    table: dict[str, list[Any]] = {}
    if by_structure:
        table["class"] = [line.label for line in lines]
    if is_measuring or any(line.dice is not None for line in lines):
        table["Dice"] = [line.dice for line in lines]
    if has_pq and "Dice" in table:
        table["PQ"] = [line.pq for line in lines]
    if is_measuring or any(line.disagreement is not None for line in lines):
        table["differ"] = [line.disagreement for line in lines]
    table["image"] = [line.key.rpartition("/")[2] for line in lines]
    if not by_structure and any(line.worst for line in lines):
        table["worst"] = [line.worst for line in lines]
    table["mask px"] = [line.mask_px for line in lines]
    if any(line.patient for line in lines):
        table["patient"] = [line.patient for line in lines]
    number = st.column_config.NumberColumn
    found = st.dataframe(
        table,
        key=f"{name}_list",
        on_select="rerun",
        selection_mode="single-row",
        hide_index=True,
        # Of what is not measured yet, or has no truth.
        placeholder="",
        height=_LIST_PX,
        column_config={
            # Long names would push the numbers out of sight.
            "image": st.column_config.TextColumn(width=_NAME_PX),
            "class": st.column_config.TextColumn(width=_CLASS_PX),
            "Dice": number(format="%.3f", width=60),
            "PQ": number(format="%.3f", width=60, help="panoptic quality: objects one by one"),
            "differ": number(
                format="%.3f", width=60, help="1 - mean Dice between each two sources"
            ),
        },
    )
    rows = found["selection"]["rows"]
    return rows[0] if rows and rows[0] < len(lines) else None


def _head(collection: Collection, lines: Sequence[Line], number: int, name: str) -> None:
    line = lines[number]
    height, width, _ = collection.entries[line.key]
    words = [f"{number + 1} of {len(lines)}", line.key, line.label, f"{width} x {height}"]
    words += [f"patient {line.patient}"] if line.patient else []
    words += ["excluded"] if collection.is_excluded(line.key) else []
    _buttons(name, "   ·   ".join(word for word in words if word))


def _buttons(name: str, title: str) -> None:
    before, after, text = st.columns([1, 1, 14], vertical_alignment="center")
    before.button("◀", key=f"{name}_before", help="left arrow", on_click=_step, args=(-1,))
    after.button("▶", key=f"{name}_after", help="right arrow", on_click=_step, args=(1,))
    text.markdown(plain(title))


def _step(step: int) -> None:
    st.session_state["step"] = step


@st.fragment(run_every=1.0)
def _watch(collection: Collection) -> None:
    done, total = collection.measurements.progress
    st.progress(done / max(total, 1), text=f"measured {done} of {total} images")
    if done >= total:
        st.rerun()


def _show_progress(collection: Collection) -> None:
    done, total = collection.measurements.progress
    if done < total:
        _watch(collection)
    for key, error in list(collection.measurements.errors.items())[:3]:
        st.warning(plain(f"{key}: {error}"))


# --- the canvas


def _canvas(
    collection: Collection,
    desk: Desk,
    key: str,
    layers: Sequence[str] | None = None,
    against: str = TRUTH,
    only: Sequence[str] = (),
    zooms: bool = False,
    box: tuple[int, int, int, int] | None = None,
) -> bool:
    try:
        drawn = desk.draw(key, layers, against)
        focus = list(box) if box else _focus(collection, key, only) if zooms else None
    except (OSError, ValueError) as error:
        st.error(plain(str(error)))
        return False
    before = st.session_state.get("only", [])
    st.session_state["only"] = list(only)
    component = components.declare_component("zoo_canvas", path=str(_CANVAS))
    component(
        **{**drawn, "token": f"{drawn['token']} {only} {focus}"},
        legend=legend(collection.labels, collection.names),
        only=list(only),
        reset=before != list(only),
        focus=focus,
        key="canvas",
        default=None,
    )
    return True


def _focus(collection: Collection, key: str, labels: Sequence[str]) -> list[int] | None:
    shown = collection.show(key)
    drawn = [shown.truth or {}, *shown.masks.values()]
    found = focus_box(masks[label] for masks in drawn for label in labels if label in masks)
    return list(found) if found else None


# --- what an audit has found


def _show_findings(collection: Collection, desk: Desk) -> None:
    findings = panels.ask_findings(collection)
    if not findings:
        return
    place = _turn("findings", [(str(number), "") for number in range(len(findings))])
    panels.undo_if_asked(collection)
    left, right = st.columns(_SHARES, gap="small")
    with left:
        chosen = panels.list_findings(findings)
        if chosen is not None and chosen != st.session_state.get("findings_chosen"):
            place = chosen
        st.session_state["findings_chosen"] = chosen
    st.session_state["findings_at"] = (str(place), "")
    finding = findings[place]
    with right:
        _buttons("findings", f"{place + 1} of {len(findings)}   ·   {finding.kind}")
        with st.container():
            key = panels.describe_finding(collection, finding, place)
        box = finding.box_xywh if key == finding.key else None
        if key in collection.entries:
            _canvas(collection, desk, key, (TRUTH,), box=box)
    with left:
        panels.show_corrections_of(collection, key)
