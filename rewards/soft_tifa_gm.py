"""Soft-TIFA on GenEval 2's prompts, by prompt (arXiv 2512.16853): is everything right at once?

A prompt comes with a question for each of its atoms. Qwen3-VL is asked each about the image, and the
probability that its first token begins the right answer is the atom's score. The geometric mean of the atoms
estimates whether the whole prompt is met, the arithmetic mean (``soft_tifa_am``) how many atoms are.
"""

from __future__ import annotations

import torch

from core.prompts import SKILLS
from rewards.base import Reward
from rewards.published import qwen_vl
from rewards.published.hub import INDEX, HubFiles
from rewards.published.images import in_batches, to_pil

MODEL = HubFiles(
    "Qwen/Qwen3-VL-8B-Instruct",
    ("config.json", "tokenizer.json", "tokenizer_config.json", INDEX),
    "Apache-2.0",
    "0c351dd01ed87e9c1b53cbc748cba10e6187ff3b",
)
LEAST, MOST = 256 * 256, 4096 * 4096  # upstream: preprocessor_config.json of Qwen3-VL, pixels
BATCH = 16  # questions per forward pass; no effect on the scores
QUESTION = "{question} Answer in one word."  # upstream: GenEval2 evaluation.py
NUMBERS = "one two three four five six seven eight nine ten".split()  # upstream: those that have a digit


def answers(right: str, number: bool) -> list[str]:
    """The forms in which an answer counts as right (upstream: GenEval2 evaluation.py, ``soft_tifa``).

    A tokenizer that has no token for a space and a digit begins " 4" with the space; upstream adds its
    probability, and so does this.
    """
    if not number:
        return ["Yes", "yes", " yes", " Yes"]
    digits = str(NUMBERS.index(right) + 1) if right in NUMBERS else "other"
    return [right, right.capitalize(), f" {right}", f" {right.capitalize()}", digits, f" {digits}"]


class SoftTifaGM(Reward):
    name = "soft_tifa_gm"
    scale = "0 to 1 per image: geometric mean of the probabilities of its prompt's right answers"
    licence = "Apache-2.0 (Qwen3-VL); questions: CC BY-NC 4.0 (GenEval 2)"
    hub = (MODEL,)

    def __init__(self):
        self.tokenizer, self.model = qwen_vl.opened("Qwen3VLForConditionalGeneration", MODEL)

    @classmethod
    def check_prompts(cls, metadata):
        for prompt in metadata:
            if not prompt.get("questions"):
                raise ValueError(
                    f"prompt {prompt['prompt']!r} has no questions about its atoms; those of geneval2 do"
                )

    def first_tokens(self, pictures: torch.Tensor, questions: list[str]) -> torch.Tensor:
        """Probability (N, V) of each token to begin the answer to a question about a picture."""
        texts = [QUESTION.format(question=question) for question in questions]
        inputs = qwen_vl.batch(
            self.tokenizer, to_pil(pictures), texts, LEAST, MOST, padding_side="left", version=qwen_vl.QWEN3
        )
        logits = self.model(**inputs.arguments(self.tokenizer, self.model), logits_to_keep=1).logits
        return logits[:, -1].float().softmax(-1)

    def right(self, pictures: torch.Tensor, asked: list[dict]) -> torch.Tensor:
        """Probability (N,) of the right answer to each picture's question."""
        probabilities = self.first_tokens(pictures, [each["question"] for each in asked])
        forms = [answers(each["answer"], each["question"].startswith("How many")) for each in asked]
        begin = [[self.tokenizer.encode(form)[0] for form in of] for of in forms]
        return torch.stack([row[tokens].sum() for row, tokens in zip(probabilities, begin, strict=True)])

    def atoms(self, images: torch.Tensor, metadata: list[dict]) -> list[torch.Tensor]:
        """For each image the scores of its prompt's atoms."""
        counts = [len(prompt["questions"]) for prompt in metadata]
        which = torch.repeat_interleave(torch.arange(len(images)), torch.tensor(counts))
        asked = [each for prompt in metadata for each in prompt["questions"]]

        def batch(rows: torch.Tensor, questions: list[dict]) -> torch.Tensor:
            return self.right(images[rows], questions)

        return list(in_batches(batch, BATCH, which, asked).split(counts))

    def components(self, images, prompts, metadata):
        """Mean score of the atoms of each skill, NaN where a prompt asks for none."""
        skills = [[each["skill"] for each in prompt["questions"]] for prompt in metadata]
        atoms = self.atoms(images, metadata)
        return {
            skill: torch.stack(
                [scores[[s == skill for s in of]].mean() for scores, of in zip(atoms, skills, strict=True)]
            )
            for skill in SKILLS
        }

    def score(self, images, prompts, metadata):
        return torch.stack([scores.log().mean().exp() for scores in self.atoms(images, metadata)])
