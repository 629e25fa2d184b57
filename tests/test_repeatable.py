"""What a job asks of an accelerator; without one, that the requests are what they should be."""

import subprocess
import sys

CHECK = """
import os, torch
from core.command import repeatable, set_threads
set_threads(1)
print(torch.are_deterministic_algorithms_enabled())  # a processor's results stay as they are
repeatable()
print(torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
print(torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
print(os.environ["CUBLAS_WORKSPACE_CONFIG"])
"""


def test_kernels_that_repeat_are_asked_for_on_an_accelerator_alone():
    import torch

    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=True)
    first, *rest = done.stdout.splitlines()
    assert first == str(torch.cuda.is_available())
    assert rest == ["True True", "False False False", ":4096:8"]
