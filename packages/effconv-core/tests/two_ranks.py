"""Programs in two ranks each, forked from one process that has imported what takes long.

Reads lines of JSON, [folder, program, arguments...], and answers each with the statuses of the
ranks. What a rank says is in the folder. Unlike torchrun, it lets each go on where the other ends.
"""

import json
import os
import runpy
import signal
import socket
import sys

import effconv_core  # noqa: F401
import torch._dynamo  # noqa: F401  which optimizers import at their first step

PATIENCE = 240  # seconds


def main() -> None:
    """Fork two ranks for each line, which run the program, and wait for them."""
    for line in sys.stdin:
        folder, *words = json.loads(line)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = str(listener.getsockname()[1])
        processes = []
        for rank in ("0", "1"):
            process = os.fork()
            if not process:
                signal.alarm(PATIENCE)
                said = os.open(f"{folder}/{rank}.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
                for stream in (1, 2):
                    os.dup2(said, stream)
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
                sys.argv = words
                runpy.run_path(words[0], run_name="__main__")
                return
            processes.append(process)
        ended = [os.waitpid(process, 0)[1] for process in processes]
        sys.stdout.write(json.dumps([*map(os.waitstatus_to_exitcode, ended)]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
