"""Lines of progress where there is no terminal."""

from __future__ import annotations

import pytest

from zoo import progress


def test_the_rate_is_that_of_the_part_that_is_done_now(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folds count anew: what went before them is no rate of theirs."""
    now = 0.0
    monkeypatch.setattr("zoo.progress.time.monotonic", lambda: now)
    with progress.bar("train") as report:
        for fold in ("1/2", "2/2"):
            report(0, 1, f"fold {fold} reading images")
            now += 100  # libraries, caches
            for done in range(61):
                report(done, 60, f"fold {fold}")
                now += 1
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if "/s" in line]
    assert len(told) >= 6
    assert all(", 1.0/s, " in line for line in told)
    assert {line.partition(" (")[2] for line in told} == {"fold 1/2)", "fold 2/2)"}
    assert max(int(line.partition("/s, ")[2].split(" s")[0]) for line in told) <= 60
