"""The loop on the shipped tiny base model: contracts over all methods, exact resume, artefacts, errors."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import methods
import rewards
from base_models import open_base_model
from base_models.base import ADAPTER_FILE, POLICY
from base_models.cpu_engine import has_bf16
from base_models.flux import pack
from benchmarks.loops import leave_the_base
from core.files import sha256, to_yaml
from core.seeding import generator
from core.settings import ConfigError
from methods import Loss
from methods.maths.sde import flow_sde_step
from processes import reverse
from processes.base import REFERENCE
from processes.rows import Rows
from processes.sampling import Transition, noise, sample_ode, sample_trajectories
from rewards.base import RewardError
from runs.config_files import load_base_model, load_method, load_task, method_names
from runs.configuration import load_run
from runs.logged import is_logged
from runs.resolve import resolve_run
from training import data
from training.prompts import PromptList, PromptSet
from training.trainer import Trainer

METHODS = method_names()
SHORT = {
    "iterations": 3,
    "checkpoint_every": 1,
    "monitor_every": 1,
    "prompts_per_iteration": 2,
    "group_size": 4,
}


@pytest.fixture(scope="module")
def model():
    model = open_base_model(load_base_model("tiny-sd3"))
    model.add_adapter()
    return model


@pytest.fixture(scope="module")
def data_file(model, tmp_path_factory):
    task = load_task("counting")
    prompts = PromptSet(Path(task.prompts), task.tag_weights, model)
    path = tmp_path_factory.mktemp("data") / "real.safetensors"
    data.save(path, data.real_latents(model, prompts, 1, batch=64), prompts, 1)
    return path


def make_run(
    folder: Path, method: str, seed: int = 5, base: str = "tiny-sd3", exact: bool = False, **settings
) -> Path:
    """``exact``: roll out in full precision, whose rounding hardly depends on the size of a batch."""
    run = resolve_run(base, "counting", method, seed, {"training": {**SHORT, **settings}}).model_dump()
    if exact:
        run["base_model"]["merged_dtype"] = None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(to_yaml(run))
    return folder


def gradients_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Zero where no gradient comes: the policy's velocity does not depend on every layer."""
    parameters = trainer.adapters.parameters.items()
    return {k: torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in parameters}


