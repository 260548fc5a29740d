"""How often do the rules decide wrongly? By simulation over real judged queries; ends with 1 where a promise is broken.

    python bench/operating.py evaluation|looks|guards|shifts

The queries are those of the demo: the standard library's documentation, answered by wordllama at 64 and at 256
dimensions, each query judged. Every draw takes groups of them, with replacement, and the rules as they are shipped.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from examples.stdlib import corpus
from scipy import special, stats

from pointsman.core import evaluation, guards, judgements, latencies, shifts
from pointsman.core.evaluation import Comparison, Verdict
from pointsman.core.guards import Arm, Guard, Signal
from pointsman.embedders import wordllama

Floats = npt.NDArray[np.float64]
Draw = Callable[[int, float], Floats]
"""Differences of so many groups, of versions that are on average so much worse."""

POLICY = 0.02
SIZES = (50, 200, 500, 2000)
DRAWS = 4000
BROKEN: list[str] = []


def promise(is_kept: bool, what: str) -> None:
    """Note a promise that the numbers do not keep."""
    if not is_kept:
        BROKEN.append(what)


def at_most(rate: float, share: float, draws: int) -> bool:
    """Return whether a share seen in so many draws can be one of a rate or less: but for 1 chance in 1,000."""
    return round(share * draws) <= stats.binom.ppf(0.999, draws, rate)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table as Markdown has it; the first column is text."""
    print("", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}", sep="\n")
    for row in rows:
        print(f"| {' | '.join(row)} |")


# The real queries.


def differences() -> dict[str, Floats]:
    """Return the difference of each group of real queries between two versions, by what makes them differ."""
    with tempfile.TemporaryDirectory() as folder:
        corpus.write(Path(folder))
        names = ("documents", "queries", "judgements")
        rows = [[json.loads(line) for line in (Path(folder) / f"{n}.jsonl").read_text().splitlines()] for n in names]
    texts = [f"{row['name']}. {row['text']}" for row in rows[0]]
    ids = [row["id"] for row in rows[0]]
    asked = judgements.load(rows[1], rows[2])
    large = _values(256, texts, ids, asked)
    others = {
        "64 for 256 dimensions": (64, texts),
        "texts cut at 200 characters": (256, [text[:200] for text in texts]),
    }
    found = {}
    for name, (dimensions, given) in others.items():
        other = _values(dimensions, given, ids, asked)
        by_group: dict[str, list[float]] = {}
        for query, value in other.items():
            by_group.setdefault(asked.groups[query], []).append(value - large[query])
        found[name] = np.array([statistics.fmean(values) for values in by_group.values()])
        # The draws take a short cut to the numbers of a comparison; on the real ones it must lead to the same place.
        full = evaluation.compare(other, large, asked.groups)
        promise(np.allclose(compared(found[name]).bounds(0.05), full.bounds(0.05)), f"{name}: the numbers of `compare`")
    return found


def _values(dimensions: int, texts: list[str], ids: list[str], asked: judgements.QuerySet) -> dict[str, float]:
    """Return nDCG@10 of each query, by exact search."""
    model = wordllama.Wordllama(dimensions)
    stored, queries = (_unit(model.embed(given)) for given in (texts, list(asked.queries.values())))
    scores = queries @ stored.T
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    rankings = {query: [ids[place] for place in row] for query, row in zip(asked.queries, nearest, strict=True)}
    return evaluation.Metric.parse("nDCG@10").by_query(rankings, asked.judgements)


def _unit(vectors: npt.ArrayLike) -> Floats:
    found = np.asarray(vectors, dtype=np.float64)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def compared(means: Floats) -> Comparison:
    """Return what `evaluation.compare` makes of these differences of groups."""
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means))
    losing, winning = int(np.count_nonzero(means < 0)), int(np.count_nonzero(means > 0))
    return Comparison(float(means.mean()), error, len(means), len(means), losing, winning)


