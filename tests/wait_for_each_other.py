"""Two processes of which one comes late: ``torchrun ... tests/wait_for_each_other.py SECONDS``."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from training.ranks import Ranks  # noqa: E402

ranks = Ranks("cpu")
if ranks.index == 1:
    time.sleep(float(sys.argv[1]))
ranks.wait()
