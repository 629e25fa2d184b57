"""``README.md`` of an adapter: what it was trained on and how to load it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from huggingface_hub import ModelCardData

from base_models.base import ADAPTER_FILE
from core.prompts import read as read_prompts
from runs.configuration import RunConfig

_TEXT = """---
{metadata}
---

# {run}

A LoRA adapter of `{base}`, fine-tuned by goodhart, a benchmark of reward hacking. It may look better to its
reward than it is; see the suite's tables before using it.

| | |
|---|---|
| base model | {label}, `{base}`{revision} |
| method | {method} (`methods/{algorithm}.py`) |
| task | {task}, proxy reward `{proxy}` |
| seed | {seed} |
| iterations | {iterations} of {all_iterations} |
| weights | exponential moving average, decay {ema_decay} |
| configuration | sha256 `{hash}` |

```python
import torch
from diffusers import DiffusionPipeline{imports}

pipe = DiffusionPipeline.from_pretrained({arguments}){device}
pipe.load_lora_weights({folder!r}, weight_name={file!r})
{medium} = pipe(
    {call},
    num_inference_steps={steps},
    guidance_scale={guidance},
    max_sequence_length={tokens},
    height={height},
    width={width},{frames}
).{output}[0]
```

The scale of the adapter, alpha / rank = {scale:g}, stands in the metadata of its file. Loaders that do not
read it apply the adapter with a scale of 1; diffusers {diffusers}, which wrote the file, reads it.

The base model's licence ({license}) holds for the adapter too.
"""


def model_card(config: RunConfig, iteration: int, folder: Path) -> str:
    """The card, as Markdown with metadata, of the adapter that a run leaves in ``folder``."""
    base = config.base_model
    listed = base.licence == "apache-2.0"  # the hub knows others by name only
    metadata = ModelCardData(
        base_model=base.path,
        library_name="diffusers",
        license=base.licence if listed else "other",
        license_name=None if listed else base.licence,
        pipeline_tag="text-to-video" if base.clip else "text-to-image",
        tags=["lora", "diffusers", "reinforcement-learning", "goodhart"],
    )
    arguments = [repr(base.path), f"dtype=torch.{base.dtype}"]
    if base.revision:
        arguments.insert(1, f"revision={base.revision!r}")
    arguments += [f"{component}=None" for component in base.without]
    prompt = read_prompts(Path(config.task_settings.prompts))[0]["prompt"]
    shown = {
        "imports": "",
        "medium": "image",
        "call": repr(prompt),
        "frames": "",
        "output": "images",
        "width": base.image_size,
    }
    if base.clip:
        arguments.append("safety_checker=Unchecked()")
        shown |= {
            "imports": "\n\nfrom base_models.cosmos import Unchecked  # or cosmos_guardrail's checker",
            "medium": "clip",
            "call": f"prompt={prompt!r}",
            "frames": f"\n    num_frames={base.clip.frames},",
            "output": "frames",
            "width": base.clip.width,
        }
    return _TEXT.format(
        metadata=metadata.to_yaml(),
        run=config.run,
        base=base.path,
        label=base.label,
        revision=f" at `{base.revision}`" if base.revision else "",
        method=config.method,
        algorithm=config.algorithm,
        task=config.task,
        proxy=config.task_settings.proxy,
        seed=config.seed,
        iterations=iteration,
        all_iterations=config.training.iterations,
        ema_decay=config.training.ema_decay,
        hash=config.hash,
        arguments=", ".join(arguments),
        device='.to("cuda")' if base.needs_gpu else "",
        folder=str(folder),
        file=ADAPTER_FILE,
        steps=base.evaluation_steps,
        guidance=base.shown_guidance,
        tokens=base.max_sequence_length,
        height=base.image_size,
        **shown,
        license=base.licence,
        scale=base.lora.alpha / base.lora.rank,
        diffusers=version("diffusers"),
    )