def worlds(rng: np.random.Generator) -> dict[str, Draw]:
    """Return versions that differ as the real ones do, by a chosen mean.

    The sizes of the differences are real, those that are 0 included; which version wins a group is drawn, so that the
    candidate is worse by the effect. The last world is none that was seen: the candidate loses a few groups wholly.
    """

    def of(sizes: Floats, changed: float) -> Draw:
        def draw(groups: int, worse: float) -> Floats:
            losing = (1 + worse / (changed * sizes.mean())) / 2
            signs = np.where(rng.random(groups) < losing, -1.0, 1.0) * (rng.random(groups) < changed)
            return signs * rng.choice(sizes, groups)

        return draw

    def lost(groups: int, worse: float) -> Floats:
        return -(rng.random(groups) < worse).astype(np.float64)

    real = {name: np.abs(means) for name, means in differences().items()}
    first = next(iter(real))
    found = {name: of(sizes, 1.0) for name, sizes in real.items()}
    found[f"one group in four of {first}"] = of(real[first], 0.25)
    found["nothing but a few groups lost wholly"] = lost
    return found


# The evaluation gate and the chain.


def measure_evaluation() -> None:
    """Print how often versions are promoted, rejected and left undecided, by how much worse they are."""
    rng = np.random.default_rng(1)
    effects = {"equal": 0.0, "δ/2 worse": POLICY / 2, "δ worse": POLICY, "2δ worse": 2 * POLICY}
    calm = [any(guard.has_failed for guard in _rollout(rng)) for _ in range(200)]
    rows = []
    for name, draw in worlds(rng).items():
        for size in SIZES:
            row = [name, f"{size:,}"]
            for effect, worse in effects.items():
                if name.startswith("one group in four") and worse > POLICY:
                    row.append("")
                    continue
                verdicts = Counter(_chain(compared(draw(size, worse)), bool(rng.choice(calm))) for _ in range(DRAWS))
                promoted, rejected = (verdicts[v] / DRAWS for v in (Verdict.PASSED, Verdict.FAILED))
                row.append(f"{promoted:.3f} / {rejected:.3f} / {1 - promoted - rejected:.3f}")
                where = f"{name}, {size} groups, {effect}"
                # The rows are many and the bounds are those of a t-test: a fifth more than 0.05 is still kept.
                promise(worse < POLICY or at_most(0.06, promoted, DRAWS), f"{where}: promoted {promoted}")
                promise(worse > POLICY or at_most(0.06, rejected, DRAWS), f"{where}: rejected {rejected}")
            rows.append(row)
    print(f"δ = {POLICY}, promoted / rejected / undecided, {DRAWS:,} draws each:")
    table(["versions that differ as", "groups", *effects], rows)
    _sizes(rng)


def _chain(comparison: Comparison, guard_failed: bool) -> Verdict:
    return Verdict.FAILED if guard_failed else comparison.verdict(POLICY)


def _rollout(rng: np.random.Generator) -> list[Guard]:
    """Two hours of three guards over two versions that run alike: an hour at weight 10 and one at 50."""
    watching = [guards.guard(signal) for signal in Signal]
    for minute in range(120):
        queries = 20 if minute < 60 else 100
        arms = [_arm(rng, queries), _arm(rng, 200 - queries)]
        watching = [guards.observe(guard, minute, *arms) for guard in watching]
    return watching


def _sizes(rng: np.random.Generator) -> None:
    """Print whether an equal version is promoted as often as the number of queries that is asked for promises."""
    rows = []
    for name, draw in list(worlds(rng).items())[:2]:
        spread = float(np.std(draw(100_000, 0.0), ddof=1))
        groups = evaluation.groups_needed(POLICY, spread)
        passed = sum(compared(draw(groups, 0.0)).verdict(POLICY) is Verdict.PASSED for _ in range(DRAWS)) / DRAWS
        promise(passed >= 0.77, f"{name}: {groups} groups promote an equal version in {passed} of the draws")
        rows.append([name, f"{spread:.3f}", f"{groups:,}", f"{passed:.3f}"])
    print("\nThe groups that `groups_needed` asks for, and how often they promote an equal version (wanted: 0.80):")
    table(["versions that differ as", "standard deviation", "groups", "promoted"], rows)


