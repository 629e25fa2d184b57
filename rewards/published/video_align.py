"""VideoAlign's network (arXiv 2501.13918): Qwen2-VL-2B whose hidden states at three tokens are graded.

Upstream (KwaiVGI/VideoAlign) runs it under transformers 4.45, where the language model counts every token of
a clip as one position. Qwen2-VL's three-dimensional positions, which transformers 5 would choose, give other
scores; the positions are therefore stated here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import torch

from rewards.published import qwen_vl
from rewards.published.github import GitHubFiles
from rewards.published.hub import HubFiles, file, folder
from rewards.published.images import device, to_pil

WEIGHTS = HubFiles(
    "KlingTeam/VideoReward",
    ("checkpoint-11352/model.pth",),
    "Apache-2.0",
    "4f26600130683e6f1de9f5d463887f28e8ef995c",
)
BACKBONE = HubFiles(
    "Qwen/Qwen2-VL-2B-Instruct",
    ("config.json", "tokenizer.json", "tokenizer_config.json"),
    "Apache-2.0",
    "895c3a49bc3fa70a340399125c650a463535e71c",
)
INSTRUCTION = GitHubFiles(
    "github.com/KwaiVGI/VideoAlign",
    ("prompt_template.py",),
    "MIT",
    "219ab9db64c045e5181a2202d11f686439351292",
    blobs=("cdaa0117501d411549fbe1cee7d597227a36d0bd",),
)
# Visual quality, motion quality, text alignment, in the order of the instruction.
TOKENS = {"vq": "<|VQ_reward|>", "mq": "<|MQ_reward|>", "ta": "<|TA_reward|>"}
LORA_SCALE = 128 / 64  # upstream: train.sh, alpha / rank
SAMPLED = 2.0  # frames per second that the model sees; upstream: train.sh
FEWEST, MOST = 4, 768  # sampled frames; upstream: vision_process.py
LEAST_PIXELS, MOST_PIXELS = 128 * 28 * 28, 448 * 448  # of a frame; upstream: vision_process.py, train.sh
_PREFIX = "base_model.model."  # of a PEFT model
_SPECIAL = re.compile(r"<\|\w+\|>")


def sampled_frames(total: int, frames_per_second: float) -> list[int]:
    """Which of a clip's frames are seen: ``SAMPLED`` a second, from the first to the last, evenly spread.

    Their number is even and at least ``FEWEST``. A clip of two or three frames shows two of them; one of a
    single frame, which upstream refuses, shows that one.
    """
    if total < 2:
        return list(range(total))
    wanted = total / frames_per_second * SAMPLED
    wanted = min(max(wanted, FEWEST), min(MOST, total) // 2 * 2)
    return torch.linspace(0, total - 1, round(wanted / 2) * 2).round().long().tolist()


def instruction(path: Path) -> str:
    """The text with the field ``text_prompt``, read from upstream's file, which is not run."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "DETAILED_PROMPT_WITH_SPECIAL_TOKEN":
            return ast.literal_eval(node.value)
    raise ValueError(f"{path} holds no DETAILED_PROMPT_WITH_SPECIAL_TOKEN")


def check_caption(caption: str) -> None:
    """Raise ``ValueError`` for a caption with one of the model's own tokens."""
    if found := _SPECIAL.search(caption):
        raise ValueError(f"VideoAlign cannot score a prompt that holds {found[0]}: {caption!r}")


