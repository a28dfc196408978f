"""`python -m bench [CASE ...] [--check]`: run cases; with --check, small inputs and only the answers count."""

from __future__ import annotations

import argparse
import importlib
import json
import os

#: Each is a module beside this one with `run(*, check: bool)`, which yields one row a measurement.
CASES = ("evaluate", "export", "match", "metadata", "curate", "memory", "loader", "train", "hygiene", "leakage")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"one or more of {', '.join(CASES)}; default: all")
    parser.add_argument("--check", action="store_true", help="small inputs: check the answers, not the time")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.cases) - set(CASES)):
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    print(json.dumps({"cores": os.cpu_count()}))
    for name in arguments.cases or CASES:
        for row in importlib.import_module(f"bench.{name}").run(check=arguments.check):
            print(json.dumps({"case": name, **row}, ensure_ascii=False), flush=True)


main()
