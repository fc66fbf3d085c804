"""Run a command; print its exit code, wall seconds and peak resident bytes as JSON.

A process of its own, as small as can be: Linux counts what the parent held when it forked as the child's peak.
"""

from __future__ import annotations

import json
import os
import sys
from time import perf_counter


def main() -> None:
    start = perf_counter()
    process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    code = os.waitstatus_to_exitcode(status)
    print(json.dumps({"code": code, "seconds": seconds, "peak": usage.ru_maxrss * unit}))


if __name__ == "__main__":
    main()
