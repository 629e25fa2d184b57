"""Two processes of which one comes late: ``torchrun ... tests/wait_for_each_other.py SECONDS``."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from training.processes import Processes  # noqa: E402

processes = Processes("cpu")
if processes.index == 1:
    time.sleep(float(sys.argv[1]))
processes.wait()
