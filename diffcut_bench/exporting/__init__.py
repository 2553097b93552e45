"""Results in forms that travel: tidy tables, a leaderboard, and a data set folder of the Hugging Face hub."""

from diffcut_bench.exporting.export import Exported, export_results

__all__ = ["Exported", "export_results"]
