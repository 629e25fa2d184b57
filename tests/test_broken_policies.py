"""A broken policy is never a result: what is not finite stops a run before a weight moves or a file is
written. An overflow of losses scaled for half precision is none of that. The average of the weights."""

import pytest
import torch

from core.files import to_yaml
from core.finite import NotFinite, check_finite
from methods import Loss
from runs.configuration import load_run
from runs.resolve import resolve_run
from training.adapters import official_decay
from training.optimiser import Optimiser
from training.ranks import Ranks
from training.trainer import Trainer

SHORT = {
    "iterations": 3,
    "checkpoint_every": 1,
    "prompts_per_iteration": 2,
    "group_size": 4,
    "gradient_steps": 1,
}


def make_trainer(folder, method="grpo", base=None, **settings) -> Trainer:
    run = resolve_run("tiny-sd3", "counting", method, 5, {"training": {**SHORT, **settings}}).model_dump()
    run["base_model"] |= base or {}
    (folder / "run.yaml").write_text(to_yaml(run))
    return Trainer(load_run(folder), folder)


def poison(trainer: Trainer, iteration: int) -> str:
    """One NaN in the gradient of one layer at this iteration; the layer's name."""
    name, parameter = next(iter(trainer.adapters.parameters.items()))
    backward = trainer.optimiser.backward

    def poisoned(loss):
        found = backward(loss)
        if trainer.iteration == iteration - 1:
            parameter.grad.view(-1)[0] = torch.nan
        return found

    trainer.optimiser.backward = poisoned
    return name


@pytest.mark.parametrize("method", ["grpo", "diffusion_nft"])
def test_a_gradient_that_is_not_finite_stops_the_run_before_its_step(method, tmp_path):
    trainer = make_trainer(tmp_path, method)
    name = poison(trainer, 2)
    with pytest.raises(
        NotFinite, match=rf"{trainer.config.run}, iteration 2: gradient of {name} is not finite"
    ):
        trainer.run()
    assert all(p.isfinite().all() for p in trainer.adapters.parameters.values())
    assert [p.name for p in (tmp_path / "checkpoint").iterdir()] == ["iteration_000001"]
    assert not (tmp_path / "adapter").exists() and not (tmp_path / "provenance.json").exists()


def test_a_broken_weight_is_neither_rolled_out_nor_saved(tmp_path):
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        for parameter in trainer.adapters.parameters.values():
            parameter.fill_(torch.inf)
    with pytest.raises(NotFinite, match="iteration 1: rollout's last latents"):
        trainer.iterate(1)
    with pytest.raises(NotFinite, match="iteration 0"):
        trainer.save_checkpoint()
    assert not (tmp_path / "checkpoint").exists()


def test_the_message_names_tensor_and_share():
    with pytest.raises(NotFinite, match=r"here: weight is not finite \(50.0% of its 4 values\)"):
        check_finite({"fine": torch.ones(2), "weight": torch.tensor([1, torch.inf, torch.nan, 0])}, "here")


def test_an_overflow_of_scaled_losses_takes_no_step_and_lowers_the_scale():
    weight = torch.nn.Parameter(torch.ones(1))
    settings = resolve_run("tiny-sd3", "counting", "grpo", 5, {}).training
    optimiser = Optimiser({"weight": weight}, settings, Ranks("cpu"), scaled=True)

    def step(gradient: float) -> dict:
        optimiser.zero_grad()
        optimiser.backward(Loss((weight * gradient).sum()))
        return optimiser.step("here")

    scale = optimiser.scaler.get_scale()
    assert step(torch.inf) == {"overflow": 1.0}
    assert weight.item() == 1 and optimiser.steps == 0
    assert optimiser.scaler.get_scale() == scale / 2
    again = Optimiser({"weight": weight}, settings, Ranks("cpu"), scaled=True)
    assert step(0.5)["gradient_norm"].item() == pytest.approx(0.5)  # unscaled
    again.load_state_dict(optimiser.state_dict())
    assert again.scaler.state_dict() == optimiser.scaler.state_dict()
    assert weight.item() < 1 and optimiser.steps == 1


def test_half_precision_trains_resumes_and_agrees_with_full_precision(tmp_path):
    norms = {}
    for dtype in ("float32", "float16"):
        folder = tmp_path / dtype
        folder.mkdir()
        trainer = make_trainer(folder, base={"dtype": dtype, "merged_dtype": None}, iterations=1)
        trainer.run()
        norms[dtype] = trainer.history.value(1, "train/gradient_norm")
        assert trainer.optimiser.steps == 1
    assert norms["float16"] == pytest.approx(norms["float32"], rel=0.1)


def test_the_public_codes_average_moves_every_eighth_step(tmp_path):
    assert [official_decay(0.9, step) for step in (1, 7, 9)] == [1, 1, 1]
    assert official_decay(0.9, 8) == pytest.approx((9 / 18) ** 8)
    assert official_decay(0.9, 800) == pytest.approx(0.9**8)
    trainer = make_trainer(tmp_path, iterations=8, ema_schedule="official_code")
    start = {k: v.clone() for k, v in trainer.adapters.average.items()}
    for iteration in range(1, 9):
        assert all(torch.equal(v, start[k]) for k, v in trainer.adapters.average.items())
        trainer.iterate(iteration)
    for name, value in trainer.adapters.average.items():
        expected = start[name].lerp(trainer.adapters.parameters[name].detach(), 1 - 0.5**8)
        assert torch.allclose(value, expected)