def measure_looks() -> None:
    """Print how often a version that is exactly as bad as allowed fails, when it is looked at again and again."""
    rng = np.random.default_rng(2)
    draws, looks, size = 1500, 20, 500
    rows = []
    draw = next(iter(worlds(rng).values()))
    for sets, renewed in (("the same set, 1 % of it changed each time", 0.01), ("another set each time", 1.0)):
        first = later = naive = 0
        for _ in range(draws):
            means = draw(size, POLICY)
            seen = []
            for _ in range(looks):
                seen.append(compared(means))
                means = np.where(rng.random(size) < renewed, draw(size, POLICY), means)
            verdicts = [c.verdict(POLICY, look) for look, c in enumerate(seen, start=1)]
            first += verdicts[0] is Verdict.FAILED
            later += Verdict.FAILED in verdicts[1:]
            naive += any(c.verdict(POLICY) is Verdict.FAILED for c in seen[1:])
        promise(at_most(0.06, later / draws, draws), f"{sets}: {later} of {draws} failed at a later look")
        rows.append([sets, *(f"{count / draws:.3f}" for count in (first, later, naive))])
    print(f"A version worse by exactly δ = {POLICY}, {size} groups, {looks} looks, {draws:,} draws; failed:")
    table(["looks at", "at the first", "at any later, 0.03/k²", "at any later, were it 0.05 each time"], rows)


# Guards.

EDGES = np.log([latencies.upper(number) for number in range(120)])


def _latency(rng: np.random.Generator, queries: int, slower: float) -> dict[int, int]:
    """Lognormal latencies with a median of 10 ms, in buckets."""
    below = special.ndtr((EDGES - math.log(0.01 * slower)) / 0.6)
    counts = rng.multinomial(queries, np.diff(below, prepend=0.0, append=1.0))
    return {int(bucket): int(counts[bucket]) for bucket in np.nonzero(counts)[0]}


def _arm(
    rng: np.random.Generator, queries: int, errors: float = 0.001, slower: float = 1.0, empty: float = 0.01
) -> Arm:
    failed = int(rng.binomial(queries, errors))
    slow = _latency(rng, queries, slower) if slower else {}
    return Arm(queries, failed, int(rng.binomial(queries - failed, empty)), slow)


def measure_guards() -> None:
    """Print how often guards fail a version for nothing, and how soon they find a fault."""
    rng = np.random.default_rng(3)
    runs, minutes = 300, 240
    burst = lambda: Arm(50, 50 * int(rng.random() < 0.01))  # noqa: E731
    good: list[tuple[str, Signal, Callable[[], tuple[Arm, Arm]]]] = [
        ("0.1 % fail in both", Signal.ERRORS, lambda: (_arm(rng, 20, slower=0), _arm(rng, 180, slower=0))),
        ("1 % of 20 fail, none of the control", Signal.ERRORS, lambda: (_arm(rng, 20, 0.01, 0), _arm(rng, 180, 0, 0))),
        (
            "1 % of 200 fail, none of the control",
            Signal.ERRORS,
            lambda: (_arm(rng, 200, 0.01, 0), _arm(rng, 200, 0, 0)),
        ),
        ("one minute in 100 fails wholly", Signal.ERRORS, lambda: (burst(), _arm(rng, 150, 0, 0))),
        ("20 % fail in both", Signal.ERRORS, lambda: (_arm(rng, 20, 0.2, 0), _arm(rng, 180, 0.2, 0))),
        ("as fast", Signal.LATENCY, lambda: (_arm(rng, 20), _arm(rng, 180))),
        ("95th percentile 1.5 times as long", Signal.LATENCY, lambda: (_arm(rng, 20, slower=1.5), _arm(rng, 180))),
        ("30 % empty in both", Signal.EMPTY, lambda: (_arm(rng, 20, 0, 0, 0.3), _arm(rng, 180, 0, 0, 0.3))),
    ]
    rows = []
    for name, signal, arms in good:
        failed = 0
        for _ in range(runs):
            guard = guards.guard(signal)
            for minute in range(minutes):
                guard = guards.observe(guard, minute, *arms())
                if guard.has_failed:
                    failed += 1
                    break
        promise(at_most(guards.LEVEL, failed / runs, runs), f"{signal}, {name}: {failed} of {runs} failed")
        rows.append([f"{signal}: {name}", f"{failed / runs:.3f}"])
    print(f"Failed within {minutes // 60} hours though within the limit, looked at each minute, {runs} runs:")
    table(["guard", "failed"], rows)
    _faults(rng)


