"""Fixtures of the Python suites, the demo and the benchmark: servers on free ports, requests, waiting, clean-up.

`tests` is a package: run from the root of the checkout, `python -m unittest discover -s tests/SUITE -t .` for a suite.
"""
