"""One iteration's images: drawn prompts, rollout, rewards; shared between processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

import methods
import rewards
from base_models.base import POLICY, BaseModel
from methods.diversity import group_diversity
from rewards.features import get_features
from training.configuration import DIVERSITY, RunConfig
from training.history import History
from training.processes import Processes
from training.prompts import PromptSet
from training.rollout import Trajectories, decode, noise, sample_ode, sample_trajectories
from training.seeding import generator
from training.update import OLD

FEATURES, ORACLE = "features", "oracle"  # beside the names of rewards


@dataclass
class Collected:
    """``prompt_of`` (N,) and ``rollout`` hold the images of all processes, ``trajectories`` this one's."""

    prompt_of: torch.Tensor
    rollout: methods.Rollout
    trajectories: Trajectories


class Collector:
    """Generates and scores what the method asked for, and nothing else."""

    def __init__(
        self,
        config: RunConfig,
        model: BaseModel,
        prompts: PromptSet,
        needs: methods.Needs,
        processes: Processes,
    ):
        self.config, self.model, self.prompts, self.needs = config, model, prompts, needs
        self.processes = processes
        settings, task = config.training, config.task_settings
        self.stochastic = range(settings.sde_first, settings.sde_first + settings.sde_steps)
        self.proxy = rewards.get(task.proxy)
        self.auxiliary = {n: rewards.get(n) for n in task.auxiliary} if needs.auxiliary else {}
        self.oracle = rewards.get(task.gold) if settings.optimised_reward == "gold" else None
        self.monitor = {n: rewards.get(n) for n in task.monitor if n != DIVERSITY}
        self.features = get_features(task.features) if needs.features or DIVERSITY in task.monitor else None

    @property
    def rewards_per_image(self) -> int:
        return 1 + len(self.auxiliary) + (self.oracle is not None)

    def collect(self, iteration: int, history: History) -> Collected:
        """Roll the policy (or the old policy) out and score its images."""
        settings, seed = self.config.training, self.config.seed
        drawn = self.prompts.draw(settings.prompts_per_iteration, seed, iteration)
        prompt_of = torch.tensor(drawn).repeat_interleave(settings.group_size)
        share = self.processes.share(len(prompt_of))
        initial, noises = self.draw_noise(len(prompt_of), share, iteration)
        monitored = iteration % settings.monitor_every == 0

        parts, scores = [], []
        with (
            self.model.using(OLD if self.needs.process == "forward" else POLICY),
            torch.no_grad(),
            ThreadPoolExecutor(max_workers=1) as thread,
        ):
            for rows in torch.arange(len(initial)).split(settings.micro_batch):
                mine = prompt_of[share][rows]
                part = self.roll_out(mine, initial[rows], noises[:, rows])
                images = decode(self.model, part.latents[-1], settings.micro_batch)
                parts.append(part)
                score = thread.submit(self.score, images, mine, monitored)
                if not settings.overlap_rewards:
                    score.result()
                scores.append(score)
        scores = [s.result() for s in scores]
        every = {key: self.processes.gather(torch.cat([s[key] for s in scores])) for key in scores[0]}
        self.log(every, prompt_of, iteration, history)
        rollout = self.as_rollout(every, prompt_of, iteration)
        history.add(iteration, "train/groups_without_spread", groups_without_spread(rollout))
        return Collected(prompt_of, rollout, Trajectories.join(parts))

    def draw_noise(self, images: int, share: slice, iteration: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Initial noise (n, ...) and that of the stochastic steps (S, n, ...) of this process's share.

        The noise of all images is drawn, so that it does not depend on the number of processes.
        """
        settings, device = self.config.training, self.model.device
        rng = generator("rollout", self.config.seed, iteration)
        shape = self.model.latent_shape
        if settings.same_initial_noise:
            groups = noise((images // settings.group_size, *shape), rng, device)
            initial = groups.repeat_interleave(settings.group_size, 0)[share]
        else:
            initial = noise((images, *shape), rng, device)[share]
        steps = 0 if self.needs.process == "forward" else len(self.stochastic)
        noises = initial.new_empty((steps, *initial.shape))
        for step in noises:
            step.copy_(noise((images, *shape), rng, device)[share])
        return initial, noises

    def roll_out(self, prompt_of: torch.Tensor, initial: torch.Tensor, noises: torch.Tensor) -> Trajectories:
        """Trajectories of one micro-batch; a forward-process method has use for the final latents only."""
        settings = self.config.training
        common = {"steps": self.model.config.rollout_steps, "empty": self.prompts.empty}
        embeddings = self.prompts.embeddings[prompt_of]
        if self.needs.process == "forward":
            latents = sample_ode(self.model, embeddings, initial, batch=len(initial), **common)
            sigmas = self.model.sigmas(common["steps"]).to(self.model.device)
            none, own = latents[None, :0], torch.arange(len(latents)).expand(common["steps"], -1)
            return Trajectories(latents[None], none, none, sigmas, own)
        # The first gradient step is on policy. Where it is the only one and trains all that was drawn, it can
        # use the rollout's graph, if that is within the bounds of one forward pass of an update.
        rows = len(initial) * len(self.stochastic)
        all_rows = settings.gradient_steps == 1 and settings.trained_steps >= len(self.stochastic)
        return sample_trajectories(
            self.model,
            embeddings,
            initial,
            sde=settings.sde,
            noise_level=settings.noise_level,
            stochastic=self.stochastic,
            noises=noises,
            group=prompt_of if settings.same_initial_noise else None,
            keep_graph=all_rows and rows <= settings.micro_batch,
            **common,
        )

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
                for part, values in reward.components(images, texts, metadata).items():
                    scores[f"{name}.{part}"] = values
        if self.features and (monitored or self.needs.features):
            scores[FEATURES] = self.features(images)
        return scores

    def as_rollout(
        self, scores: dict[str, torch.Tensor], prompt_of: torch.Tensor, iteration: int
    ) -> methods.Rollout:
        """What the method sees of all images; ``optimised_reward`` says which reward it is given."""
        seed, settings = self.config.seed, self.config.training
        seen = scores[ORACLE if settings.optimised_reward == "gold" else "proxy"]
        late = iteration > settings.shuffled_from * settings.iterations
        if settings.optimised_reward == "shuffled" and late:
            seen = shuffled(seen, prompt_of, generator("shuffled rewards", seed, iteration))
        return methods.Rollout(
            rewards=seen,
            groups=prompt_of,
            auxiliary=torch.stack([scores[n] for n in self.auxiliary]) if self.auxiliary else None,
            features=scores[FEATURES] if self.needs.features else None,
            generator=generator("method", seed, iteration),
        )

    def log(
        self, scores: dict[str, torch.Tensor], prompt_of: torch.Tensor, iteration: int, history: History
    ) -> None:
        """The true scores, whatever the method is given; those of each tag where a task has several."""
        proxy = scores["proxy"]
        history.add(iteration, "reward/proxy_std", proxy.std(correction=0))
        for name in (n for n in scores if n not in (FEATURES, ORACLE)):
            history.add(iteration, f"reward/{name}_mean", scores[name].nanmean())
        if FEATURES in scores and iteration % self.config.training.monitor_every == 0:
            size = self.config.training.group_size
            grouped = scores[FEATURES].unflatten(0, (-1, size))
            history.add(iteration, f"reward/{DIVERSITY}_mean", group_diversity(grouped).mean())
        if len(self.prompts.by_tag) > 1:
            tags = [self.prompts.prompts[i]["tag"] for i in prompt_of]
            for tag in sorted(set(tags)):
                mine = torch.tensor([t == tag for t in tags])
                history.add(iteration, f"reward/proxy.{tag}_mean", proxy[mine].mean())


def shuffled(rewards: torch.Tensor, groups: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """``rewards`` (N,) permuted within each group (N,): the same numbers, without information."""
    mixed = torch.randperm(len(rewards), generator=rng)
    # Sorting by group brings both orders to blocks of the same groups: as they stand, and mixed.
    source = mixed[groups[mixed].argsort(stable=True)]
    result = torch.empty_like(rewards)
    result[groups.argsort(stable=True)] = rewards[source]
    return result


def groups_without_spread(rollout: methods.Rollout) -> float:
    """Share of the prompts whose images all have one reward: they give no gradient."""
    groups = rollout.groups.unique()
    return sum(len(rollout.rewards[rollout.groups == g].unique()) == 1 for g in groups) / len(groups)
