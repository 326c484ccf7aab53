"""Measure speed: `python -m experiments.benchmarks` prints a table and writes JSON."""
