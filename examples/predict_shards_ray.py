"""Predict shards with Ray Data, on all machines of a cluster.

    pip install "ray[data]"
    python examples/predict_shards_ray.py runs/birds shards/birds predictions/ --devices 4

Each actor predicts shards as `examples/predict_shards.py` does: one Parquet file for each, skipping finished ones.
"""

import argparse
from pathlib import Path

import ray

import perceivers as pv
from perceivers.evaluation.shards import predict_shards, shards_of


class ShardPredictor:
    """Actor with one model that predicts shards."""

    def __init__(self, run: str, shards: list, out: str) -> None:
        self.predictor = pv.load(run)
        self.run, self.shards, self.out = run, shards, Path(out)

    def __call__(self, row: dict) -> dict:
        # With as many processes as shards, process n has shard n.
        (result,) = predict_shards(
            self.predictor,
            self.shards,
            self.out,
            rank=int(row["id"]),
            world_size=len(self.shards),
            model=self.run,
        )
        return {"shard": str(result.shard), "rows": result.num_rows, "bad": result.bad}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--devices", type=int, default=0, help="GPUs; 0 computes on the CPU")
    options = parser.parse_args()
    shards = shards_of(options.data)
    done = ray.data.range(len(shards), override_num_blocks=len(shards)).map(
        ShardPredictor,
        fn_constructor_args=(options.run, shards, str(Path(options.out).absolute())),
        num_gpus=1 if options.devices else 0,
        concurrency=options.devices or 1,
    )
    for row in done.iter_rows():
        print(row)
