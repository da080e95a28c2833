#!/usr/bin/env python3
"""nadir as a user meets it: cli.py NADIR MAN-PAGE PART [unittest option...]

PART is one of the modules test_PART beside this file. The guests are a few bytes each (guests.py)."""
import importlib
import os
import sys
import unittest

sys.dont_write_bytecode = True
import run  # noqa: E402, pylint: disable=wrong-import-position


def main():
    run.NADIR, run.MAN_PAGE = (os.path.abspath(path) for path in sys.argv[1:3])  # tests change the directory
    part = sys.argv[3]
    suite = unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module("test_" + part))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
