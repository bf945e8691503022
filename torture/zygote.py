"""Runs under the interpreter that has the pipeline: loads it once, then a fork a command.

Not imported by the harness: it is started as a script. Lines of JSON come in on standard input,
lines of JSON go out: ``{"id", "pid"}`` as a command starts, ``{"id", "rc", "rss_kb", "calls"}`` as
it ends. A forked command is the command line as it is, but for the seconds that imports take.
"""

import ctypes
import json
import os
import resource
import runpy
import select
import signal
import sys
import traceback
from typing import Any


def child(job: dict[str, Any], shim: ctypes.CDLL | None) -> None:
    """Become one command."""
    os.setsid()
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if job.get("more"):  # address space beyond what the libraries take already
        with open("/proc/self/statm") as stream:  # noqa: PTH123
            mapped = int(stream.read().split()[0]) * resource.getpagesize()
        job["as"] = mapped + job["more"]
    for name in ("fsize", "as"):
        if job.get(name):
            which = getattr(resource, f"RLIMIT_{name.upper()}")
            resource.setrlimit(which, (job[name], job[name]))
    if job.get("fsize"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    os.chdir(job["cwd"])
    sys.argv = [job.get("script", "-m"), *job["arguments"]]
    if shim is not None and job.get("journal"):
        os.environ |= {"TORTURE_ROOT": job["root"], "TORTURE_JOURNAL": job["journal"]}
        shim.torture_record(job["root"].encode(), job["journal"].encode())
    elif shim is not None and job.get("root"):
        shim.torture_arm(job["root"].encode(), job.get("mode", 0), job.get("call", 0))
    code = 1
    try:
        if job.get("script"):
            runpy.run_path(job["script"], run_name="__main__")
            code = 0
        else:
            from cnn_codes.cli import main

            code = main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    if shim is not None and job.get("root") and not job.get("journal"):
        os.write(1, f"\nCALLS {shim.torture_counted()}\n".encode())
    try:
        sys.stdout.flush()
    except OSError:
        pass
    os._exit(code)


def main() -> None:
    """Load the libraries, then fork for every line."""
    import cnn_codes.cli  # noqa: F401
    import h5py  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import onnxruntime  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.svm  # noqa: F401
    import timm  # noqa: F401
    import torch
    import torchvision  # noqa: F401

    torch.set_num_threads(1)
    shim = ctypes.CDLL(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] else None
    if shim is not None:
        shim.torture_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long]
        shim.torture_record.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        shim.torture_counted.restype = ctypes.c_long
    running: dict[int, int] = {}
    print(json.dumps({"ready": True}), flush=True)
    rest = b""
    while True:
        if select.select([0], [], [], 0.004)[0]:
            block = os.read(0, 1 << 16)
            if not block:
                return
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                job = json.loads(line)
                pid = os.fork()
                if not pid:
                    child(job, shim)
                running[pid] = job["id"]
                print(json.dumps({"id": job["id"], "pid": pid}), flush=True)
        while running:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if not pid:
                break
            if pid in running:
                rc = os.waitstatus_to_exitcode(status)
                print(json.dumps({"id": running.pop(pid), "rc": rc, "rss_kb": usage.ru_maxrss}),
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
