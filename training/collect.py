"""One iteration's images: drawn prompts, rollout, rewards; shared between processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

import methods
import rewards
from base_models.base import POLICY, BaseModel
from rewards.features import get_features
from training.configuration import RunConfig
from training.history import History
from training.processes import Processes
from training.prompts import PromptSet
from training.rollout import Trajectories, decode, noise, sample_ode, sample_trajectories
from training.seeding import generator
from training.update import OLD


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
        self.monitor = {n: rewards.get(n) for n in task.monitor}
        self.features = get_features(task.features) if needs.features else None

    @property
    def rewards_per_image(self) -> int:
        return 1 + len(self.auxiliary)

    def collect(self, iteration: int, history: History) -> Collected:
        """Roll the policy (or the old policy) out and score its images."""
        settings, seed = self.config.training, self.config.seed
        drawn = self.prompts.draw(settings.prompts_per_iteration, seed, iteration)
        prompt_of = torch.tensor(drawn).repeat_interleave(settings.group_size)
        share = self.processes.share(len(prompt_of))
        initial, noises = self.draw_noise(len(prompt_of), share, iteration)
        monitored = self.monitor if iteration % settings.monitor_every == 0 else {}

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
        self.log(every, iteration, history)
        return Collected(prompt_of, self.as_rollout(every, prompt_of), Trajectories.join(parts))

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
        self, images: torch.Tensor, prompt_of: torch.Tensor, monitored: dict
    ) -> dict[str, torch.Tensor]:
        """Scores (n,) by reward and features (n, D) of one micro-batch."""
        metadata = [self.prompts.prompts[i] for i in prompt_of]
        texts = [p["prompt"] for p in metadata]
        scores = {"proxy": self.proxy(images, texts, metadata)}
        for name, reward in {**self.auxiliary, **monitored}.items():
            scores[name] = reward(images, texts, metadata)
        if self.features:
            scores["features"] = self.features(images)
        return scores

    def as_rollout(self, scores: dict[str, torch.Tensor], prompt_of: torch.Tensor) -> methods.Rollout:
        """What the method sees of all images."""
        return methods.Rollout(
            rewards=scores["proxy"],
            groups=prompt_of,
            auxiliary=torch.stack([scores[n] for n in self.auxiliary]) if self.auxiliary else None,
            features=scores.get("features"),
        )

    def log(self, scores: dict[str, torch.Tensor], iteration: int, history: History) -> None:
        history.add(iteration, "reward/proxy_mean", scores["proxy"].mean())
        history.add(iteration, "reward/proxy_std", scores["proxy"].std(correction=0))
        for name in (n for n in scores if n not in ("proxy", "features")):
            history.add(iteration, f"reward/{name}_mean", scores[name].mean())
