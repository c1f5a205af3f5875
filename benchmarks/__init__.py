"""Speed and memory, side by side: this library, other implementations, and what the machine allows.

    python -m benchmarks --list
    python -m benchmarks                    all cases on this CPU (`make bench`)
    python -m benchmarks --device cuda      all cases on a GPU, in float32 and bfloat16

| file | holds |
|---|---|
| `setting.py` | what a case is, and the sizes of everything |
| `plain.py` | the papers' formulas in plain PyTorch, knowing nothing of this library |
| `models.py` | the whole models that compete, with the same weights |
| `reads.py`, `wholes.py` | contestants: one read, whole models |
| `cases.py` | every case, with its targets |
| `measure.py` | one process: do they compute the same, how long, how much memory |
| `harness.py` | the processes of a case, and its ratios |
| `small_cpu.py` | `fit` without flags compared with simple baselines: `make small-cpu` |
| `evidence.py`, `evidence_page.py` | Perceivers and plain networks at equal training cost |
| `small_cpu_baselines.py`, `small_cpu_page.py`, `plain_nets.py` | its baselines, its page, plain networks |
| `facts.py` | what the numbers depend on besides the code |
| `table.py` | results -> the tables of docs/performance.md |
"""
