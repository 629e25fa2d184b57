"""Fixtures of several test files."""

from __future__ import annotations

import pytest
import torch

import rewards
from rewards.features import feature_names, get_features_class
from rewards.published import hub, mask2former
from rewards.service import environment
from tests.small_checkpoints import fill_cache, fill_hps_v3, snapshot

UNKNOWN_COMMIT = "0" * 40
LONGEST = ("test_slurm.py", "test_workflow.py")


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)  # stable


@pytest.fixture(scope="session")
def small_checkpoints(tmp_path_factory):
    """The hub cache, holding a small checkpoint for every repository that a plug-in names."""
    root = tmp_path_factory.mktemp("hub")
    plugins = [rewards.get_class(n) for n in rewards.names()]
    plugins += [get_features_class(n) for n in feature_names()]
    sources = [source for plugin in plugins for source in plugin.hub]
    pins = root / "weights.yaml"
    unpinned = {source.repository for source in sources if source.revision is None}
    pins.write_text("".join(f"{repository}: '{UNKNOWN_COMMIT}'\n" for repository in unpinned))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "PINS", pins)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
        patch.setenv("HF_HUB_CACHE", str(root))
        patch.setattr(mask2former, "SHORT", 64)  # the small detector needs no 800 pixels
        patch.setattr("rewards.soft_tifa_gm.LEAST", 32 * 32)
        patch.setattr("rewards.unified_reward.NEW_TOKENS", 4)  # the small model never ends its answer
        fill_cache(root, sources, hub.pinned)
        yield root


@pytest.fixture(scope="session")
def hps_v3_environment(small_checkpoints, tmp_path_factory):
    """HPSv3's real environment, built as the workflow builds it, and a small HPSv3."""
    from rewards.hps_v3 import BACKBONE, MODEL

    built = tmp_path_factory.mktemp("environments")
    out = built / "hps_v3"
    try:
        environment.build(environment.DECLARED / "hps_v3.txt", out)
    except environment.subprocess.CalledProcessError as error:
        pytest.skip(f"the packages of hps_v3 cannot be installed here: {error}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "BUILT", built)
        places = [snapshot(small_checkpoints, s.repository, hub.pinned(s)) for s in (BACKBONE, MODEL)]
        fill_hps_v3(out / "bin" / "python", *places)
        yield out


@pytest.fixture(scope="session")
def photographs():
    """Six smooth colour images, wider than high, with GenEval's metadata and quoted text."""
    torch.manual_seed(0)
    images = torch.nn.functional.interpolate(torch.rand(6, 3, 5, 7), size=(48, 64), mode="bicubic").clamp(
        0, 1
    )
    clauses = [
        [{"class": "dining table", "count": 1, "color": "red"}],  # the small detector finds some of these
        [{"class": "tv remote", "count": 2}],
        [{"class": "vase", "count": 2, "color": "brown"}],
        [{"class": "oven", "count": 1}, {"class": "vase", "count": 1, "position": ["left of", 0]}],
        [{"class": "wine glass", "count": 3}],
        [{"class": "bear", "count": 1, "color": "blue"}, {"class": "sandwich", "count": 1, "color": "white"}],
    ]
    texts = [f'a photo with the word "{word}"' for word in "one two three four five six".split()]
    metadata = [
        {"tag": "single_object", "prompt": text, "include": include}
        for text, include in zip(texts, clauses, strict=True)
    ]
    skills = ("object", "attribute", "count")
    for prompt in metadata:
        named = prompt["include"][0]["class"]
        asked = (f"Is there a {named}?", f"Is the {named} red?", f"How many {named}s are in the image?")
        right = ("Yes", "Yes", "two")
        prompt["questions"] = [
            {"skill": skill, "question": question, "answer": answer}
            for skill, question, answer in zip(skills, asked, right, strict=True)
        ]
    return (images * 255).round() / 255, texts, metadata
