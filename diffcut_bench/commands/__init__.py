"""The commands, one file each; `diffcut_bench.cli` chooses among them."""
