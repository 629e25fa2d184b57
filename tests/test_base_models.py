"""Contracts over all base models.

The real ones are opened from small checkpoints of the same classes and parts, with the YAML of a user; only
path, precision, image size and sequence length differ.
"""

import gc
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import DiffusionPipeline
from diffusers.models.upsampling import Upsample2D
from torch.nn import functional as F

from base_models import attention, base, get_class, open_base_model
from base_models.base import ADAPTER_FILE, POLICY, Embeddings
from base_models.configuration import BaseModelConfig
from base_models.cpu_engine import FoldedUpsampling
from base_models.flux import pack, position_ids, unpack
from core.files import sha256
from processes.sampling import sample_ode
from tests.small_pipelines import save_flux, save_sd3

PROMPTS = ["a photo of three red circles", "a blue square"]
STEPS = 3
# FluxTransformer2DModel rounds 1000 sigma and 1000 guidance to its precision, in a plain pipeline too. These
# are whole in bfloat16, so that nothing but the arithmetic is compared.
WHOLE = {"sigma": torch.tensor([0.5, 0.25]), "guidance_scale": 2.0}
SMALL = {"sd3.5-medium": save_sd3, "flux.1-dev": save_flux}
FILES = Path("config/base_models").glob("*.yaml")
NAMES = sorted(p.stem for p in FILES if "clip" not in yaml.safe_load(p.read_text()))  # tests/test_cosmos.py


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, save in SMALL.items():
        save(folder / name)
    return folder


@pytest.fixture(scope="module")
def settings(checkpoints):
    def of(name: str, **changes) -> BaseModelConfig:
        value = yaml.safe_load(Path(f"config/base_models/{name}.yaml").read_text())
        value["merged_dtype"] = None
        if name in SMALL:
            value |= {"path": str(checkpoints / name), "revision": None, "needs_gpu": False}
            value |= {"dtype": "float32", "image_size": 64, "max_sequence_length": 24}
        return BaseModelConfig.model_validate(value | changes)

    return of


def spread(model, scale: float = 0.05) -> dict[str, torch.Tensor]:
    """Give the policy's adapter a visible effect; returns its weights as training would save them."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for key, parameter in model.adapter_parameters().items():
            if "lora_B" in key:
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * scale)
    return {k: p.detach().clone() for k, p in model.adapter_parameters().items()}


def initial(model, count: int = len(PROMPTS)) -> torch.Tensor:
    return torch.randn(count, *model.latent_shape, generator=torch.Generator().manual_seed(0))


def ours(model) -> torch.Tensor:
    """Images of the suite's own sampler."""
    empty = model.encode_prompts([""]) if model.classifier_free_guidance else None
    prompts = model.encode_prompts(PROMPTS)
    return model.decode(sample_ode(model, prompts, initial(model), steps=STEPS, batch=2, empty=empty))


def theirs(pipeline, model) -> torch.Tensor:
    """Images of a plain call of the pipeline with the same prompts, noise and steps."""
    latents = initial(model)
    config = model.config
    return pipeline(
        PROMPTS,
        latents=pack(latents) if config.pipeline == "flux" else latents,
        num_inference_steps=STEPS,
        guidance_scale=config.guidance_scale,
        max_sequence_length=config.max_sequence_length,
        height=config.image_size,
        width=config.image_size,
        output_type="pt",
    ).images


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_adapter_makes_the_same_images_in_a_plain_pipeline(name, settings, tmp_path):
    model = open_base_model(settings(name))
    plain = DiffusionPipeline.from_pretrained(model.config.path, **dict.fromkeys(model.config.without))
    plain.set_progress_bar_config(disable=True)
    before = theirs(plain, model)
    assert torch.allclose(ours(model), before, atol=1e-4)
    model.add_adapter()
    assert torch.allclose(ours(model), before, atol=1e-4)  # B = 0 changes nothing
    model.save_lora(tmp_path, spread(model))
    trained = ours(model)
    plain.load_lora_weights(str(tmp_path))
    assert torch.allclose(theirs(plain, model), trained, atol=1e-4)
    assert (trained - before).abs().mean() > 1e-3
    again = open_base_model(settings(name))
    again.load_lora(tmp_path)
    assert torch.allclose(ours(again), trained, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_equal_adapters_are_equal_files(name, settings, tmp_path):
    model = open_base_model(settings(name))
    model.add_adapter()
    layers = spread(model)
    for k in range(8):  # safetensors itself writes either of two orders at random
        model.save_lora(tmp_path / str(k), layers)
    assert len({sha256(file) for file in tmp_path.glob(f"*/{ADAPTER_FILE}")}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_lora_target_of_the_config_exists_and_nothing_else_is_trained(name, settings):
    model = open_base_model(settings(name))
    model.add_adapter()
    adapted = {n for n, m in model.transformer.named_modules() if hasattr(m, "lora_A")}
    for target in model.config.lora.target_modules:
        assert any(n.endswith(f".{target}") for n in adapted), target
    trained = {n for n, p in model.transformer.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in n for n in trained)
    others = (m for n, m in model.pipeline.components.items() if n != "transformer")
    modules = [m for m in others if isinstance(m, torch.nn.Module)]
    assert len(modules) >= 3 and not any(p.requires_grad for m in modules for p in m.parameters())


def gradients(model) -> dict[str, torch.Tensor]:
    """Of a squared velocity, by name."""
    prompts, x = model.encode_prompts(PROMPTS), initial(model)
    empty = model.encode_prompts([""]) if model.classifier_free_guidance else None
    model.velocity(x, WHOLE["sigma"], prompts, empty).square().mean().backward()
    return {k: p.grad for k, p in model.adapter_parameters().items()}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_gradient_checkpointing_changes_no_gradient(name, settings):
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        model = open_base_model(settings(name, gradient_checkpointing=checkpointing))
        model.add_adapter()
        spread(model)
        found.append(gradients(model))
        assert model.transformer.is_gradient_checkpointing == checkpointing
    for key, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][key], atol=1e-7, rtol=1e-5), key
    assert any(g.abs().max() > 0 for g in found[0].values())