def history(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "history.parquet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_file):
    """Three updates of any method, made when first asked for: method -> run folder."""
    root = tmp_path_factory.mktemp("trained")

    def train(method: str) -> Path:
        # The public code's average does not move before the eighth gradient step.
        late = load_method(method).training.get("ema_schedule") == "official_code"
        folder = make_run(root / method, method, gradient_steps=1, **({"iterations": 8} if late else {}))
        config = load_run(folder)
        if not (folder / "provenance.json").exists():
            if config.start:
                start = train(load_method(method).start_from)
                if not (root / config.start.run).exists():
                    (root / config.start.run).symlink_to(start)
            Trainer(config, folder, data=data_file).run()
        return folder

    return train


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_three_updates(method, trained):
    folder = trained(method)
    adapter = load_file(folder / "adapter" / ADAPTER_FILE)
    assert adapter and all(key.startswith("transformer.") for key in adapter)
    assert all(torch.isfinite(value).all() for value in adapter.values())
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["precision"] == ("bfloat16" if has_bf16(torch.device("cpu")) else "float32")
    if load_run(folder).training.iterations == 0:
        row = load_run(folder)
        if row.start is None:
            assert all(not v.any() for k, v in adapter.items() if "lora_B" in k)
        else:  # whatever the row that it scales has moved, and nothing else
            start = load_file(trained(load_method(method).start_from) / "adapter" / ADAPTER_FILE)
            moved = {k for k, v in start.items() if "lora_B" in k and v.any()}
            assert moved and {k for k, v in adapter.items() if "lora_B" in k and v.any()} == moved
        return
    assert any(v.any() for k, v in adapter.items() if "lora_B" in k)
    table = history(folder)
    assert (table[table.name == "train/clipped_share"].value == 0).all()  # on policy the ratio is exactly 1
    assert not [name for name in set(table.name) if not is_logged(name)]  # runs/logged.py says what each is
    assert table.value.notna().all() and provenance["gradient_steps"] == load_run(folder).training.iterations


def test_two_processes_give_what_one_gives(tmp_path, data_file):
    rows = [m for m in METHODS if load_method(m).start_from is None]
    # One row of each algorithm, with a reference and the gate where it knows them.
    rows += ["grpo_kl_large", "gardo", "diffusion_nft_gardo", "ddrl_synthetic"]
    algorithms = {load_method(m).algorithm: m for m in rows}
    folders = {
        # Three groups: two processes share one.
        (count, m): make_run(tmp_path / str(count) / m, m, exact=True, prompts_per_iteration=3)
        for count in (1, 2)
        for m in algorithms.values()
    }
    for count in (1, 2):
        together = [str(folders[count, m]) for m in algorithms.values()]
        subprocess.run(
            ["torchrun", "--nproc_per_node", str(count), "tests/train_many.py", str(data_file), *together],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=600,
        )
    for method in algorithms.values():
        provenance = json.loads((folders[2, method] / "provenance.json").read_text())
        one, two = (load_file(folders[n, method] / "adapter" / ADAPTER_FILE) for n in (1, 2))
        moved = torch.cat([v.flatten() for k, v in one.items() if "lora_B" in k])  # from 0
        apart = moved - torch.cat([v.flatten() for k, v in two.items() if "lora_B" in k])
        assert provenance["processes"] == 2
        assert apart.norm() <= 1e-3 * moved.norm(), method


def test_a_second_gradient_step_is_off_policy(tmp_path):
    config = load_run(make_run(tmp_path, "grpo", exact=True, learning_rate=0.05))
    config = config.model_copy(update={"training": config.training.model_copy(update={"gradient_steps": 2})})
    trainer, clipped = Trainer(config, tmp_path), []
    step = trainer.step
    trainer.step = lambda loss, i: (clipped.append(loss.logged["clipped_share"]), step(loss, i))
    trainer.run()
    assert trainer.optimiser.steps == 6
    assert clipped[::2] == [0, 0, 0] and min(clipped[1::2]) > 0  # the ratio has left 1


ANCHORED = """
from methods import Loss, Method, MethodConfig, Needs, Prepared


class AnchoredConfig(MethodConfig):
    def needs(self):
        return Needs(data=True, data_noise="fresh", reference="all", adaptive_reference=True)


class Anchored(Method):
    name = "anchored"
    Config = AnchoredConfig

    def prepare(self, rollout):
        return Prepared(rollout.rewards - rollout.rewards.mean(), rollout.rewards > -9)

    def loss(self, batch):
        policy = -(batch.advantages * batch.log_prob).sum() / batch.rows
        apart = (batch.mean - batch.reference_mean).square().flatten(1).mean(1).sum() / batch.rows
        error = batch.data.velocity - (batch.data.noise - batch.data.x0)
        data = error.square().flatten(1).mean(1).sum() / batch.data_rows
        return Loss(policy + apart + data, steering=apart.item(), logged={"anchor": data.item()})

    def after_update(self, steering):
        return steering > 1e-10
"""


def test_a_new_method_on_denoising_steps_has_data_and_its_own_steering(tmp_path, data_file, monkeypatch):
    """Dropped in: it has no parameter of DDRL's or GARDO's, and logs nothing that they log."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "anchored.py").write_text(ANCHORED)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "plugins")])
    config = load_run(make_run(tmp_path / "run", "ddrl_real", exact=True))
    config = config.model_copy(update={"algorithm": "anchored", "parameters": {}})
    Trainer(config, tmp_path / "run", data=data_file).run()
    logged = history(tmp_path / "run").set_index(["name", "step"])["value"]
    assert (logged["train/anchor"] > 0).all() and "train/kl_loss" not in logged
    # The policy has left its reference when the second step begins, and is it again when the third does.
    assert logged["train/reference_reset"].index.tolist() == [2]


@pytest.mark.parametrize("after, equal", [(1, True), (2, False)])
def test_a_reset_makes_the_reference_the_policy(tmp_path, after, equal):
    config = load_run(make_run(tmp_path, "gardo"))
    config = config.model_copy(update={"parameters": {**config.parameters, "reset_after": after}})
    trainer = Trainer(config, tmp_path)
    trainer.run()  # three updates
    policy, reference = (trainer.model.adapter_parameters(name) for name in (POLICY, REFERENCE))
    assert all(torch.equal(policy[k], reference[k]) for k in policy) == equal


def test_what_a_run_lacks_is_said_before_the_model_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("training.trainer.open_base_model", lambda *_: pytest.fail("opened"))
    config = load_run(make_run(tmp_path, "ddrl_real"))
    with pytest.raises(ConfigError, match="trains on data.*--data"):
        Trainer(config, tmp_path)


def test_more_prompts_than_the_drawn_tags_have_are_refused():
    prompts = PromptList([{"tag": tag} for tag in "abb"], {"a": 1, "b": 0})
    assert prompts.draw(1, 1, 1) == [0]
    with pytest.raises(ValueError, match="prompts_per_iteration is 2, but the drawn tags have 1 prompts"):
        prompts.draw(2, 1, 1)


def test_a_run_starts_from_the_adapter_of_its_first_stage(trained, data_file):
    second = load_run(trained("sft_then_ddrl"))
    first = load_file(trained("sft") / "adapter" / ADAPTER_FILE)
    trainer = Trainer(second, trained("sft_then_ddrl"), data=data_file)
    assert all(torch.equal(p, first[f"transformer.{k}"]) for k, p in trainer.adapters.parameters.items())


def test_only_adapter_weights_get_gradients(model):
    trained = {name for name, p in model.transformer.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)


def test_micro_batches_change_nothing(tmp_path):
    config = load_run(make_run(tmp_path, "grpo_kl_large"))
    gradients = []
    for micro_batch in (64, 5):
        trainer = Trainer(config, tmp_path)
        leave_the_base(trainer)  # where the KL is zero
        process, experience = trainer.process, trainer.process.collect(1)
        rows = Rows.of(experience, torch.arange(experience.images), torch.tensor([0, 1, 2]))
        batches = reverse.batches(process.policies, process.needs, rows, micro_batch, on_policy=True)
        loss = Loss.total([trainer.method.loss(batch).backward() for batch in batches])
        gradients.append((loss.logged, gradients_of(trainer)))
    (first, a), (second, b) = gradients
    assert first["kl_loss"] > 0 and first["kl_loss"] == pytest.approx(second["kl_loss"], rel=1e-3)
    for key in a:
        assert torch.allclose(a[key], b[key], atol=1e-6, rtol=1e-3), key


def test_images_from_one_noise_are_computed_once_until_noise_parts_them(model):
    prompts = model.encode_prompts(["three red circles", "two blue squares", "three red circles"])
    start = noise((2, *model.latent_shape), generator("test"), model.device)
    initial = start[torch.tensor([0, 1, 0])]
    transition = Transition("flow_sde", 0.7, model.sigmas(4))
    settings = (transition, range(1, 3), noise((2, *initial.shape), generator("x"), model.device))
    one_by_one = sample_trajectories(model, prompts, initial, *settings)
    counts, predict = [], model.predict
    model.predict = lambda x, *rest: (counts.append(len(x)), predict(x, *rest))[1]
    try:
        together = sample_trajectories(model, prompts, initial, *settings, group=torch.tensor([7, 3, 7]))
    finally:
        del model.predict
    assert counts == [2, 2, 3, 3]  # the noise of step 1 parts them for step 2
    for name in ("latents", "log_probs"):
        assert torch.allclose(getattr(together, name), getattr(one_by_one, name), atol=1e-5), name
    assert not torch.equal(together.latents[2, 0], together.latents[2, 2])
    assert together.source.tolist() == [[0, 1, 0], [0, 1, 0], [0, 1, 2], [0, 1, 2]]
    assert one_by_one.source.tolist() == [[0, 1, 2]] * 4
    joined = type(together).join([together, together]).source
    assert joined[0].tolist() == [0, 1, 0, 3, 4, 3] and joined[3].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "method, settings",
    [
        ("gardo", {}),
        ("gardo", {"sde_first": 1, "micro_batch": 5}),
        ("ddrl_real", {"micro_batch": 3}),
        # More data rows than states: the one step that is trained is shared by each group.
        ("ddrl_real", {"sde_steps": 1, "trained_steps": 1, "data_share": 1.0, "micro_batch": 2}),
    ],
)
def test_rows_of_one_velocity_get_the_gradients_of_all(method, settings, tmp_path, data_file):
    """The update of a group that starts from one noise, against one that takes every row by itself."""
    config = load_run(make_run(tmp_path, method, exact=True, **settings))
    gradients, forward_rows = [], []
    for shared in (True, False):
        trainer = Trainer(config, tmp_path, data=data_file)
        leave_the_base(trainer)
        experience = trainer.process.collect(1)
        if method == "gardo":
            experience.prepared.gate[:] = torch.arange(experience.images) % 3 == 0  # a part of each group
        if not shared:
            own = torch.arange(experience.images)
            experience.trajectories.source = own.expand_as(experience.trajectories.source)
        counts, predict = [], trainer.model.predict
        trainer.model.predict = lambda x, *rest, c=counts, p=predict: (c.append(len(x)), p(x, *rest))[1]
        trainer.step = lambda loss, iteration: None
        trainer.update(experience)
        gradients.append(gradients_of(trainer))
        forward_rows.append(sum(counts))
        assert max(counts) <= (1 + trainer.process.needs.data) * config.training.micro_batch
    for key, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][key], atol=1e-7, rtol=1e-3), key
    assert forward_rows[0] < forward_rows[1]


@pytest.mark.parametrize("method", ["grpo_kl_large", "gardo", "ddrl_real"])
def test_the_graph_of_the_rollout_gives_the_gradients_of_a_forward_pass(method, tmp_path, data_file):
    trainer = Trainer(load_run(make_run(tmp_path, method, exact=True)), tmp_path, data=data_file)
    leave_the_base(trainer)
    experience = trainer.process.collect(1)
    trainer.step = lambda loss, iteration: None
    counts, predict = [], trainer.model.predict
    trainer.model.predict = lambda x, *rest: (counts.append(len(x)), predict(x, *rest))[1]
    kept, found = experience.trajectories.velocities, []
    for experience.trajectories.velocities in (None, kept):
        counts.clear()
        trainer.update(experience)
        gradient = torch.cat([g.flatten() for g in gradients_of(trainer).values()])
        found.append((gradient, sum(counts)))
    (expected, rows), (gradient, fewer) = found
    assert fewer < rows and expected.norm() > 0
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()


def test_rewards_in_a_thread_change_nothing(tmp_path):
    histories = []
    for overlap in (False, True):
        folder = make_run(tmp_path / str(overlap), "gardo", micro_batch=3, overlap_rewards=overlap)
        Trainer(load_run(folder), folder).run()
        histories.append(history(folder))
    assert histories[0].equals(histories[1])


@pytest.fixture
def trajectories(model):
    prompts = model.encode_prompts(["three red circles", 'a red sign "K7"'])
    initial = noise((2, *model.latent_shape), generator("test"), model.device)
    transition = Transition("flow_sde", 0.7, model.sigmas(5))
    noises = noise((2, *initial.shape), generator("x"), model.device)
    return prompts, sample_trajectories(model, prompts, initial, transition, range(1, 3), noises)


def test_rollout_and_update_agree_on_the_log_probability(model, trajectories):
    prompts, t = trajectories
    v = model.velocity(t.latents[2], t.sigmas[2].expand(2), prompts)
    again = flow_sde_step(
        v,
        t.latents[2],
        t.sigmas[2],
        t.sigmas[3],
        sigma_second=t.sigmas[1],
        noise_level=0.7,
        x_next=t.latents[3],
    )
    assert torch.equal(again.log_prob, t.log_probs[2])


def test_steps_outside_the_window_are_those_of_the_ode(model, trajectories):
    prompts, t = trajectories
    for i in (0, 3, 4):
        v = model.velocity(t.latents[i], t.sigmas[i].expand(2), prompts)
        assert torch.allclose(t.latents[i + 1], t.latents[i] + (t.sigmas[i + 1] - t.sigmas[i]) * v, atol=1e-6)
        assert not t.log_probs[i].any()


@pytest.mark.parametrize("method", ["gardo", "diffusion_nft_gardo"])
def test_a_killed_job_resumes_bit_for_bit(tmp_path, method):
    command = [sys.executable, "-m", "training", "run"]
    whole, broken = (make_run(tmp_path / n, method, iterations=6) for n in ("whole", "broken"))
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(broken)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any((broken / "checkpoint").glob("iteration_00000[2-5]")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (broken / "history.parquet").exists() and not (broken / "adapter").exists()
    subprocess.run([*command, str(broken)], check=True, capture_output=True)
    assert history(whole).equals(history(broken))
    first, second = (sha256(f / "adapter" / ADAPTER_FILE) for f in (whole, broken))
    assert first == second


def test_a_checkpoint_of_another_configuration_is_not_resumed(tmp_path):
    folder = make_run(tmp_path, "grpo", iterations=2)
    Trainer(load_run(folder), folder).run()
    make_run(tmp_path, "grpo", iterations=3, learning_rate=1e-3)
    trainer = Trainer(load_run(folder), folder)
    trainer.resume()
    assert trainer.iteration == 0 and not (folder / "checkpoint").exists()


@pytest.mark.parametrize("base", ["tiny-sd3", "tiny-flux"])
def test_the_card_of_an_adapter_tells_how_to_load_it_in_plain_diffusers(tmp_path, base):
    folder = make_run(tmp_path, "grpo", base=base, learning_rate=3e-3)
    trainer = Trainer(load_run(folder), folder)
    trainer.run()
    config, card = trainer.config, (folder / "adapter" / "README.md").read_text()
    metadata = ModelCard(card).data
    assert "alpha / rank = 2, stands in the metadata of its file" in card
    assert (metadata.base_model, metadata.license) == (f"resources/{base}", "apache-2.0")
    assert all(text in card for text in (config.run, config.hash, "`geneval_partial`", "3 of 3"))
    names = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
    assert names["image"].size == (32, 32)
    index = torch.tensor([7])
    initial = noise((1, *trainer.model.latent_shape), generator("image"), trainer.model.device)
    arguments = dict(
        prompt=trainer.process.prompts.prompts[7]["prompt"],
        latents=pack(initial) if base == "tiny-flux" else initial,
        num_inference_steps=8,
        guidance_scale=1.0,
        max_sequence_length=config.base_model.max_sequence_length,
        output_type="pt",
        height=32,
        width=32,
    )
    tuned = names["pipe"](**arguments).images
    names["pipe"].disable_lora()
    plain = names["pipe"](**arguments).images
    with torch.no_grad():
        for key, parameter in trainer.adapters.parameters.items():
            parameter.copy_(trainer.adapters.average[key])
    embeddings = trainer.process.prompts.embeddings[index]
    latents = sample_ode(trainer.model, embeddings, initial, steps=8, batch=1)
    assert (plain - tuned).abs().max() > 1e-3
    assert torch.allclose(tuned, trainer.model.decode(latents), atol=1e-4)


def test_a_broken_reward_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(
        rewards.get_class("geneval_partial"),
        "score",
        lambda self, images, *_: torch.full((len(images),), torch.nan),
    )
    folder = make_run(tmp_path, "grpo")
    with pytest.raises(RewardError, match="geneval_partial"):
        Trainer(load_run(folder), folder).run()
    assert not (folder / "history.parquet").exists()
