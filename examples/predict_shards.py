"""Predict shards with any number of processes and machines; can be restarted at any time.

    torchrun --nproc-per-node 8 examples/predict_shards.py runs/birds "s3://bucket/train-{000..127}.tar" predictions/

Each process predicts its part of the shards and writes one Parquet file for each. A restart skips finished shards.
"""

import os
import sys
from pathlib import Path

import torch

import perceivers as pv
from perceivers.evaluation.shards import predict_shards, rank_from_environment, shards_of


def main(run: str, data: list[str], out: str) -> None:
    rank, world_size = rank_from_environment()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    predictor = pv.load(run)
    shards = shards_of(data if len(data) > 1 else data[0])
    done = predict_shards(predictor, shards, Path(out), rank=rank, world_size=world_size, model=run)
    for result in done:
        status = (
            "already finished"
            if result.skipped
            else f"{result.num_rows} rows, {result.bad} invalid"
        )
        print(f"process {rank}: {result.shard} -> {result.path}: {status}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: predict_shards.py RUN SHARDS... OUT")
    main(sys.argv[1], sys.argv[2:-1], sys.argv[-1])
