"""Where classifier-free guidance acts: rollouts and losses on images, never a diffusion loss on data."""

from pathlib import Path

import pytest
import torch

from core.files import to_yaml
from evaluation.sample import Sampler
from runs.config_files import load_base_model, load_task
from runs.configuration import load_run
from runs.resolve import resolve_run
from training import data
from training.prompts import PromptSet
from training.trainer import Trainer

GUIDANCE, EVALUATED = 3.0, 2.0
SHORT = {"iterations": 1, "prompts_per_iteration": 2, "group_size": 4, "gradient_steps": 1}


@pytest.mark.parametrize("method", ["ddrl_real", "sft"])
def test_the_data_term_is_about_the_velocity_without_guidance(method, tmp_path):
    run = resolve_run("tiny-sd3", "counting", method, 5, {"training": SHORT}).model_dump()
    run["base_model"] |= {"guidance_scale": GUIDANCE, "merged_dtype": None}
    (tmp_path / "run.yaml").write_text(to_yaml(run))
    config = load_run(tmp_path)
    trainer = Trainer(config, tmp_path, data=_latents(tmp_path / "data.safetensors"))
    model, process = trainer.model, trainer.process
    assert model.classifier_free_guidance
    asked = []
    predict, velocity = model.predict, model.velocity
    with torch.no_grad():
        experience = process.collect(1)
        model.predict = lambda *at: asked.append(at) or predict(*at)
        (batches,) = process.gradient_steps(experience)
        batch = next(iter(batches))
    of_data = next(at for at in reversed(asked) if len(at[0]) == len(batch.data.x0))
    with torch.no_grad():
        guided = velocity(*of_data, process.prompts.empty)
        assert torch.allclose(batch.data.velocity, predict(*of_data), atol=1e-5)
    assert (batch.data.velocity - guided).abs().max() > 0.1


def _latents(path: Path) -> Path:
    from base_models import open_base_model

    model, task = open_base_model(load_base_model("tiny-sd3")), load_task("counting")
    prompts = PromptSet(Path(task.prompts), task.tag_weights, model)
    data.save(path, data.real_latents(model, prompts, 1, batch=64), prompts, 1)
    return path


@pytest.mark.parametrize(("own", "shown"), [(None, GUIDANCE), (EVALUATED, EVALUATED)])
def test_evaluation_may_have_a_guidance_of_its_own(own, shown):
    run = resolve_run("tiny-sd3", "counting", "grpo", 5, {"training": SHORT})
    settings = {"guidance_scale": GUIDANCE, "evaluation_guidance_scale": own}
    base = run.base_model.model_copy(update=settings)
    run = run.model_copy(update={"base_model": base})
    assert Sampler(run, None, "cpu").model.config.guidance_scale == shown
    assert run.base_model.guidance_scale == GUIDANCE
