"""Train several run folders in one process group: ``torchrun tests/train_many.py DATA RUN ...``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from runs.configuration import load_run  # noqa: E402
from training.trainer import Trainer  # noqa: E402

data, *folders = map(Path, sys.argv[1:])
for folder in folders:
    Trainer(load_run(folder), folder, data=data).run()
