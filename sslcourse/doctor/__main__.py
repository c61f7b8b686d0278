"""`python -m sslcourse.doctor`: the doctor where not even the command line works."""

import argparse
import sys

from sslcourse import doctor
from sslcourse.console import let_print

parser = argparse.ArgumentParser(prog="python -m sslcourse.doctor", description=doctor.__doc__.split("\n")[0])
parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
parser.add_argument("--quick", action="store_true", help="leave out the ten seconds in which speed is measured")
arguments = parser.parse_args()
let_print(sys.stdout, sys.stderr)
sys.exit(doctor.run(json=arguments.json, quick=arguments.quick))
