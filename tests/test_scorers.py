"""The learned scorers: contract, what they must tell apart, and the check of their weights."""

import random
import shutil
import sys

import pytest
import torch

import rewards
from pretraining.scorers import data, decoded, install
from pretraining.scorers.corruptions import FAMILIES, corrupt
from rewards import weights
from rewards.features import get_features
from rewards.features.scene_encoder import SceneEncoder
from rewards.networks import TOKENIZER

LEARNED = ["scene_aesthetic", "scene_preference", "scene_preference_vit", "scene_text_score"]
SEE_TEXT = LEARNED[1:]
N = 192


@pytest.fixture(scope="module")
def held_out():
    """Images float (N, 3, 32, 32) of a seed range that no training uses, and their prompts."""
    images, prompts = data.scenes(N, 7_000_000)
    return data.to_float(images), prompts


@pytest.fixture(scope="module")
def scorer():
    loaded = {name: rewards.get(name) for name in LEARNED}
    return lambda name, images, prompts: loaded[name](images, [p["prompt"] for p in prompts], prompts)


@pytest.mark.parametrize("name", LEARNED)
def test_contract(scorer, held_out, name):
    images, prompts = held_out[0][:24], held_out[1][:24]
    scores = scorer(name, images, prompts)
    assert scores.shape == (24,) and scores.dtype == torch.float32 and scores.isfinite().all()
    alone = torch.cat([scorer(name, images[i : i + 1], prompts[i : i + 1]) for i in range(24)])
    torch.testing.assert_close(alone, scores, atol=1e-4, rtol=0)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    shuffled = scorer(name, images[order], [prompts[i] for i in order])
    torch.testing.assert_close(shuffled, scores[order], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", LEARNED)
def test_says_what_it_is(name):
    cls = rewards.get_class(name)
    assert cls.scale and cls.licence and cls.weights == (f"scorers/{name}.safetensors",)


def test_other_image_sizes_are_refused(scorer, held_out):
    with pytest.raises(ValueError, match="32"):
        scorer("scene_aesthetic", torch.rand(2, 3, 64, 64), held_out[1][:2])


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("name", LEARNED)
def test_clean_scores_above_corrupted(scorer, held_out, name, family):
    images, prompts = held_out
    generator = torch.Generator().manual_seed(2)
    severity = 0.6 + 0.4 * torch.rand(N, generator=generator)
    bad = corrupt(images, severity, family, generator)
    rate = (scorer(name, images, prompts) > scorer(name, bad, prompts)).float().mean()
    assert rate >= 0.9


@pytest.mark.parametrize("name", SEE_TEXT)
def test_right_caption_scores_above_wrong(scorer, held_out, name):
    images, prompts = held_out
    right = scorer(name, images, prompts)
    other = scorer(name, images, prompts[1:] + prompts[:1])
    assert (right > other).float().mean() >= 0.95
    rng = random.Random(3)
    choices = [list(data.edits(p["prompt"]).values()) for p in prompts]
    rows = [i for i, groups in enumerate(choices) if groups]
    wrong = [{**prompts[i], "prompt": rng.choice(rng.choice(choices[i]))} for i in rows]
    assert (right[rows] > scorer(name, images[rows], wrong)).float().mean() >= 0.85


def test_encoder(held_out):
    encoder = get_features("scene_encoder")
    assert isinstance(encoder, SceneEncoder)
    features = encoder(held_out[0])
    assert features.shape[0] == N and features.ndim == 2 and features.isfinite().all()
    torch.testing.assert_close(encoder(held_out[0][:1]), features[:1], atol=1e-4, rtol=1e-4)
    unit = torch.nn.functional.normalize(features, dim=-1)
    mild = corrupt(held_out[0], torch.full((N,), 0.2), "B", torch.Generator().manual_seed(4))
    seen = torch.nn.functional.normalize(encoder(mild), dim=-1)
    assert ((seen @ unit.T).argmax(1) == torch.arange(N)).float().mean() >= 0.9
    with pytest.raises(ValueError, match="scene_encoder"):
        get_features("dino")


def test_helpers_are_no_rewards():
    assert not {"networks", "features", "weights"} & set(rewards.names())
    assert set(LEARNED) <= set(rewards.names())


# --- tokens, wrong captions, corruptions --------------------------------------------------------------


def test_tokenizer():
    ids = TOKENIZER(
        ['A red sign "k7" on BLACK.', 'a red sign "K7" on black', "a mauve dodecahedron", "a " * 40]
    )
    assert ids.shape == (4, 12)
    assert ids[0].equal(ids[1]) and (ids[0] > TOKENIZER.unknown).sum() == 7
    assert (ids[2] == TOKENIZER.unknown).sum() == 2
    assert TOKENIZER(['"A2"'])[0, 0] != TOKENIZER(["a"])[0, 0]
    captions = {prompt["prompt"] for prompt in data.sample_prompts(3000, 1)}
    assert not (TOKENIZER(sorted(captions)) == TOKENIZER.unknown).any()
    assert max(len(TOKENIZER.pieces(caption)) for caption in captions) <= TOKENIZER.max_length


def test_edits_change_one_attribute():
    assert data.edits("two red circles on white")["count"] == [
        "one red circle on white",
        "three red circles on white",
    ]
    assert data.edits("a circle left of a square") == {
        "relation": ["a circle right of a square"],
        "shape": [
            "a circle left of a circle",
            "a circle left of a triangle",
            "a square left of a square",
            "a triangle left of a square",
        ],
        "swap": ["a square left of a circle"],
    }
    assert len(data.edits('a red sign "K7"')["glyph"]) == 9 + 5
    for prompt in data.sample_prompts(300, 5):
        wrong = [caption for group in data.edits(prompt["prompt"]).values() for caption in group]
        assert wrong and prompt["prompt"] not in wrong


def test_captions_that_may_agree():
    captions = ["a circle", "one circle on white", "two circles", "two red circles", "a square"]
    agree = data.Captions(captions).may_agree(torch.arange(5))
    assert agree.tolist() == [
        [True, True, False, False, False],
        [True, True, False, False, False],
        [False, False, True, True, False],
        [False, False, True, True, False],
        [False, False, False, False, True],
    ]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_corruptions_are_seeded_and_graded(held_out, family):
    images = held_out[0][:64]
    change = []
    for severity in (0.0, 0.3, 1.0):
        first, second = (
            corrupt(images, torch.full((64,), severity), family, torch.Generator().manual_seed(6))
            for _ in range(2)
        )
        assert first.equal(second) and first.min() >= 0 and first.max() <= 1
        change.append((first - images).abs().mean().item())
    assert change[0] < 1e-3 < change[1] < change[2]
    assert not set(FAMILIES["A"]) & set(FAMILIES["B"])


def test_generated_images_are_ranked_by_gold(held_out, tmp_path):
    images, prompts = held_out[0][:20], held_out[1][:20]
    noisy = corrupt(images, torch.ones(20), "A", torch.Generator().manual_seed(7))
    decoded.save_generated(tmp_path / "g.npz", torch.cat([images, noisy]), prompts * 2)
    stored, read = decoded.load_generated(tmp_path / "g.npz")
    assert read == prompts * 2 and (data.to_float(stored[:20]) - images).abs().max() < 1e-6
    pairs = decoded.ranked_pairs(stored, read, torch.Generator().manual_seed(8))
    assert (pairs[:, 0] < 20).float().mean() > 0.9


# --- weights ------------------------------------------------------------------------------------------


@pytest.fixture
def resources(tmp_path):
    folder = tmp_path / "resources"
    shutil.copytree(weights.RESOURCES / "scorers", folder / "scorers")
    weights.write_checksums(folder)
    return folder


def test_shipped_weights_match_their_checksums():
    names = [name for reward in LEARNED for name in rewards.get_class(reward).weights] + [
        *SceneEncoder.weights
    ]
    weights.verify(weights.RESOURCES, names)
    assert sum((weights.RESOURCES / name).stat().st_size for name in names) <= 6 * 2**20


def test_checksums_follow_sha256sum(resources):
    (resources / "tiny" / "vae").mkdir(parents=True)
    (resources / "tiny" / "vae" / "config.json").write_text("{}")
    (resources / "notes.md").write_text("not hashed")
    lines = weights.write_checksums(resources).read_text().splitlines()
    empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert f"{empty}  tiny/vae/config.json" in lines
    assert lines == sorted(lines, key=lambda line: line[66:]) and not any("notes" in line for line in lines)


def test_flipped_byte_is_refused(resources, monkeypatch):
    path = resources / "scorers" / "scene_aesthetic.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    expected = weights.read_checksums(resources)["scorers/scene_aesthetic.safetensors"]
    monkeypatch.setattr(weights, "RESOURCES", resources)
    with pytest.raises(weights.WeightsError) as caught:
        rewards.get("scene_aesthetic")
    message = str(caught.value)
    assert str(path) in message and expected in message and weights.sha256(path) in message
    assert "snakemake --cores all rebuild_base" in message
    with pytest.raises(weights.WeightsError, match="does not match"):
        weights.verify(resources, ["scorers/scene_aesthetic.safetensors"])


def test_missing_or_unrecorded_file_is_refused(resources):
    (resources / "scorers" / "scene_encoder.safetensors").unlink()
    with pytest.raises(weights.WeightsError, match="scene_encoder.safetensors is missing.*rebuild_base"):
        weights.load_weights("scorers/scene_encoder.safetensors", resources)
    shutil.copy(resources / "scorers" / "scene_aesthetic.safetensors", resources / "new.safetensors")
    with pytest.raises(weights.WeightsError, match="no checksum"):
        weights.load_weights("new.safetensors", resources)
    (resources / "SHA256SUMS").unlink()
    with pytest.raises(weights.WeightsError, match="SHA256SUMS does not exist"):
        weights.load_weights("new.safetensors", resources)


def test_rebuilt_weights_are_installed_as_they_are(tmp_path, monkeypatch):
    rebuilt, resources = tmp_path / "rebuild" / "scorers", tmp_path / "resources"
    (resources / "scorers").mkdir(parents=True)
    (resources / "scorers" / "old.json").write_text("{}")
    rebuilt.mkdir(parents=True)
    (rebuilt / "new.json").write_text("{}")
    (rebuilt / ".snakemake_timestamp").touch()
    monkeypatch.setattr(install, "RESOURCES", resources)
    monkeypatch.setattr(sys, "argv", ["install", "--scorers", str(rebuilt)])
    install.main()
    assert [p.name for p in (resources / "scorers").iterdir()] == ["new.json"]
    assert "scorers/new.json" in weights.read_checksums(resources)
    assert (resources / "prompts" / "ocr_test.jsonl").exists()