def _faults(rng: np.random.Generator) -> None:
    weights = {"10": (20, 180), "50": (100, 100), "99": (198, 2)}
    faults: list[tuple[Signal, str, dict[str, float]]] = [
        (Signal.ERRORS, "3 % fail", {"errors": 0.03}),
        (Signal.ERRORS, "10 % fail", {"errors": 0.1}),
        (Signal.ERRORS, "all fail", {"errors": 1.0}),
        (Signal.LATENCY, "2 times as long", {"slower": 2.0}),
        (Signal.LATENCY, "3 times as long", {"slower": 3.0}),
        (Signal.EMPTY, "15 % empty", {"empty": 0.15}),
        (Signal.EMPTY, "all empty", {"empty": 1.0}),
    ]
    rows = []
    leads = {signal: {minutes: _leads(rng, signal, minutes) for minutes in (0, 1440)} for signal in Signal}
    for signal, name, fault in faults:
        slower = 1.0 if signal is Signal.LATENCY else 0.0
        row = [f"{signal}: {name}"]
        for weight, (queries, control) in weights.items():
            for healthy in leads[signal].values():
                arms = (queries, {"slower": slower} | fault), (control, {"slower": slower})
                found = [_found(rng, lead, *arms) for lead in healthy]
                row.append(_minutes(found))
                if name.startswith("all"):
                    promise(np.quantile(found, 0.9) <= 15, f"{signal}, {name}, weight {weight}: {found}")
        rows.append(row)
    print(
        "\nMinutes until a fault is found, median and 90th percentile of 40 runs, of 200 queries a minute, when it is"
    )
    print("there from the beginning and when it comes after a day without:")
    head = [f"weight {weight}: {when}" for weight in weights for when in ("at once", "after a day")]
    table(["fault", *head], rows)
    print("\nMinutes without any fault until a guard passes:")
    table(["guard", "minutes"], [[signal, f"{_until_passed(signal):,}"] for signal in Signal])


def _leads(rng: np.random.Generator, signal: Signal, minutes: int) -> list[Guard]:
    """Forty guards that have seen so many good minutes; four histories do for all."""
    leads = []
    slower = 1.0 if signal is Signal.LATENCY else 0.0
    for _ in range(4):
        guard = guards.guard(signal)
        for minute in range(minutes):
            guard = guards.observe(guard, minute, _arm(rng, 20, slower=slower), _arm(rng, 180, slower=slower))
        leads.append(guard)
    return leads * 10


def _found(
    rng: np.random.Generator,
    guard: Guard,
    candidate: tuple[int, dict[str, float]],
    control: tuple[int, dict[str, float]],
) -> float:
    for minute in range(1, 241):
        arms = [_arm(rng, queries, **ways) for queries, ways in (candidate, control)]
        guard = guards.observe(guard, guard.minute + 1, *arms)
        if guard.has_failed:
            return minute
    return math.inf


def _minutes(found: Sequence[float]) -> str:
    shown = (np.quantile(found, share, method="higher") for share in (0.5, 0.9))
    return ", ".join("over 240" if math.isinf(value) else f"{value:.0f}" for value in shown)


def _until_passed(signal: Signal) -> int:
    guard, good = guards.guard(signal), Arm(200, latency={40: 200})
    while not guard.has_passed:
        guard = guards.observe(guard, guard.minute + 1, good, good)
    return guard.minute + 1


# Shifts of scores.


