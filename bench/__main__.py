"""`python -m bench [--check]`: run every case; with --check, small inputs and only the answers count."""

from __future__ import annotations

import argparse
import json
import os

from bench import match


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--check", action="store_true", help="small inputs: check the answers, not the time")
    arguments = parser.parse_args()
    print(json.dumps({"cores": os.cpu_count()}))
    for row in match.run(texts=20_000 if arguments.check else 200_000):
        print(json.dumps(row, ensure_ascii=False))


main()
