"""A chart of the report against the same one by matplotlib: CPU seconds and bytes of SVG.

    pip install matplotlib; python benchmarks/charts.py

The chart is that of the rewards of a run of 200 outer steps of four datasets, and a plain line of 200 points. Ours is
drawn for a phone, for half a page, and the first one for a whole page, too; matplotlib's is drawn once.
"""

import io
import random
import time
from collections.abc import Callable

ROUNDS = 10


def best_of(draw: Callable[[], str]) -> tuple[float, int]:
    """Least CPU seconds of a drawing, and its size in bytes."""
    seconds: list[float] = []
    svg = draw()
    for _ in range(ROUNDS):
        began = time.process_time()
        svg = draw()
        seconds.append(time.process_time() - began)
    return min(seconds), len(svg.encode())


def main() -> None:
    rng = random.Random(0)
    dots = [(step, round(64 * rng.gauss(0.01, 0.02)) / 64) for step in range(1, 201) for _ in range(4)]
    line = [(step, rng.gauss(0.01, 0.01)) for step in range(1, 201)]

    began = time.process_time()
    from soarctl.report.charts import Series, line_chart

    ours = time.process_time() - began
    began = time.process_time()
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    theirs = time.process_time() - began

    def our_rewards() -> str:
        series = [Series("datasets", dots, 5, "dots"), Series("mean", line, 0)]
        return line_chart(series, label="rewards", x_label="outer step", y_label="reward", level=0.01, wide=True)

    def our_line() -> str:
        return line_chart([Series("mean", line, 0)], label="rewards", x_label="outer step", y_label="reward")

    def their_chart(width: float, *, with_dots: bool) -> str:
        figure = Figure(figsize=(width, 2.8), layout="constrained")
        axes = figure.subplots()
        if with_dots:
            axes.plot(*zip(*dots, strict=True), ".", label="datasets")
            axes.axhline(0.01, linestyle="--")
        axes.plot(*zip(*line, strict=True), label="mean")
        axes.set(xlabel="outer step", ylabel="reward")
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True)
        return out.getvalue()

    print(f"{'':24} {'CPU s':>8} {'bytes':>8}")
    print(f"{'import, ours':24} {ours:8.3f}")
    print(f"{'import, matplotlib':24} {theirs:8.3f}")
    for name, draw in (
        ("rewards, ours", our_rewards),
        ("rewards, matplotlib", lambda: their_chart(11.4, with_dots=True)),
        ("a line, ours", our_line),
        ("a line, matplotlib", lambda: their_chart(5.6, with_dots=False)),
    ):
        seconds, size = best_of(draw)
        print(f"{name:24} {seconds:8.4f} {size:8}")


if __name__ == "__main__":
    main()
