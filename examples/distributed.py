"""Training on several processes: the same call everywhere, and the numbers of one process.

    torchrun --nproc-per-node 2 examples/distributed.py birds/ runs/birds --max-epochs 10

Each process computes its part of every step, on a GPU of its own where there are any. `batch_size` is the step: the
number of processes changes how long a run takes and not what it learns. On several machines: torchrun's `--nnodes` and
`--rdzv-endpoint`, or SLURM. Without torchrun, `perceivers fit birds/ --devices 2` starts the processes.
"""

import argparse
import os

import perceivers as pv


def main(data: str, out: str, **changes: object) -> None:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(processes)))
    run = pv.fit(data, out=out, devices=here, nodes=processes // here, progress=False, **changes)
    if os.environ.get("RANK", "0") == "0":  # the others have the same weights, and write nothing
        accuracy = run.metrics["accuracy"]
        print(f"{processes} processes: {accuracy:.1%} of the validation split, in {run.folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--max-epochs", type=int)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--batch-size", type=int, default=64)
    asked = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    main(**asked)
