"""The seeds of one setting, runs that diverged among them, and what two settings' seeds say of their difference."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from scripts.records import Record, on_fractals
from scripts.reporting.experiments.inference import difference, mean_interval

TESTED = 5  # seeds a side that a test needs: five against five can reach p = 0.008, four against four 0.029


@dataclass(frozen=True)
class Seeds:
    """The runs ``<setting>-seed<n>`` of a group that are done, by seed, of so many ``planned``."""

    planned: int
    runs: list[Record]

    @property
    def ended(self) -> list[Record]:
        """Those that did not diverge."""
        return [r for r in self.runs if r.result]

    @property
    def on_report(self) -> list[float]:
        return [r.on_report for r in self.ended]

    @property
    def are_whole(self) -> bool:
        """Whether there are as many as planned, none of which diverged."""
        return len(self.ended) == self.planned

    def cells(self) -> str:
        """Two cells: top-1 on report of every seed, and the mean with its 95 % interval once all have ended."""
        if not self.runs:
            return "missing | missing"
        each = ", ".join(f"{r.on_report:.2f}" if r.result else "diverged" for r in self.runs)
        if not self.are_whole:
            return f"{each} | {len(self.ended)} of {self.planned}"
        low, high = mean_interval(self.on_report)
        return f"{each} | {statistics.mean(self.on_report):.2f} ({low:.2f} to {high:.2f})"


def seeds_of(group: str, setting: str, planned: int = TESTED) -> Seeds:
    found = [r for name, r in on_fractals(group).items() if name.rpartition("-seed")[0] == setting]
    return Seeds(planned, sorted(found, key=lambda r: r.config.seed))


def differences_table(pairs: list[tuple[str, Seeds, Seeds]]) -> str:
    """The first of each pair minus the second, on report: nothing before both are whole, no test of fewer than five."""
    lines = ["| difference | n | points (95 %) | exact permutation p |", "|---|---|---|---|"]
    for label, first, second in pairs:
        n = f"{len(first.ended)} and {len(second.ended)}"
        if not (first.are_whole and second.are_whole):
            lines.append(f"| {label} | {n} | not tested | - |")
            continue
        d = difference(first.on_report, second.on_report)
        p = f"{d.p:.3f}" if min(first.planned, second.planned) >= TESTED else "not tested"
        lines.append(f"| {label} | {n} | {d.estimate:+.2f} ({d.low:+.2f} to {d.high:+.2f}) | {p} |")
    return "\n".join(lines)
