"""Check the evidence under ``results`` again, by code that shares none with the report; or a run of your own.

Usage: python scripts/verify.py               every table from the logs, every record, the manifest; in a minute
       python scripts/verify.py RUN_FOLDER    is this run on fractals as it should be? one line
       python scripts/verify.py --rerun       train the first epochs of a record, drawn at random, at its commit
       python scripts/verify.py --manifest    write results/*.sha256 anew, after new records and scripts/report.py

Exit code 0 when all holds, 1 when something does not, 2 when it cannot be tried.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    # imports come from this checkout, also where another one is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.command import exit_with
from train.errors import UserError, print_error

try:
    from scripts.verification import manifest, reference, rerun, runs, tables
except ModuleNotFoundError as missing:
    sys.exit(print_error(UserError(f"scripts/verify.py needs {missing.name}: pip install -e '.[report]'")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("run", nargs="?", type=Path, metavar="RUN_FOLDER", help="a finished run on fractals")
    what.add_argument("--rerun", nargs="?", const="", metavar="RECORD", help="a record's folder; by default any")
    what.add_argument("--manifest", action="store_true")
    arguments = parser.parse_args()
    if arguments.run:
        holds, line = reference.judge(arguments.run)
        print(line)
        return 0 if holds else 1
    if arguments.rerun is not None:
        return rerun.rerun(arguments.rerun)
    if arguments.manifest:
        print(f"{manifest.write()} files and tables listed in results/*.sha256")
        return 0
    if not runs.commits():
        print("the commits of records are not looked up: this copy has no whole git history", file=sys.stderr)
    faults = [*manifest.faults(), *runs.faults(), *tables.faults()]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(
        f"{runs.count()} records, {tables.count()} cells of tables: {f'{len(faults)} faults' if faults else 'all hold'}"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    exit_with(main)
