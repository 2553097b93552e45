"""Which score leads, and which cell of a data set is the best: for cards, tables and leaderboards alike."""

from collections import Counter
from collections.abc import Sequence

from diffcut_bench.evaluation import Metric, known_metrics
from diffcut_bench.store import Result, Score


def leading_metric(score: str = "miou", results: Sequence[Result] = ()) -> Metric:
    """The metric that tables, cards and curves lead with: the chosen one, or the first that one of the results has
    where none has that."""
    metrics = known_metrics()
    told = {name for result in results for name in result.scores}
    return (
        metrics[score] if score in told else next((metrics[name] for name in metrics if name in told), metrics[score])
    )


def ranked_cells(results: Sequence[Result], score: str) -> dict[str, list[int]]:
    """Indices of the cells on each data set, best first: whole cells before shards, those under the released protocol
    before limited and others.

    A published split is known by its name, the user's own data by its options; of several with one name all but the
    first are numbered.
    """
    together: dict[tuple[str, str], list[int]] = {}
    for index, result in enumerate(results):
        dataset = result.dataset
        identity = dataset.name, str(result.config.get("dataset")) if dataset.n_expected is None else ""
        together.setdefault(identity, []).append(index)
    named: dict[str, list[int]] = {}
    seen: Counter[str] = Counter()
    for (name, _), indices in together.items():
        seen[name] += 1
        ranked = sorted(indices, key=lambda index: merit(results[index], score), reverse=True)
        named[name if seen[name] == 1 else f"{name} ({seen[name]})"] = ranked
    return named


def merit(result: Result, score: str) -> tuple[bool, bool, bool, bool, int, float]:
    """What cells of a data set are ranked by, more is better."""
    metric = leading_metric(score, [result])
    value = metric.merit(result.scores.get(metric.name, Score(None)).value)
    # Scores of different protocols, or of images that were easy enough not to fail, are not comparable.
    released = result.protocol.get("name") == "released"
    has_it = metric.name == score  # a card of another score is for want of one of this
    return result.shard is None, has_it, not result.limited, released, -len(result.failures), value