@pytest.mark.parametrize("name", sorted(SMALL))
def test_bfloat16_keeps_lora_weights_and_the_autoencoder_in_float32(name, settings):
    guidance = {"guidance_scale": WHOLE["guidance_scale"]}
    exact = open_base_model(settings(name, **guidance))
    model = open_base_model(settings(name, dtype="bfloat16", **guidance))
    for m in (exact, model):
        torch.manual_seed(2)
        m.add_adapter()
        spread(m)
    assert {p.dtype for p in model.adapter_parameters().values()} == {torch.float32}
    assert {p.dtype for n, p in model.transformer.named_parameters() if "lora_" not in n} == {torch.bfloat16}
    embedded = model.encode_prompts(PROMPTS).tensors.values()
    assert model.vae.dtype == torch.float32 and all(v.dtype == torch.bfloat16 for v in embedded)
    a, b = gradients(exact), gradients(model)
    assert {g.dtype for g in b.values()} == {torch.float32}
    together = [torch.cat([g.flatten() for g in x.values()]) for x in (a, b)]
    assert torch.cosine_similarity(*together, dim=0) > 0.98


@pytest.mark.parametrize("name", NAMES)
def test_released_text_encoders_leave_memory_and_training_goes_on(name, settings, tmp_path):
    model = open_base_model(settings(name))
    model.add_adapter()
    prompts = model.encode_prompts(PROMPTS)
    encoders = [m for n, m in model.pipeline.components.items() if n.startswith("text_encoder") and m]
    watched = [weakref.ref(m) for m in encoders]
    del encoders
    model.release_text_encoders()
    gc.collect()
    assert len(watched) >= 2 and not any(ref() for ref in watched)
    with pytest.raises(RuntimeError, match="released"):
        model.encode_prompts(PROMPTS)
    assert model.predict(initial(model), torch.tensor([0.5, 0.5]), prompts).isfinite().all()
    model.save_lora(tmp_path, spread(model))
    model.load_lora(tmp_path)