def merged(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A PEFT model's parameters with the low-rank updates added, by the names of ``Qwen2VLModel``.

    The output layer over words is left out; the head of the grades is "rm_head.weight".
    """
    found = {}
    for key, value in state.items():
        name = key.removeprefix(_PREFIX)
        if ".lora_" in name or name.startswith("lm_head."):
            continue
        down = state.get(key.replace(".base_layer.", ".lora_A.default."))
        if ".base_layer." in name and name.endswith(".weight"):
            up = state[key.replace(".base_layer.", ".lora_B.default.")]
            value = value.float() + LORA_SCALE * up.float() @ down.float()
        name = re.sub("^model[.]", "language_model.", name.replace(".base_layer.", "."))
        found[name] = value.to(dtype)
    return found


class VideoAlignModel:
    """Tokenizer, frozen network and head; bf16 on an accelerator as upstream, the head in float32."""

    _opened: WeakValueDictionary[tuple, VideoAlignModel] = WeakValueDictionary()

    def __init__(self, weights: Path, backbone: Path, template: Path):
        from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLModel

        self.template = instruction(template)
        self.tokenizer = AutoTokenizer.from_pretrained(backbone)
        self.tokenizer.add_tokens(list(TOKENS.values()), special_tokens=True)
        where = device()
        dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
        state = merged(torch.load(weights, map_location="cpu", weights_only=True, mmap=True), dtype)
        self.head = state.pop("rm_head.weight").float().to(where)
        if len(self.head) not in (1, len(TOKENS)):
            raise ValueError(f"{weights}: a head of {len(self.head)} outputs; valid: 1 or {len(TOKENS)}")
        config = Qwen2VLConfig.from_pretrained(backbone)
        config.text_config.vocab_size = len(state["language_model.embed_tokens.weight"])
        if config.text_config.vocab_size != len(self.tokenizer):
            raise ValueError(
                f"{weights} has {config.text_config.vocab_size} tokens, the tokenizer {len(self.tokenizer)}"
            )
        model, report = Qwen2VLModel.from_pretrained(
            None, config=config, state_dict=state, dtype=dtype, output_loading_info=True
        )
        if report["missing_keys"] or report["unexpected_keys"]:
            raise ValueError(f"{weights} does not fit the model: {report}")
        self.model = model.eval().requires_grad_(False).to(where)

    @classmethod
    def open(cls) -> VideoAlignModel:
        """The published one, which plug-ins of the same process share."""
        places = file(WEIGHTS), folder(BACKBONE), file(INSTRUCTION)
        key = (*places, device())
        model = cls._opened.get(key)
        if model is None:
            model = cls._opened[key] = cls(*places)
        return model

    def grades(
        self, clips: torch.Tensor, captions: list[str], frames_per_second: float
    ) -> dict[str, torch.Tensor]:
        """What the head says of clips, before any normalisation.

        Args:
            clips: float (N, F, 3, H, W) in [0, 1].
            captions: N.
            frames_per_second: at which the clips are to be seen.

        Returns:
            float32 (N,) by the name of a criterion: "vq", "mq", "ta".
        """
        shown = clips[:, sampled_frames(clips.shape[1], frames_per_second)]
        texts = [self.template.format(text_prompt=caption) for caption in captions]
        inputs = qwen_vl.clip_batch(
            self.tokenizer, [to_pil(clip) for clip in shown], texts, LEAST_PIXELS, MOST_PIXELS, "right"
        )
        where = self.model.device
        ids = inputs.input_ids.to(where)
        seen = self.model.visual(
            inputs.pixel_values.to(where, self.model.dtype), grid_thw=inputs.image_grid_thw.to(where)
        ).pooler_output
        embedded = self.model.language_model.embed_tokens(ids)
        clip_id = self.tokenizer.convert_tokens_to_ids(qwen_vl.CLIP_TOKEN)
        places = (ids == clip_id).unsqueeze(-1).expand_as(embedded)
        hidden = self.model.language_model(
            inputs_embeds=embedded.masked_scatter(places, seen.to(embedded.dtype)),
            attention_mask=inputs.attention_mask.to(where),
            position_ids=torch.arange(ids.shape[1], device=where).expand(3, len(ids), -1),
            use_cache=False,
        ).last_hidden_state
        grades = {}
        for row, (criterion, token) in enumerate(TOKENS.items()):
            at = ids == self.tokenizer.convert_tokens_to_ids(token)
            grades[criterion] = hidden[at].float() @ self.head[row % len(self.head)]
        return grades
