"""OCR reward: can the quoted word of the prompt be read in the image?

The rule is that of the public implementations (Flow-GRPO, GARDO): see ``ocr_reward``. The models are
PP-OCRv4 (Chinese and English) as shipped in rapidocr-onnxruntime; the papers used the English models of
PaddleOCR 2.9, and handed it RGB where it expects BGR, so single images read otherwise. Photographs go through
the text detector, set as PaddleOCR sets it. The scenes of the embedded world are too small for it: a rule
crops to the pastel sign; where there is none, the whole image is read.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import torch

from rewards.base import Reward
from rewards.onnx_graphs import fused
from rewards.published.images import to_uint8

DETECTION_SIDE = 256  # ours: pixels of the shorter side from which the text detector finds lines
_QUOTED = re.compile(r'"([^"]+)"')
# PaddleOCR 2.9.1's defaults, which Flow-GRPO keeps; rapidocr's own are 736 ("min"), 0.5, 1.6 and dilation.
DETECTOR = {
    "det_limit_side_len": 960,
    "det_limit_type": "max",
    "det_box_thresh": 0.6,
    "det_unclip_ratio": 1.5,
    "det_use_dilation": False,
}
_UPSCALE = 3
_HEIGHT, _NARROWEST = 48, 80  # pixels of the recogniser's input; narrower signs are padded (ours, the width)
_TOGETHER = 8  # signs at most: the activations of more leave a processor's cache
_SIGN_CHROMA = 0.15  # pastel signs have a chroma of 0.36, backgrounds 0


def target_text(prompt: str) -> str:
    """The text between the first pair of double quotes; what follows a quote that is never closed.

    Raises ``ValueError`` where there is none.
    """
    match = _QUOTED.search(prompt)
    text = match.group(1) if match else prompt.partition('"')[2]
    if not text.strip(' "'):
        raise ValueError(f'the ocr reward needs a word in double quotes ("...") in the prompt {prompt!r}')
    return text


def ocr_reward(prompt: str, recognised: str) -> float:
    """max(1 - N_e / N_ref, 0) with a substring shortcut, in [0, 1] (flow_grpo ``ocr.py``).

    Spaces are removed and letters lower-cased on both sides. The distance is 0 where the target is a
    substring of what was read, else the Levenshtein distance, capped at the target's length.
    """
    from rapidfuzz.distance import Levenshtein

    target = target_text(prompt).replace(" ", "").lower()
    read = recognised.replace(" ", "").lower()
    distance = 0 if target in read else min(Levenshtein.distance(read, target), len(target))
    return 1 - distance / len(target)


def crop_to_sign(image: np.ndarray) -> np.ndarray:
    """The bounding box of coloured pixels, or the whole image. uint8 (H, W, 3) -> uint8 (h, w, 3)."""
    wide = image.astype(np.int16)
    colored = (wide.max(-1) - wide.min(-1)) > _SIGN_CHROMA * 255
    rows, columns = np.flatnonzero(colored.sum(1) >= 6), np.flatnonzero(colored.sum(0) >= 4)
    if len(rows) < 6 or len(columns) < 6:
        return image
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


class OCR(Reward):
    name = "ocr"
    role = "proxy"
    scale = "0 to 1: 1 - edit distance / length of the quoted word"
    licence = "rule: MIT (Flow-GRPO); PP-OCRv4 and rapidocr-onnxruntime: Apache-2.0"
    expected_base = {"tiny-sd3": 0.53, "tiny-flux": 0.45, "sd3.5-medium": 0.58}
    expected_source = "docs/results; GARDO Table 1, with PaddleOCR 2.9"

    @functools.cached_property
    def recogniser(self):
        """The text recogniser alone, for single signs."""
        import rapidocr_onnxruntime
        from onnxruntime import InferenceSession
        from rapidocr_onnxruntime.ch_ppocr_rec import TextRecognizer

        model = Path(rapidocr_onnxruntime.__file__).parent / "models" / "ch_PP-OCRv4_rec_infer.onnx"
        settings = {
            "model_path": str(model),
            "rec_batch_num": _TOGETHER,
            "rec_img_shape": [3, _HEIGHT, _NARROWEST],
            "intra_op_num_threads": torch.get_num_threads(),
            "inter_op_num_threads": 1,
            "use_cuda": False,
            "use_dml": False,
        }
        recogniser = TextRecognizer(settings)
        options = recogniser.session._init_sess_opts(settings)
        options.enable_cpu_mem_arena = True  # or every operator asks the system for its output's memory
        recogniser.session.session = InferenceSession(
            fused(model), sess_options=options, providers=["CPUExecutionProvider"]
        )
        return recogniser

    @functools.cached_property
    def reader(self):
        """Text detector and recogniser; lines come from top to bottom, then from left to right."""
        from rapidocr_onnxruntime import RapidOCR

        # upstream: without the classifier of upside-down lines (flow_grpo ocr.py)
        threads = {"intra_op_num_threads": torch.get_num_threads(), "inter_op_num_threads": 1}
        return RapidOCR(use_cls=False, **DETECTOR, **threads)

    def read(self, images: torch.Tensor) -> list[str]:
        """Recognised text of float images (N, 3, H, W) in [0, 1]."""
        pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
        if min(images.shape[-2:]) >= DETECTION_SIDE:
            return self._read_photos(pixels)
        return self._read_signs(pixels)

    def _read_photos(self, pixels: np.ndarray) -> list[str]:
        found = [self.reader(np.ascontiguousarray(image[..., ::-1]))[0] or [] for image in pixels]  # BGR
        return ["".join(text for _, text, _ in lines) for lines in found]

    def _read_signs(self, pixels: np.ndarray) -> list[str]:
        import cv2

        crops = []
        for image in pixels:
            grey = crop_to_sign(image).astype(np.float32).mean(-1, keepdims=True)
            crop = np.repeat(grey, 3, axis=2).astype(np.uint8)
            crops.append(cv2.resize(crop, None, fx=_UPSCALE, fy=_UPSCALE, interpolation=cv2.INTER_CUBIC))
        # In a batch a sign is padded to the widest beside it, and then one in fifty is read otherwise than by
        # itself. Signs of one width change nothing for each other.
        by_width: dict[int, list[int]] = {}
        for index, crop in enumerate(crops):
            width = max(int(_HEIGHT * crop.shape[1] / crop.shape[0]), _NARROWEST)
            by_width.setdefault(width, []).append(index)
        texts = [""] * len(crops)
        for members in by_width.values():
            results, _ = self.recogniser([crops[i] for i in members])
            for index, (text, _) in zip(members, results, strict=True):
                texts[index] = text
        return texts

    def score(self, images, prompts, metadata):
        texts = self.read(images)
        return torch.tensor([ocr_reward(p, t) for p, t in zip(prompts, texts, strict=True)])

    @classmethod
    def check_prompts(cls, metadata):
        for prompt in metadata:
            target_text(prompt["prompt"])
