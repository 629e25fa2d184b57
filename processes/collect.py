"""Images for a process that trains on them: drawn prompts, rollout, rewards, advantages."""

from __future__ import annotations

from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar

import torch

import rewards
from core.finite import check_finite
from core.seeding import generator
from methods import Needs, Rollout
from methods.maths.diversity import DIVERSITY, group_diversity
from processes.base import Process
from processes.rows import ImageExperience
from processes.sampling import Trajectories, decode, noise
from rewards.features import get_features

if TYPE_CHECKING:
    from runs.configuration import RunConfig
    from training.prompts import PromptSet

FEATURES, ORACLE = "features", "oracle"  # beside the names of rewards


class ImageProcess(Process):
    """Generates images and has them scored; a subclass says how, and makes batches of them."""

    shown = "reward/proxy_mean"
    rolled_out: ClassVar[str]  # the adapter that makes the images
    noises: int = 0  # stochastic steps of a rollout
    trainable: range  # the denoising steps whose noise shares may be trained on

    def __init__(self, *parts):
        super().__init__(*parts)
        self.sigmas = self.model.sigmas(self.model.config.rollout_steps).to(self.model.device)
        self.scorer = Scorer(self.run, self.prompts, self.needs)

    @abstractmethod
    def roll_out(self, prompt_of: torch.Tensor, initial: torch.Tensor, noises: torch.Tensor) -> Trajectories:
        """Trajectories of n images of one micro-batch.

        Args:
            prompt_of: (n,).
            initial: noise (n, ...).
            noises: of the stochastic steps (S, n, ...).
        """

    def collect(self, iteration: int) -> ImageExperience:
        """Roll out, score, and let the method make advantages of the scores."""
        c = self.settings
        drawn = self.prompts.draw(c.prompts_per_iteration, self.run.seed, iteration)
        prompt_of = torch.tensor(drawn).repeat_interleave(c.group_size)
        share = self.ranks.share(len(prompt_of))
        trajectories, scores = self.generate(prompt_of[share], *self.draw_noise(iteration, share), iteration)
        scores = {name: self.ranks.gather(values) for name, values in scores.items()}
        rollout = self.scorer.as_rollout(scores, prompt_of, iteration)
        prepared = self.method.prepare(rollout)
        logged = self.scorer.logged(scores, prompt_of, iteration)
        logged["train/groups_without_spread"] = groups_without_spread(rollout)
        logged |= {f"train/{name}": value for name, value in prepared.metrics.items()}
        return ImageExperience(
            iteration,
            images=len(prompt_of),
            reward_calls=len(prompt_of) * self.scorer.rewards_per_image,
            logged=logged,
            trajectories=trajectories,
            prepared=prepared,
            prompt_of=prompt_of,
            share=share,
            embedded=self.prompts.embeddings,
        )

    def draw_noise(self, iteration: int, share: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Initial noise (n, ...) and that of the stochastic steps (S, n, ...) of this share of the images.

        The noise of all images is drawn, so that it does not depend on the number of ranks.
        """
        c, device, shape = self.settings, self.model.device, self.model.latent_shape
        rng = generator("rollout", self.run.seed, iteration)
        images = c.prompts_per_iteration * c.group_size
        if c.same_initial_noise:
            groups = noise((c.prompts_per_iteration, *shape), rng, device)
            initial = groups.repeat_interleave(c.group_size, 0)[share]
        else:
            initial = noise((images, *shape), rng, device)[share]
        noises = initial.new_empty((self.noises, *initial.shape))
        for step in noises:
            step.copy_(noise((images, *shape), rng, device)[share])
        return initial, noises

    def generate(
        self, prompt_of: torch.Tensor, initial: torch.Tensor, noises: torch.Tensor, iteration: int
    ) -> tuple[Trajectories, dict[str, torch.Tensor]]:
        """Images of this rank and their scores (n,) by name, micro-batch by micro-batch."""
        c, parts, scores = self.settings, [], []
        with (
            self.model.using(self.rolled_out),
            torch.no_grad(),
            ThreadPoolExecutor(max_workers=1) as thread,
        ):
            for images in torch.arange(len(initial)).split(c.micro_batch):
                part = self.roll_out(prompt_of[images], initial[images], noises[:, images])
                where = f"{self.run.run}, iteration {iteration}"
                check_finite({"rollout's last latents": part.latents[-1]}, where)
                decoded = decode(self.model, part.latents[-1], c.micro_batch)
                check_finite({"images of the rollout": decoded}, where)
                score = thread.submit(
                    self.scorer.score, decoded, prompt_of[images], self.scorer.monitored(iteration)
                )
                if not c.overlap_rewards:
                    score.result()
                parts.append(part)
                scores.append(score)
        scores = [score.result() for score in scores]
        return Trajectories.join(parts), {name: torch.cat([s[name] for s in scores]) for name in scores[0]}

    def draw_steps(self, count: int, rng: torch.Generator) -> torch.Tensor:
        """A random subset of the trainable steps, in their order."""
        steps = torch.tensor(self.trainable[:: self.settings.trained_stride or 1])
        return steps[torch.randperm(len(steps), generator=rng)[:count]].sort().values


class Scorer:
    """Asks the rewards that the method, the task's monitor and the controls want, and no others."""

    def __init__(self, run: RunConfig, prompts: PromptSet, needs: Needs):
        self.run, self.prompts, self.needs = run, prompts, needs
        settings, task = run.training, run.task_settings
        self.proxy = rewards.get(task.proxy)
        self.auxiliary = {n: rewards.get(n) for n in task.auxiliary} if needs.auxiliary else {}
        self.oracle = rewards.get(task.gold) if settings.optimised_reward == "gold" else None
        self.monitor = {n: rewards.get(n) for n in task.monitor if n != DIVERSITY}
        self.features = get_features(task.features) if needs.features or DIVERSITY in task.monitor else None

    @property
    def rewards_per_image(self) -> int:
        return 1 + len(self.auxiliary) + (self.oracle is not None)

    def monitored(self, iteration: int) -> bool:
        return iteration % self.run.training.monitor_every == 0

    def score(
        self, images: torch.Tensor, prompt_of: torch.Tensor, monitored: bool
    ) -> dict[str, torch.Tensor]:
        """Scores (n,) by reward and features (n, D) of one micro-batch.

        ``monitored`` adds the task's monitored metrics, and what composite rewards are made of as
        ``reward.component``.
        """
        metadata = [self.prompts.prompts[i] for i in prompt_of]
        texts = [p["prompt"] for p in metadata]
        wanted = {"proxy": self.proxy, **self.auxiliary}
        if self.oracle:
            wanted[ORACLE] = self.oracle
        if monitored:
            wanted |= self.monitor
        scores = {name: reward(images, texts, metadata) for name, reward in wanted.items()}
        if monitored:
            for name, reward in ((n, r) for n, r in wanted.items() if n != ORACLE):
                for part, values in reward.parts(images, texts, metadata).items():
                    scores[f"{name}.{part}"] = values
        if self.features and (monitored or self.needs.features):
            scores[FEATURES] = self.features(images)
        return scores

    def as_rollout(self, scores: dict[str, torch.Tensor], prompt_of: torch.Tensor, iteration: int) -> Rollout:
        """What the method sees of all images; ``optimised_reward`` says which reward it is given."""
        seed, settings = self.run.seed, self.run.training
        seen = scores[ORACLE if settings.optimised_reward == "gold" else "proxy"]
        late = iteration > settings.shuffled_from * settings.iterations
        if settings.optimised_reward == "shuffled" and late:
            seen = shuffled(seen, prompt_of, generator("shuffled rewards", seed, iteration))
        return Rollout(
            rewards=seen,
            groups=prompt_of,
            auxiliary=torch.stack([scores[n] for n in self.auxiliary]) if self.auxiliary else None,
            features=scores[FEATURES] if self.needs.features else None,
            generator=generator("method", seed, iteration),
        )

    def logged(
        self, scores: dict[str, torch.Tensor], prompt_of: torch.Tensor, iteration: int
    ) -> dict[str, float]:
        """The true scores, whatever the method is given; those of each tag where a task has several."""
        proxy = scores["proxy"]
        logged = {"reward/proxy_std": proxy.std(correction=0)}
        for name in (n for n in scores if n not in (FEATURES, ORACLE)):
            logged[f"reward/{name}_mean"] = scores[name].nanmean()
        if FEATURES in scores and self.monitored(iteration):
            grouped = scores[FEATURES].unflatten(0, (-1, self.run.training.group_size))
            logged[f"reward/{DIVERSITY}_mean"] = group_diversity(grouped).mean()
        if len(self.prompts.by_tag) > 1:
            tags = [self.prompts.prompts[i]["tag"] for i in prompt_of]
            for tag in sorted(set(tags)):
                tagged = torch.tensor([t == tag for t in tags])
                logged[f"reward/proxy.{tag}_mean"] = proxy[tagged].mean()
        return {name: float(value) for name, value in logged.items()}


def shuffled(rewards: torch.Tensor, groups: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """``rewards`` (N,) permuted within each group (N,): the same numbers, without information."""
    mixed = torch.randperm(len(rewards), generator=rng)
    # Sorting by group brings both orders to blocks of the same groups: as they stand, and mixed.
    source = mixed[groups[mixed].argsort(stable=True)]
    result = torch.empty_like(rewards)
    result[groups.argsort(stable=True)] = rewards[source]
    return result


def groups_without_spread(rollout: Rollout) -> float:
    """Share of the prompts whose images all have one reward: they give no gradient."""
    groups = rollout.groups.unique()
    return sum(len(rollout.rewards[rollout.groups == g].unique()) == 1 for g in groups) / len(groups)
