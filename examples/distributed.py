"""Distributed training with torchrun.

    torchrun --nproc-per-node 2 examples/distributed.py birds/ runs/birds --max-epochs 10

Each process computes its share of every step, on one GPU if available. `batch_size` is the batch of all processes
together, so their number changes the speed and not the result. For several machines use torchrun's `--nnodes` and
`--rdzv-endpoint`, or SLURM. Without torchrun, `perceivers fit birds/ --devices 2` starts the processes.
"""

import argparse
import os

import perceivers as pv


def main(data: str, out: str, **changes: object) -> None:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(processes)))
    run = pv.fit(data, out=out, devices=local, nodes=processes // local, progress=False, **changes)
    if os.environ.get("RANK", "0") == "0":  # all ranks have the same weights
        accuracy = run.metrics["accuracy"]
        print(f"{processes} processes: {accuracy:.1%} validation accuracy, in {run.folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--max-epochs", type=int)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--batch-size", type=int, default=64)
    changes = {
        name: value for name, value in vars(parser.parse_args()).items() if value is not None
    }
    main(**changes)