@pytest.fixture(params=[True, False], ids=["bf16", "float32"])
def merging(request, monkeypatch):
    """The precision of the merged copy, with instructions for bf16 and without."""
    monkeypatch.setattr(base, "has_bf16", lambda device: request.param)
    return torch.bfloat16 if request.param else torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_the_merged_copy_follows_the_policy(name, settings, merging):
    model = open_base_model(settings(name, merged_dtype="bfloat16", guidance_scale=WHOLE["guidance_scale"]))
    model.add_adapter()
    spread(model, 1.0)
    prompts, x, sigma = model.encode_prompts(PROMPTS), initial(model), WHOLE["sigma"]
    with torch.no_grad():
        exact = model.predict(x, sigma, prompts)
        with model.using(POLICY):
            merged = model.predict(x, sigma, prompts)
            assert model.dtype == model.network.plain.dtype == merging
        with model.using(None):
            bare = model.predict(x, sigma, prompts)
    allowed = {torch.bfloat16: 0.3, torch.float32: 1e-4}[merging]
    assert (exact - merged).abs().mean() < allowed * (exact - bare).abs().mean()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"neon": True, "bf16": True}, False),
    ],
)
def test_bf16_is_for_processors_with_instructions_for_it(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert base.has_bf16(torch.device("cpu")) is expected
    assert base.has_bf16(torch.device("cuda"))


def test_embeddings_keep_their_rows_together():
    a, b = (Embeddings({"states": torch.rand(n, 2, 3), "ids": torch.arange(n)}) for n in (4, 2))
    joined = Embeddings.join([a, b[torch.tensor([1])].expand(3)])
    assert len(joined) == 7 and joined.tensors["ids"].tolist() == [0, 1, 2, 3, 1, 1, 1]
    odd = joined[joined.tensors["ids"] % 2 == 1]
    assert torch.equal(odd.tensors["states"][-1], b.tensors["states"][1]) and len(odd) == 5


@pytest.mark.parametrize("length", [30, 32])
def test_attention_is_torchs(length):
    torch.manual_seed(0)
    exact = [torch.randn(6, 4, length, 16, requires_grad=True) for _ in range(3)]
    rounded = [t.detach().bfloat16().requires_grad_() for t in exact]

    def outcome(function, inputs):
        out = function(*inputs)
        return [out, *torch.autograd.grad(out.square().sum(), inputs)]

    wanted, torchs = (outcome(F.scaled_dot_product_attention, inputs) for inputs in (exact, rounded))
    for value, truth in zip(outcome(attention.attention, exact), wanted, strict=True):
        assert torch.allclose(value, truth, atol=1e-4)
    ours = outcome(attention.attention, rounded)
    for value, other, truth in zip(ours, torchs, wanted, strict=True):
        assert value.dtype == torch.bfloat16
        assert (value - truth).norm() < 2 * (other - truth).norm()  # of the same order


@pytest.mark.parametrize("name", NAMES)
def test_only_the_merged_copy_and_its_thread_see_our_attention(name, settings, monkeypatch):
    model = open_base_model(settings(name, merged_dtype="bfloat16"))
    model.add_adapter()
    ours, torchs, seen = attention.attention, F.scaled_dot_product_attention, []

    def watched(*inputs):
        with ThreadPoolExecutor(max_workers=1) as other:
            seen.append(other.submit(lambda: F.scaled_dot_product_attention).result())
        return ours(*inputs)

    monkeypatch.setattr(attention, "attention", watched)
    prompts, x, sigma = model.encode_prompts(PROMPTS), initial(model), WHOLE["sigma"]
    with model.using(POLICY), torch.no_grad():
        model.predict(x, sigma, prompts)
        assert seen and all(function is torchs for function in seen)
    seen.clear()
    with torch.no_grad():
        model.predict(x, sigma, prompts)  # in the precision of the checkpoint
    assert not seen


def test_folded_upsampling_is_upsampling_and_a_convolution():
    torch.manual_seed(0)
    layer = Upsample2D(6, use_conv=True, out_channels=6).double()
    x = torch.randn(3, 6, 5, 4, dtype=torch.float64)
    assert torch.allclose(FoldedUpsampling(layer.conv)(x), layer(x), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_adapter_through_the_merged_copy(name, settings, merging):
    model = open_base_model(settings(name, merged_dtype="bfloat16", guidance_scale=WHOLE["guidance_scale"]))
    model.add_adapter()
    spread(model, 1.0)
    prompts, x, sigma = model.encode_prompts(PROMPTS), initial(model), WHOLE["sigma"]
    parameters = list(model.adapter_parameters().values())

    def gradient(velocity):
        target = torch.ones_like(velocity)
        # The last layer's query of the text is not computed, which is a gradient of zero.
        loss = (velocity - target).square().mean()
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
        return torch.cat([g.flatten() for g in found])

    exact = gradient(model.velocity(x, sigma, prompts, prompts[torch.tensor([0])]))
    with model.using(POLICY):
        merged = gradient(model.velocity(x, sigma, prompts, prompts[torch.tensor([0])]))
    least = {torch.bfloat16: 0.99, torch.float32: 0.99999}[merging]
    assert torch.cosine_similarity(exact, merged, dim=0) > least


@pytest.mark.parametrize("name", NAMES)
def test_latents_of_images_are_those_the_decoder_takes(name, settings):
    """Encoding normalises by the shift and scale that decoding takes back."""
    model = open_base_model(settings(name))
    size = model.config.image_size
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    latents = model.encode(images)
    assert latents.shape == (2, *model.latent_shape) and model.decode(latents).shape == images.shape
    raw = model.vae.encode(images * 2 - 1).latent_dist.mean
    assert torch.allclose(
        (latents / model.vae.config.scaling_factor) + model.vae.config.shift_factor, raw, atol=1e-5
    )


def test_schedules_are_those_of_the_real_models(settings):
    """Ten steps of SD3.5 (shift 3) and six of FLUX.1 at 512 px (mu 0.63), as their pipelines step."""
    sd3 = open_base_model(settings("sd3.5-medium", image_size=512)).sigmas(10)
    expected = [1, 0.9601, 0.9133, 0.8577, 0.7904, 0.7073, 0.6022, 0.4649, 0.2780, 0.0089, 0]
    assert torch.allclose(sd3, torch.tensor(expected), atol=1e-4)
    flux = open_base_model(settings("flux.1-dev", image_size=512)).sigmas(6)
    assert torch.allclose(flux, torch.tensor([1, 0.904, 0.790, 0.652, 0.484, 0.273, 0]), atol=1e-3)


def test_guidance_is_classifier_free_or_embedded(settings):
    sd3, flux = (open_base_model(settings(name)) for name in ("sd3.5-medium", "flux.1-dev"))
    assert sd3.classifier_free_guidance and not flux.classifier_free_guidance
    assert not open_base_model(settings("sd3.5-medium", guidance_scale=1)).classifier_free_guidance
    other = open_base_model(settings("flux.1-dev", guidance_scale=1))
    x, sigma = initial(flux), torch.tensor([0.5, 0.5])
    prompts = flux.encode_prompts(PROMPTS)
    assert (flux.predict(x, sigma, prompts) - other.predict(x, sigma, prompts)).abs().max() > 1e-3


def test_packing_is_the_pipeline_s():
    latents = torch.randn(2, 16, 4, 6)
    from diffusers import FluxPipeline

    assert torch.equal(pack(latents), FluxPipeline._pack_latents(latents, 2, 16, 4, 6))
    assert torch.equal(unpack(pack(latents), 4, 6), latents)
    ids = FluxPipeline._prepare_latent_image_ids(2, 2, 3, "cpu", torch.float32)
    assert torch.equal(position_ids(4, 6, torch.device("cpu")), ids)


def test_an_image_size_that_no_token_fits(settings):
    with pytest.raises(ValueError, match=r"'image_size' is 72, not a multiple of 16"):
        open_base_model(settings("flux.1-dev", image_size=72))


def real(name: str, **changes) -> BaseModelConfig:
    value = yaml.safe_load(Path(f"config/base_models/{name}.yaml").read_text())
    return BaseModelConfig.model_validate(value | changes)


def cache(monkeypatch, tmp_path, checkpoints, name: str) -> Path:
    """A hub cache in ``tmp_path`` that holds the small checkpoint under the real id and revision."""
    config = real(name)
    repository = tmp_path / ("models--" + config.path.replace("/", "--"))
    snapshot = repository / "snapshots" / config.revision
    shutil.copytree(checkpoints / name, snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return snapshot


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_cached_revision_of_the_hub_is_all_it_takes(name, checkpoints, monkeypatch, tmp_path):
    cls = get_class(real(name).pipeline)
    snapshot = cache(monkeypatch, tmp_path, checkpoints, name)
    assert cls.missing(real(name), gpu=True) == []
    (line,) = cls.missing(real(name), gpu=False)
    assert "needs a GPU" in line
    (snapshot / "text_encoder_2" / "model.safetensors").unlink()
    (line,) = cls.missing(real(name), gpu=True)
    assert "text_encoder_2" in line and f"--revision {real(name).revision}" in line
    assert cls.missing(real(name, without=["text_encoder_2"]), gpu=True) == []


@pytest.mark.parametrize("token, said", [(None, "hf auth login"), ("some token", "accept its licence")])
def test_absent_weights_say_where_to_get_them(token, said, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    lines = get_class("flux").missing(real("flux.1-dev"), gpu=False)
    assert len(lines) == 2 and "needs a GPU" in lines[1]
    assert "black-forest-labs/FLUX.1-dev is not on this machine" in lines[0] and said in lines[0]
    assert ("hf auth login" in lines[0]) == (token is None)
    with pytest.raises(ValueError, match="hf download black-forest-labs/FLUX.1-dev --revision"):
        open_base_model(real("flux.1-dev"))


def test_paths_that_hold_no_pipeline_of_the_adapter(settings, tmp_path):
    for changes, message in (
        ({"path": "some/where", "revision": None}, "'path': some/where is no folder.*key 'revision'"),
        ({"path": str(tmp_path)}, "holds no pipeline"),
        (
            {"pipeline": "sd3"},
            "'pipeline' is 'sd3', which opens StableDiffusion3Pipeline; .* is a FluxPipeline",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            open_base_model(settings("flux.1-dev", **changes))
