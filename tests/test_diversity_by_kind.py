"""Each kind of diversity answers to its own cause: scenes that differ in one thing alone."""

import random

import numpy as np
import pytest
import torch

from methods.maths.diversity import group_diversity
from rewards.features import get_features
from scenes.renderer import render, shape_alpha
from scenes.vocabulary import COLOURS, SHAPES

KINDS = {"colour": "colour", "layout": "layout", "style": "style", "content": "scene_content"}
IMAGES = 12


def scene(shape="circle", colour="red", x=15.0, y=15.0, tone=0.58):
    alpha = shape_alpha(shape, x, y, 6.0)[..., None]
    return np.full((32, 32, 3), tone) * (1 - alpha) + alpha * np.asarray(COLOURS[colour])


def hatched(strength, image):
    return np.clip(image + strength * np.sign(np.sin(np.arange(32) * 2.2))[None, :, None], 0, 1)


def sign(text, seed):
    prompt = {"prompt": "sign", "sign": {"text": text, "color": "red"}, "background": "grey"}
    return render(prompt, seed) / 255


def varied(what):
    rng = random.Random(0)
    draw = {
        "nothing": lambda i: scene(),
        "colour": lambda i: scene(colour=rng.choice(list(COLOURS))),
        "layout": lambda i: scene(x=rng.uniform(8, 24), y=rng.uniform(8, 24)),
        "style": lambda i: hatched(0.02 * i, scene()),
        "content": lambda i: scene(shape=rng.choice(SHAPES)),
        "tone": lambda i: scene(tone=rng.choice((0.14, 0.58, 0.92))),
        "one text": lambda i: sign("AC", i),
        "texts": lambda i: sign(rng.choice(("AC", "HK", "LN", "PT")), i),
    }[what]
    images = torch.tensor(np.stack([draw(i) for i in range(IMAGES)])).float().permute(0, 3, 1, 2)
    return {kind: group_diversity(get_features(name)(images)).item() for kind, name in KINDS.items()}


@pytest.fixture(scope="module")
def found():
    causes = ("nothing", *KINDS, "tone", "one text", "texts")
    return {cause: varied(cause) for cause in causes}


def test_equal_images_have_no_diversity(found):
    assert all(abs(value) < 1e-5 for value in found["nothing"].values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_moved_most_by_its_own_cause(found, kind):
    own = found[kind][kind]
    assert own > 0.03
    for other in set(KINDS) - {kind}:
        assert found[other][kind] < 0.25 * own, (other, found[other], own)


def test_a_background_is_a_colour_and_a_text_is_content(found):
    assert found["tone"]["colour"] > 0.1 and found["tone"]["layout"] < 0.01
    assert found["texts"]["content"] > 2 * found["one text"]["content"]


@pytest.mark.parametrize("name", ["colour", "layout", "style"])
def test_rules_take_images_of_any_size_and_do_not_overflow(name):
    images = torch.rand(3, 3, 75, 50)
    features = get_features(name)(torch.cat([images, torch.zeros(1, 3, 75, 50), torch.ones(1, 3, 75, 50)]))
    assert features.isfinite().all() and (features >= 0).all()
    assert torch.allclose(features[:3].norm(dim=1), torch.ones(3), atol=1e-3)


@pytest.mark.parametrize("name", ["colour", "layout"])
def test_a_larger_picture_of_the_same_has_the_same_colours_and_layout(name):
    small = torch.tensor(scene("square", "blue", 20.0, 10.0)).float().permute(2, 0, 1)[None]
    large = torch.nn.functional.interpolate(small, scale_factor=4, mode="nearest")
    encoder = get_features(name)
    assert group_diversity(torch.cat([encoder(small), encoder(large)])) < 0.03
