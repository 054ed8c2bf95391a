"""The child's side of a trial: the limits that a process sets itself before it reads what may be hostile.

Scripts for `limited_process.verdict` import this file by its folder, without the package: standard library only.
"""

import contextlib
import json

READY = "ready"  # written once everything is loaded: a process that ends before has not seen what it should read


def answer_within(cpu_s: int, more_bytes: int, answer) -> None:
    """Limit this process, then print "ready" and, as JSON, the dict that `answer()` returns.

    Its "refused" says why what was read cannot be used, as the rest of a sentence; None where it can.
    """
    limit_this_process(cpu_s, more_bytes)
    print(READY, flush=True)
    try:
        verdict = answer()
    except MemoryError:
        verdict = {"refused": f"needs more than {more_bytes // 1024**2} MB"}
    except RecursionError:
        verdict = {"refused": "is nested without bounds"}
    print(json.dumps(verdict))


def limit_this_process(cpu_s: int, more_bytes: int) -> None:
    """Limit processor time and memory from now on, and forbid writing files and starting processes.

    cpu_s, more_bytes: beyond what the libraries took while they were loaded. This cannot be undone.
    """
    try:
        import resource
    except ImportError:  # not a Unix system: the caller's clock is the only limit
        return
    used = 0
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    spent = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s += int(spent.ru_utime + spent.ru_stime) + 1
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_NPROC": 0,
        "RLIMIT_CPU": cpu_s,
        "RLIMIT_AS": used + more_bytes,
    }
    for name, value in limits.items():
        # a system may know a limit and refuse to set it; an outer limit may be lower already
        with contextlib.suppress(AttributeError, OSError, ValueError):
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
