"""Real images with captions, encoded for DDRL."""

import json

import pytest
import torch
from PIL import Image

from base_models import open_base_model
from runs.config_files import load_base_model
from training import data
from training.image_folder import ImageFolder, ImageFolderError, load_square
from training.prompts import PromptSet


@pytest.fixture
def folder(tmp_path):
    """Two images of one caption, one of another, of different sizes and modes."""
    rows = [("a.png", (64, 40), "RGB", "a red car"), ("sub/b.jpg", (33, 50), "RGB", "a red car")]
    rows += [("c.png", (20, 20), "RGBA", "a tree")]
    (tmp_path / "sub").mkdir()
    lines = []
    for i, (name, size, mode, caption) in enumerate(rows):
        Image.new(mode, size, tuple([60 * i + 40] * len(mode))).save(tmp_path / name)
        lines.append(json.dumps({"file_name": name, "text": caption}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_images_become_latents_in_the_order_of_the_prompts(folder, tmp_path):
    model = open_base_model(load_base_model("tiny-sd3"))
    prompts = tmp_path / "prompts.jsonl"
    texts = ["a tree", "a red car"]
    prompts.write_text("".join(json.dumps({"tag": "prompt", "prompt": t}) + "\n" for t in texts))
    chosen = PromptSet(prompts, {}, model)
    latents = ImageFolder(folder).latents(model, chosen.prompts, 1, batch=1)
    assert latents.shape == (2, *model.latent_shape)
    alone = model.encode(load_square(folder / "c.png", 32)[None])
    assert torch.allclose(latents[:1], alone, atol=1e-5)
    data.save(tmp_path / "latents.safetensors", latents, chosen, 1)
    drawn = data.DataSet(tmp_path / "latents.safetensors", chosen).draw(torch.tensor([1]), torch.Generator())
    assert torch.equal(drawn[0], latents[1])


def test_the_centre_is_kept(tmp_path):
    image = Image.new("RGB", (96, 32), "white")
    image.paste((255, 0, 0), (32, 0, 64, 32))
    image.save(tmp_path / "wide.png")
    square = load_square(tmp_path / "wide.png", 32)
    assert square.shape == (3, 32, 32) and torch.equal(square[:, 16, 16], torch.tensor([1.0, 0, 0]))
    assert square[1].max() < 0.2  # the white sides are cut away


def test_what_is_missing_is_named(folder):
    with pytest.raises(ImageFolderError, match=r"metadata.jsonl: 1 images.*'a tree', 2 are needed"):
        ImageFolder(folder).wanted([{"prompt": "a red car"}, {"prompt": "a tree"}], 2)
    metadata = folder / "metadata.jsonl"
    good = metadata.read_text()
    metadata.write_text(good + '{"file_name": "c.png"}\n')
    with pytest.raises(ImageFolderError, match=r"metadata.jsonl, line 4: .*'file_name' and 'text'"):
        ImageFolder(folder)
    metadata.write_text(good + '{"file_name": "d.png", "text": "x"}\n')
    with pytest.raises(ImageFolderError, match=r"line 4: .*d.png does not exist"):
        ImageFolder(folder)
    metadata.unlink()
    with pytest.raises(ImageFolderError, match=r"metadata.jsonl does not exist"):
        ImageFolder(folder)
    (folder / "a.png").write_text("no image")
    with pytest.raises(ImageFolderError, match=r"a.png is no readable image"):
        load_square(folder / "a.png", 32)