def measure_shifts() -> None:
    """Print how often days that are no different raise an alarm, and how soon a shift does."""
    rng = np.random.default_rng(4)
    years, rows = 200, []
    for spread in (0.05, 0.1, 0.2, 0.3):
        alarms = [_alarms(_year(rng, spread)) for _ in range(years)]
        textbook = _textbook(rng, spread, 2000)
        days = [_days_until(rng, spread, shift) for shift in (0.25, 0.5, 1.0) for _ in range(40)]
        promise(float(np.mean(alarms)) <= 1.0, f"spread {spread}: {np.mean(alarms)} false alarms a year")
        medians = [float(np.median(days[start : start + 40])) for start in (0, 40, 80)]
        found = ["over 90" if math.isinf(median) else f"{median:.0f}" for median in medians]
        rows.append([f"{spread:.2f}", f"{np.mean(alarms):.2f}", f"{textbook:.1f}", *found])
    print(f"False alarms a year ({years} years of 600 sessions a day), and days until a lasting shift is found, by how")
    print("much the days' means differ anyway; all in standard deviations of a score:")
    head = ["between days", "alarms a year", "with L = 3.2 on the shares alone", "shift by 0.25", "by 0.5", "by 1.0"]
    table(head, rows)


def _day(rng: np.random.Generator, middle: float) -> shifts.Day:
    scores = np.clip(rng.normal(middle, 0.1, 600), -1, 0.999)
    bins, counts = np.unique((scores * 128 + 128).astype(int), return_counts=True)
    return shifts.Day(600, dict(zip(bins.tolist(), counts.tolist(), strict=True)))


def _year(rng: np.random.Generator, spread: float) -> list[shifts.Day]:
    return [_day(rng, 0.6 + 0.1 * spread * rng.standard_normal()) for _ in range(14 + 365)]


def _alarms(days: Sequence[shifts.Day]) -> int:
    watch = shifts.watch(days)
    assert watch is not None
    states = [shifts.State.STEADY]
    for day in days[shifts.BASELINE_DAYS :]:
        watch = shifts.follow(watch, day)
        states.append(watch.state)
    return sum(now is shifts.State.SHIFTED and was is not now for was, now in itertools.pairwise(states))


def _days_until(rng: np.random.Generator, spread: float, shift: float) -> float:
    watch = shifts.watch(_year(rng, spread)[: shifts.BASELINE_DAYS])
    assert watch is not None
    for day in range(1, 91):
        watch = shifts.follow(watch, _day(rng, 0.6 - 0.1 * (shift + spread * rng.standard_normal())))
        if watch.state is shifts.State.SHIFTED:
            return day
    return math.inf


def _textbook(rng: np.random.Generator, spread: float, years: int) -> float:
    """Alarms a year of a chart of each share with L = 3.2, as if a fortnight knew its mean and spread exactly."""
    middles = spread * rng.standard_normal((years, 14 + 365, 1))
    below = special.ndtr(special.ndtri(np.array([0.05, 0.5, 0.95])) - middles)
    shares = rng.binomial(600, below) / 600
    usual, between = shares[:, :14].mean(axis=1), shares[:, :14].std(axis=1, ddof=1)
    average, was, alarms = usual, np.zeros(years, bool), 0
    for day in range(365):
        average = 0.8 * average + 0.2 * shares[:, 14 + day]
        reach = 3.2 * between * math.sqrt(0.2 / 1.8 * (1 - 0.8 ** (2 * day + 2)))
        now = (np.abs(average - usual) >= np.maximum(shifts.LEAST_SHIFT, reach)).any(axis=1)
        alarms += int((now & ~was).sum())
        was = now
    return alarms / years


MEASURES = {
    "evaluation": measure_evaluation,
    "looks": measure_looks,
    "guards": measure_guards,
    "shifts": measure_shifts,
}


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in MEASURES:
        sys.exit(__doc__)
    MEASURES[sys.argv[1]]()
    if BROKEN:
        sys.exit("a promise is broken:\n" + "\n".join(BROKEN))
