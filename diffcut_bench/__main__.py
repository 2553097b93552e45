"""``python -m diffcut_bench``."""

from diffcut_bench.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
